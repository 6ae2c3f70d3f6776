"""The whole pipeline at its smallest, on real engines: raw logs to titles from the registry."""

from pathlib import Path

import pytest
import yaml

from cluster.config import TrackingConfig
from cluster.errors import ConfigError
from cluster.storage import read_manifest
from demo.config import DemoConfig
from demo.demo import demo
from demo.pipeline import plan

PIPELINE = {
    "prepare": {"source": "synthetic", "rows": "every", "synthetic": {"items": 60, "users": 60}},
    "train-teacher": {
        "model": {"num_layers": 1, "hidden_size": 64, "num_heads": 2, "vocab_size": 512},
        "epochs": 1,
        "max_rows": 100,
    },
    "label": {"ranking": "ground", "max_new_tokens": 8},
    "train": {"model": {"hidden_size": 16, "num_layers": 1}, "epochs": 2},
    "tune": {"trials": 2, "search": {"space": {"distillation.lam": "0.1..2"}}, "asha": {"max_epochs": 2, "grace": 1}},
}


def config(tmp_path: Path, **changes: object) -> DemoConfig:
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(PIPELINE))
    settings = {"pipeline": pipeline, "output": tmp_path / "out", "tracking": tracking, "students": ("sasrec",)}
    return DemoConfig(**(settings | changes))


@pytest.mark.engine
def test_the_whole_pipeline(ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = demo(config(tmp_path))
    printed = capsys.readouterr().out
    for name in (
        "to beat: transitions",
        "teacher (ground)",
        "teacher (embed)",
        "sasrec plain",
        "sasrec distilled",
        "sasrec searched",
    ):
        assert f"\n{name} " in printed
    assert f"Report: {output / 'report' / 'report.html'}" in printed
    assert printed.count("  (") >= 5
    page = (output / "report" / "report.html").read_text()
    for picture in ("quality.png", "speed.png", "learning.png"):
        assert picture in page
        assert (output / "report" / picture).read_bytes().startswith(b"\x89PNG")
    made = {
        verb: read_manifest(output / folder, verb)
        for folder, verb in {
            "dataset": "prepare",
            "teacher": "train-teacher",
            "labels": "label",
            "search": "tune",
            "promotion": "promote",
            "recommendations": "recommend",
            "report": "demo",
        }.items()
    }
    assert made["label"].inputs["dataset"] == made["prepare"].fingerprint
    distilled = read_manifest(output / "students" / "sasrec-distilled-0", "train")
    both = [made["label"], read_manifest(output / "labels-text", "label")]
    better = max(both, key=lambda manifest: manifest.metrics["validation_ndcg@20"])
    assert distilled.inputs["labels"] == better.fingerprint
    plain = read_manifest(output / "students" / "sasrec-plain-0", "train")
    assert "labels" not in plain.inputs
    assert plain.counts["parameters"] == distilled.counts["parameters"]
    assert made["recommend"].counts["recommendations"] == 5


def test_a_pipeline_without_a_teacher_section_trains_none(tmp_path: Path) -> None:
    settings = config(tmp_path)
    pipeline = {verb: section for verb, section in PIPELINE.items() if verb != "train-teacher"}
    settings.pipeline.write_text(yaml.safe_dump(pipeline | {"label": {"ranking": "embed", "teacher": "minilm"}}))
    planned = plan(settings)
    assert planned.train_teacher is None
    assert [one.teacher for one in planned.labels.values()] == ["minilm"]


def test_every_step_reads_what_the_one_before_it_wrote(tmp_path: Path) -> None:
    planned = plan(config(tmp_path, seeds=(0, 1)))
    assert planned.train_teacher is not None
    assert planned.tune is not None
    assert {planned.train_teacher.dataset, *(one.dataset for one in planned.labels.values())} == {
        planned.prepare.output
    }
    assert planned.labels["teacher (ground)"].teacher == str(planned.train_teacher.output)
    text = planned.labels["teacher (embed)"].output
    planned = planned.distilled_from(text)
    assert planned.tune.train.labels == text
    outputs = [one.output for several in planned.students.values() for one in several]
    assert len(set(outputs)) == len(outputs) == 4
    assert all(one.labels is None for one in planned.students["sasrec plain"])
    assert {one.labels for one in planned.students["sasrec distilled"]} == {text}


def test_a_bad_value_names_the_file_the_verb_and_the_field(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings.pipeline.write_text(yaml.safe_dump(PIPELINE | {"train": {"epochs": 0}}))
    with pytest.raises(ConfigError, match=r"pipeline.yaml: `train.epochs` = 0"):
        plan(settings)
