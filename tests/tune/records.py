"""Makes records for the tests of this room."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tune.config import Value
from tune.journal import Record


def record(number: int, *ndcg: float, point: dict[str, Value] | None = None, **fields: object) -> Record:
    """A trial of seed 0 with these evaluations, one per epoch; failed if there are none."""
    settings = {"state": "complete" if ndcg else "failed", "seconds": 1.0, "ended": float(number)} | fields
    histories = {0: history(*ndcg)} if ndcg else {}
    return Record(number=number, point={"lam": 0.5} if point is None else point, **{"histories": histories} | settings)


def history(*ndcg: float) -> list[dict[str, float]]:
    """Evaluations of epochs 1, 2 …"""
    return [{"epoch": epoch, "loss": 1.0, "ndcg@20": value, "hr@20": 2 * value} for epoch, value in enumerate(ndcg, 1)]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
