"""One labelling job as its actors know it, and the engines that an actor opens."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.probe import Probe
from teacher_infer.config import LabelConfig
from teacher_infer.engine import Task, VllmEngine
from teacher_infer.store import PROGRESS_FOLDER, LabelStore

LONGEST_FILE = "longest.json"


@dataclass(frozen=True)
class Job:
    """What to label with what."""

    config: LabelConfig
    """With absolute paths and every default filled in."""
    model: Path
    probe: Probe | None = None
    """What every actor has to see before it begins."""
    attempt: str | None = None
    """Names the beginning of the label directory that this job works on."""

    @property
    def catalogue(self) -> Path:
        """Where the catalogue lies in tokens, see :mod:`teacher_infer.read_catalogue`."""
        return self.config.output / PROGRESS_FOLDER / "catalogue"

    @property
    def longest(self) -> int | None:
        """Tokens of the longest prompt with its answer, if they were counted."""
        file = self.catalogue / LONGEST_FILE
        return json.loads(file.read_text()) if file.is_file() else None

    @property
    def store(self) -> LabelStore:
        """Where the labels go."""
        return LabelStore(self.config.output, self.attempt)


class Engines:
    """The engines of one actor, each opened when it is first needed and then kept."""

    def __init__(self, job: Job, share: int = 1) -> None:
        """``share``: engines that may live in this actor at a time; they share its GPU.

        Raises:
            ClusterError: this node does not see what the driver sees.
        """
        if job.probe:
            job.probe.check()
        self._job, self._share = job, share
        self._open: dict[Task, VllmEngine] = {}

    def __call__(self, task: Task) -> VllmEngine:
        """The engine for a task.

        Raises:
            ModelError: vLLM cannot load the model.
        """
        if task not in self._open:
            if len(self._open) == self._share:
                self.close()
            resources, vllm = self._job.config.resources, self._job.config.vllm
            torch.set_num_threads(max(1, int(resources.cpus)))
            room = vllm.gpu_memory_utilization / self._share
            vllm = vllm.model_copy(update={"gpu_memory_utilization": room})
            self._open[task] = VllmEngine(self._job.model, task, vllm, gpu=resources.gpus > 0, length=self._job.longest)
        return self._open[task]

    def close(self) -> None:
        """End the engines; the next call for a task opens a new one."""
        for engine in self._open.values():
            engine.close()
        self._open.clear()
