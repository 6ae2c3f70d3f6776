"""How much of its workers' time a search spends training: 100 trials of about one second on two cores.

Run: ``python -m benchmarks.search [--trials 100] [--seconds 1] [--together 10]``. ``efficiency_1s`` is the training
time of all trials over the wall time of the search times its workers, with their start, without that of Ray.
``batched_trials_ratio`` is the wall time of that search over that of the same one with trials that train together.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from cluster.config import ClusterConfig, TrackingConfig
from cluster.ray_session import ray_session
from cluster.tracking import Tracker
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from student_train.config import ModelConfig, TrainConfig
from student_train.loop import fit
from student_train.train import load_data
from tune.config import Domain, SearchConfig, TuneConfig
from tune.journal import Journal
from tune.run import run_trials
from tune.search import base_config
from tune.tracked import search_run, trial_run

WORKERS = 2
SPACE = {"learning_rate": Domain(low=1e-3, high=1e-2, log=True), "model.dropout": Domain(low=0.0, high=0.5)}


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0, help="Of training per trial, about.")
    parser.add_argument(
        "--together", type=int, default=10, help="Trials of one process; 1 measures efficiency_1s only."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dllm2rec-benchmark-") as folder, ray_session(ClusterConfig(cpus=WORKERS)):
        config = settings(Path(folder), arguments.trials, arguments.seconds)
        # So that no search that is measured reads every library for the first time.
        efficiency(config.model_copy(update={"trials": WORKERS, "output": Path(folder) / "warm-up"}))
        figures = efficiency(config)
        if arguments.together > 1:
            output = Path(folder) / "together"
            batched = efficiency(config.model_copy(update={"together": arguments.together, "output": output}))
            figures["batched_trials_ratio"] = figures["seconds"] / batched["seconds"]
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
        tracking=TrackingConfig(uri=f"sqlite:///{folder / 'runs.db'}"),
    )


def efficiency(config: TuneConfig) -> dict[str, float]:
    """Run a search and measure it."""
    base = base_config(config)
    journal, run = Journal(config.output, {}), search_run(config, {}, {})
    with Tracker(config.tracking) as tracker:
        started = time.time()
        run_trials(config, base, SPACE, journal, lambda record: tracker.send_soon(trial_run(record, run, "ndcg@20")))
        wall = time.time() - started
    trained = sum(record.seconds for record in journal.records.values())
    first = min(journal.records.values(), key=lambda record: record.ended)
    return {
        "efficiency_1s": trained / (WORKERS * wall),
        "trials": len(journal.records),
        "epochs_per_trial": config.train.epochs,
        "seconds_per_trial": trained / len(journal.records),
        "seconds": wall,
        "seconds_before_first_trial": first.ended - first.seconds - started,
    }


def epochs_in(train: TrainConfig, seconds: float) -> int:
    """Epochs that train for about ``seconds`` on one core."""
    torch.set_num_threads(1)
    materials = load_data(train)
    fit(train.model_copy(update={"epochs": 1}), materials, lambda progress, save: True)
    _, progress = fit(train.model_copy(update={"epochs": 5}), materials, lambda progress, save: True)
    return max(1, round(seconds / (progress.seconds / 5)))


if __name__ == "__main__":
    main()
