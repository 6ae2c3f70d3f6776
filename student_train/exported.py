"""The student directory: all that is needed to answer, in torch alone (no ray, deepspeed or vllm)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.errors import ModelError
from data_prep.schema import ITEMS_FILE, STUDENT_CONFIG_FILE, STUDENT_WEIGHTS_FILE
from student_train.config import StudentConfig
from student_train.student import Student


def export_student(directory: Path, student: Student, name: str, shape: StudentConfig, items_file: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``items.parquet`` into an existing directory."""
    config = {"student": name, "n_items": student.n_items, "shape": shape.model_dump()}
    (directory / STUDENT_CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    weights = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    save_file(weights, directory / STUDENT_WEIGHTS_FILE)
    (directory / ITEMS_FILE).write_bytes(items_file.read_bytes())


@dataclass
class ExportedStudent:
    """A student that answers."""

    student: Student
    item_ids: list[str]
    titles: list[str]
    train_counts: list[int]
    length: int

    @classmethod
    def load(cls, directory: Path) -> "ExportedStudent":
        """Read a student directory.

        Raises:
            ModelError: a file is missing or damaged, or the files do not fit each other.
        """
        for file in (STUDENT_CONFIG_FILE, STUDENT_WEIGHTS_FILE, ITEMS_FILE):
            if not (directory / file).is_file():
                raise ModelError(f"{directory} is not a student: {file} is missing; run `dllm2rec train` again")
        try:
            items = pq.read_table(directory / ITEMS_FILE)
            config = json.loads((directory / STUDENT_CONFIG_FILE).read_text())
            shape = StudentConfig.model_validate(config["shape"])
            student = Student(config["student"], shape, config["n_items"])
            student.load_state_dict(load_file(directory / STUDENT_WEIGHTS_FILE))
        except (KeyError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{directory}: the student's files are damaged ({reason}); train or pull it again"
            ) from error
        if items.num_rows != student.n_items:
            raise ModelError(f"{directory}: {items.num_rows} items, but weights for {student.n_items}; train it again")
        item_ids, titles, counts = (items[name].to_pylist() for name in ("item_id", "title", "train_count"))
        return cls(student.eval(), item_ids, titles, counts, shape.history)

    @torch.inference_mode()
    def scores(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, N] after histories of item indices, newest last; of longer ones the newest items count."""
        padded = torch.full((len(histories), self.length), self.student.n_items)
        for row, history in enumerate(histories):
            newest = list(history)[-self.length :]
            if newest:
                padded[row, -len(newest) :] = torch.tensor(newest)
        return self.student(padded)

    @torch.inference_mode()
    def top_k(self, histories: Sequence[Sequence[int]], k: int, exclude_history: bool = True) -> tuple[Tensor, Tensor]:
        """The best items [B, k] and their scores [B, k], best first.

        Raises:
            ModelError: the catalogue has fewer than ``k`` items to offer.
        """
        longest = max((len(set(history)) for history in histories), default=0) if exclude_history else 0
        if k > self.student.n_items - longest:
            raise ModelError(
                f"k = {k}, but only {self.student.n_items - longest} items are left to recommend: lower --k"
            )
        scores = self.scores(histories)
        if exclude_history:
            for row, history in enumerate(histories):
                scores[row, list(history)] = -torch.inf
        best = scores.topk(k, dim=1)
        return best.indices, best.values
