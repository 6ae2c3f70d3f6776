"""The student directory: written for ONNX Runtime (:mod:`serving`) and for torch, read back by torch."""

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.errors import ModelError
from cluster.files import local_copy, parquet_rows
from data_prep.schema import ITEMS_FILE, STUDENT_CONFIG_FILE, STUDENT_WEIGHTS_FILE
from student_serve.recommender import MODEL_FILE
from student_train.config import ModelConfig
from student_train.models.student import Student

_OPSET = 17


def export_student(directory: Path, student: Student, model: ModelConfig, items_file: Path) -> None:
    """Write the student's files (:mod:`data_prep.schema`) into an existing directory."""
    config = {"n_items": student.n_items, "model": model.model_dump()}
    (directory / STUDENT_CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    weights = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    save_file(weights, directory / STUDENT_WEIGHTS_FILE)
    (directory / ITEMS_FILE).write_bytes(items_file.read_bytes())
    _write_onnx(directory / MODEL_FILE, deepcopy(student).cpu().eval(), model.max_length)


def _write_onnx(file: Path, student: Student, length: int) -> None:
    example_BL = torch.full((2, length), student.n_items)
    example_BL[:, -1] = 0
    with warnings.catch_warnings():
        # The exporter by tracing is called old, but takes 0.2 s where the one by torch.export takes 3 to 5 s.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            student,
            (example_BL,),
            str(file),
            input_names=["history"],
            output_names=["scores"],
            dynamic_axes={"history": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
            # Folded, the item table would be stored twice; ONNX Runtime folds when it loads.
            do_constant_folding=False,
        )


@dataclass
class ExportedStudent:
    """A student that scores in torch."""

    student: Student
    length: int

    @classmethod
    def load(cls, directory: Path) -> "ExportedStudent":
        """Read a student directory.

        Raises:
            ModelError: a file is missing or damaged, or the files do not fit each other.
        """
        directory = local_copy(directory)
        for file in (STUDENT_CONFIG_FILE, STUDENT_WEIGHTS_FILE, ITEMS_FILE):
            if not (directory / file).is_file():
                raise ModelError(f"{directory} is not a student: {file} is missing; run `dllm2rec train` again")
        try:
            items = parquet_rows(directory / ITEMS_FILE)
            config = json.loads((directory / STUDENT_CONFIG_FILE).read_text())
            model = ModelConfig.model_validate(config["model"])
            student = Student(model, config["n_items"])
            student.load_state_dict(load_file(directory / STUDENT_WEIGHTS_FILE))
        except (KeyError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{directory}: the student's files are damaged ({reason}); train or pull it again"
            ) from error
        if items != student.n_items:
            raise ModelError(f"{directory}: {items} items, but weights for {student.n_items}; train it again")
        return cls(student.eval(), model.max_length)

    @torch.inference_mode()
    def scores(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, N] after histories of item indices, newest last; of longer ones the newest items count."""
        padded = torch.full((len(histories), self.length), self.student.n_items)
        for row, history in enumerate(histories):
            newest = list(history)[-self.length :]
            if newest:
                padded[row, -len(newest) :] = torch.tensor(newest)
        return self.student(padded)
