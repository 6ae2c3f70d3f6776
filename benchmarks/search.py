"""How much of its slots a search keeps busy.

Run: ``python -m benchmarks.search [--quick]``. ``efficiency_1s`` is of 100 trials of about one second of training on
two cores: the training time of all trials over the wall time of the search times its workers, with their start, without
that of Ray. ``busy`` is of 1,000 trials that only wait, of unequal simulated lengths, proposed by TPE and stopped by
ASHA: the time that they wait over the time of all slots, from when all are at work to the start of the last trial.
"""

import argparse
import json
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from ray import tune

from cluster.config import ClusterConfig
from cluster.ray_session import ray_session
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from student_train.config import ModelConfig, TrainConfig
from student_train.loop import fit
from student_train.worker import load_data
from tune.config import Domain, SearchConfig, TuneConfig
from tune.journal import Progress, Record
from tune.points import total
from tune.run import run_trials
from tune.search import base_config, open_journal, parts, plan_of
from tune.trial import Plan, Trial

WORKERS = 2
SPACE = {"learning_rate": Domain(low=1e-3, high=1e-2, log=True), "model.dropout": Domain(low=0.0, high=0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0, help="Of training per trial, about.")
    parser.add_argument("--waiting-trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8, help="Of the trials that only wait.")
    parser.add_argument("--quick", action="store_true", help="A tenth of both.")
    arguments = parser.parse_args()
    shrink = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory(prefix="dllm2rec-benchmark-") as folder:
        config = settings(Path(folder), arguments.trials // shrink, arguments.seconds)
        with ray_session(ClusterConfig(cpus=WORKERS)):
            # So that no search that is measured reads every library for the first time.
            efficiency(config.model_copy(update={"trials": WORKERS, "output": Path(folder) / "warm-up"}))
            figures = efficiency(config)
        with ray_session(ClusterConfig(cpus=arguments.slots)):
            figures |= busy(config, arguments.waiting_trials // shrink, arguments.slots, Path(folder) / "waiting")
        print(json.dumps(figures))


def settings(folder: Path, trials: int, seconds: float) -> TuneConfig:
    """A search of ``trials`` trainings that take about ``seconds`` each."""
    dataset = prepare(PrepareConfig(synthetic=SyntheticConfig(items=300, users=300), output=folder / "dataset"))
    train = TrainConfig(dataset=dataset, model=ModelConfig(hidden_size=32, num_heads=1), patience=1000)
    return TuneConfig(
        trials=trials,
        search=SearchConfig(space=SPACE, scheduler="none"),
        train=train.model_copy(update={"epochs": epochs_in(train, seconds)}),
        output=folder / "search",
    )


def run(config: TuneConfig, trainable: type[tune.Trainable] = Trial) -> tuple[list[Record], float]:
    """The trials of a search, and when it began."""
    base, began = base_config(config), time.time()
    with closing(open_journal(config, base, SPACE, {})) as journal:
        records = run_trials(
            lambda: plan_of(config, base, SPACE, {}),
            journal,
            lambda: parts(config, base, SPACE, journal),
            total=total(config, base, SPACE),
            config=config,
            ended=lambda record: None,
            trainable=trainable,
        )
    return records, began


def efficiency(config: TuneConfig) -> dict[str, float]:
    """Run a search and measure it."""
    records, began = run(config)
    wall, trained = time.time() - began, sum(record.seconds for record in records)
    return {
        "efficiency_1s": trained / (WORKERS * wall),
        "trials": len(records),
        "epochs_per_trial": config.train.epochs,
        "seconds_per_trial": trained / len(records),
        "seconds": wall,
        "seconds_before_first_trial": min(record.ended - record.seconds for record in records) - began,
    }


class Waiting(tune.Trainable):
    """A trial that waits in nine steps for a time that its point decides; reports as one that trains."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:
        """Nothing is kept but the epoch."""
        self.epoch = 0
        self.waited = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self.setup(new_config, None)  # type: ignore[arg-type]
        return True

    def step(self) -> dict[str, Any]:
        """Wait a ninth of the time."""
        length = random.Random(str(self.config["point"])).lognormvariate(0, 0.8)
        started = time.time()
        time.sleep(length / 9)
        self.epoch += 1
        self.waited += time.time() - started
        score = self.config["point"]["model.dropout"] * self.epoch
        histories = {0: [{"epoch": self.epoch, "ndcg@20": score}]}
        progress = Progress(histories=histories, seconds=self.waited).model_dump_json()
        done = self.epoch == 9
        return {"epoch": self.epoch, "ndcg@20": score, "progress": progress, "complete": done, "done": done}


def busy(config: TuneConfig, trials: int, slots: int, output: Path) -> dict[str, float]:
    """Run a search of trials that wait, and measure it while there is work for all slots."""
    search = SearchConfig(space=SPACE, algorithm="optuna", scheduler="asha")
    asha = config.asha.model_copy(update={"max_epochs": 9, "grace": 1})
    waiting = config.model_copy(update={"trials": trials, "output": output, "search": search, "asha": asha})
    records, began = run(waiting, Waiting)
    starts = sorted(record.ended - record.seconds for record in records)
    first, last = starts[slots - 1], starts[-1]
    within = sum(max(0.0, min(one.ended, last) - max(one.ended - one.seconds, first)) for one in records)
    return {
        "busy": within / (slots * (last - first)),
        "waiting_trials": len(records),
        "slots": slots,
        "waiting_seconds": time.time() - began,
    }


def epochs_in(train: TrainConfig, seconds: float) -> int:
    """Epochs that train for about ``seconds`` on one core."""
    torch.set_num_threads(1)
    data = load_data(train)
    fit(train.model_copy(update={"epochs": 1}), data, lambda state, save: True)
    _, state = fit(train.model_copy(update={"epochs": 5}), data, lambda state, save: True)
    return max(1, round(seconds / (state.seconds / 5)))


if __name__ == "__main__":
    main()
