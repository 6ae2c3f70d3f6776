"""A training that MLflow follows; imported only where one is asked for, since no worker needs MLflow."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cluster.console import say
from cluster.live import Figures, Live, listening
from cluster.ray_session import ray_session
from cluster.tracking import ServerAway, Tracker
from model_registry.register import register_student
from student_train.config import TrainConfig
from student_train.student_run import at_epoch, student_run, training_run


def tracked(config: TrainConfig, inputs: Mapping[str, str], training: Callable[[Live], Path], in_process: bool) -> Path:
    """Train while MLflow gets every evaluation as it comes, and register the student if that is asked for.

    A server that is away stops nothing. ``training`` runs in this process or in Ray's.

    Raises:
        ConfigError: there is no usable store, or the server refuses at the start.
    """
    run = training_run(config, inputs)
    with Tracker(config.tracking, config.output) as tracker, tracker.running(run):

        def heard(figures: Figures) -> None:
            tracker.send_soon(replace(run, curve=[at_epoch(figures)]))

        if in_process:
            output = training(Live(heard))
        else:
            with ray_session(config.cluster), listening(heard) as live:
                output = training(live)
        tracker.send_soon(student_run(output))
        if config.register_as:
            say(_registered(tracker, output, config.register_as))
    return output


def _registered(tracker: Tracker, student: Path, name: str) -> str:
    try:
        version = register_student(tracker, student, name)
    except ServerAway as error:
        return f"not registered ({error}): later, run `dllm2rec register --student {student} --name {name}`"
    return f"registered as {version.name} version {version.version}"
