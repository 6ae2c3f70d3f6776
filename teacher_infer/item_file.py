"""Item embeddings in a file, read where they are asked for."""

import json
import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cluster.errors import DataError
from data_prep.schema import EMBEDDINGS_TENSOR

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class ItemRows(Protocol):
    """Item embeddings [N, E], in memory (a tensor) or in a file."""

    @property
    def shape(self) -> torch.Size:
        """N and E."""
        ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Some rows."""
        ...


class ItemFile:
    """Item embeddings [N, E] in a safetensors file, of which nothing is kept.

    The file is read, not mapped: of a mapping, the system decides how much is resident.

    Raises:
        DataError: the file is absent, is no safetensors file, or holds no matrix of item embeddings.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
            length = int.from_bytes(self._file.read(8), "little")
            entry = json.loads(self._file.read(min(length, path.stat().st_size)))[EMBEDDINGS_TENSOR]
            self._dtype = DTYPES[entry["dtype"]]
            items, width = entry["shape"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: no item embeddings can be read ({error}): run `teach` again") from None
        self._start = 8 + length + entry["data_offsets"][0]
        self.shape = torch.Size((items, width))

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """A copy of some rows.

        Raises:
            DataError: the file ends before them.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._read(start, torch.empty(stop - start, self.shape[1], dtype=self._dtype))
        found = torch.empty(len(rows), self.shape[1], dtype=self._dtype)
        for place, row in enumerate(rows.tolist()):
            self._read(row, found[place : place + 1])
        return found

    def _read(self, row: int, into: Tensor) -> Tensor:
        size = into.element_size() * self.shape[1]
        buffer = into.view(torch.uint8).numpy().data
        if os.preadv(self._file.fileno(), [buffer], self._start + row * size) < buffer.nbytes:
            raise DataError(f"{self._path}: the file ends before item {row + len(into) - 1}: run `teach` again")
        return into
