"""The verb ``demo``: the complete pipeline of one config file, from raw logs to the titles a champion recommends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import ray
from ray.exceptions import RayTaskError

from cluster.console import say
from cluster.errors import UserError
from cluster.ray_session import fits_here, ray_session
from cluster.storage import check_free, output_directory, read_manifest
from cluster.tracking import Tracker
from data_prep.prepare import prepare
from data_prep.reading import read_titles
from data_prep.schema import sequence_files
from demo.config import DemoConfig
from demo.figures import Figures, render, student_figures, teacher_figures, yardstick_figures
from demo.pipeline import Pipeline, plan
from demo.report import REPORT_FILE, write_report
from model_registry.champion import CHALLENGER, CHAMPION
from model_registry.config import PromoteConfig, RecommendConfig
from model_registry.promote import promote
from model_registry.recommend import RECOMMENDATIONS_FILE, recommend
from model_registry.register import register_student
from student_train.config import TrainConfig
from student_train.evaluation import protocol
from student_train.outcome import CURVE_FILE
from student_train.train import train
from teacher_infer.label import label
from teacher_infer.locate import locate_teacher
from teacher_train.train import train_teacher
from tune.best import STUDENT_FOLDER
from tune.search import tune

VERB = "demo"
SHOWN_TITLES = 5
SHORTEST_SHOWN_HISTORY = 4


def demo(config: DemoConfig) -> Path:
    """Run every verb once and report; ends with the table, the report's path and the champion's titles.

    Raises:
        UserError: as raised by the verbs.
    """
    report = config.output / "report"
    check_free(report, VERB, config.overwrite)
    pipeline = plan(config)
    seconds: dict[str, float] = {}
    with ray_session(config.cluster):
        with _stage("prepare", seconds):
            prepare(pipeline.prepare)
        if pipeline.train_teacher:
            with _stage("train-teacher", seconds):
                train_teacher(pipeline.train_teacher)
        with _stage("label", seconds):
            for one in pipeline.labels.values():
                label(one)
            pipeline = pipeline.distilled_from(_better_labels(pipeline))
            say(_choice(pipeline))
        with _stage("train", seconds):
            _train_all([one for several in pipeline.students.values() for one in several], config.concurrent)
        if pipeline.tune:
            with _stage("tune", seconds):
                tune(pipeline.tune)
        with _stage("promote and recommend", seconds):
            lines = _figures(pipeline)
            _register_best(config, pipeline, lines)
            answer = _recommend(config, pipeline, _promoted(config, pipeline))
    first = next(iter(pipeline.students.values()))[0]
    how = protocol(first.filter_history, read_manifest(first.dataset, "prepare").config)
    with output_directory(
        report, verb=VERB, config=config, inputs=_inputs(pipeline), overwrite=config.overwrite
    ) as draft:
        curves = {name: configs[0].output / CURVE_FILE for name, configs in pipeline.students.items()}
        write_report(draft.path, f"dllm2rec: {config.pipeline.stem}", how, lines, curves, answer)
        draft.metrics |= {f"{name}_seconds": value for name, value in seconds.items()}
        draft.metrics |= {f"{line.name}_test_ndcg@20": line.mean("ndcg@20") for line in lines}
    say(f"\nTest set, {how}:\n{render(lines)}\n\nReport: {report / REPORT_FILE}\n\n" + "\n".join(answer))
    say("\n" + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    return config.output


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    say(f"\n── {name} ──")
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _train_all(configs: list[TrainConfig], concurrent: int) -> None:
    """Train students side by side: on one machine each in a process, on a cluster each with workers of its own.

    Raises:
        UserError: the first one that a training raised.
    """
    running: list[ray.ObjectRef] = []
    try:
        for config in configs:
            here = fits_here(config.cluster, config.resources, config.max_failures)
            remote = ray.remote(num_cpus=config.resources.cpus if here else 0, max_retries=0)(train)
            if len(running) == concurrent:
                done, running = ray.wait(running)
                ray.get(done)
            absolute = config.model_copy(update={"output": config.output.absolute()})
            running.append(remote.remote(absolute, in_process=here))
        ray.get(running)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _teachers(pipeline: Pipeline) -> dict[str, float]:
    """NDCG@20 on validation rows by teacher, the best first."""
    found = {
        name: read_manifest(one.output, "label").metrics["validation_ndcg@20"] for name, one in pipeline.labels.items()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _better_labels(pipeline: Pipeline) -> Path:
    return pipeline.labels[next(iter(_teachers(pipeline)))].output


def _choice(pipeline: Pipeline) -> str:
    figures = ", ".join(f"{name} {ndcg:.4f}" for name, ndcg in _teachers(pipeline).items())
    return f"students learn from the first of these: {figures} (NDCG@20 on validation rows)"


def _figures(pipeline: Pipeline) -> list[Figures]:
    dataset = pipeline.prepare.output
    students = [student_figures(name, [one.output for one in several]) for name, several in pipeline.students.items()]
    if pipeline.tune:
        name = f"{pipeline.tune.train.model.name} searched"
        students.append(student_figures(name, [pipeline.tune.output / STUDENT_FOLDER]))
    teachers = []
    for name, one in pipeline.labels.items():
        model = locate_teacher(one.teacher, one.ranking, dataset, read_manifest(dataset)).model
        teachers.append(teacher_figures(name, one.output, dataset, model))
    return [*yardstick_figures(dataset), *teachers, *students]


def _register_best(config: DemoConfig, pipeline: Pipeline, lines: list[Figures]) -> None:
    """Register the student that is best on validation; the search has registered its own already."""
    students = [line for line in lines if not line.name.startswith(("to beat", "teacher"))]
    best = max(students, key=lambda line: line.validation)
    if best.name in pipeline.students:
        directories = [one.output for one in pipeline.students[best.name]]
        chosen = max(directories, key=lambda path: read_manifest(path).metrics["validation_ndcg@20"])
        register_student(Tracker(config.tracking), chosen, config.register_as)


def _promoted(config: DemoConfig, pipeline: Pipeline) -> str:
    """The alias that recommends: of the champion, or of the newest version where no rows are set aside for promote."""
    if not read_manifest(pipeline.prepare.output).counts.get("gate"):
        say("nothing is promoted: the data set sets no rows aside for it (prepare --gate-share)")
        return CHALLENGER
    promote(PromoteConfig(name=config.register_as, output=config.output / "promotion", tracking=config.tracking))
    return CHAMPION


def _recommend(config: DemoConfig, pipeline: Pipeline, alias: str) -> list[str]:
    """The titles of the version with this alias for the first test row with some history."""
    rows = pq.read_table(sequence_files(pipeline.prepare.output, "test")[0], columns=["history"])["history"].to_pylist()
    history = next((row for row in rows if len(row) >= SHORTEST_SHOWN_HISTORY), rows[0])
    titles = read_titles(pipeline.prepare.output)
    shown = tuple(titles[item] for item in history)
    output = recommend(
        RecommendConfig(
            model=f"models:/{config.register_as}@{alias}",
            history=shown,
            k=SHOWN_TITLES,
            output=config.output / "recommendations",
            tracking=config.tracking,
        )
    )
    answer = pq.read_table(output / RECOMMENDATIONS_FILE).to_pylist()
    return [
        f"{alias.capitalize()} models:/{config.register_as}@{alias}, after the history (oldest first):",
        *(f"    {title}" for title in shown),
        "recommends:",
        *(f"{line['rank']:>4}  {line['title']}  ({line['score']:.3f})" for line in answer),
    ]


def _inputs(pipeline: Pipeline) -> dict[str, str]:
    return {
        "dataset": read_manifest(pipeline.prepare.output).fingerprint,
        "labels": read_manifest(_better_labels(pipeline)).fingerprint,
    }
