"""Makes records for the tests of this room."""

from tune.config import Value
from tune.journal import Record


def record(number: int, *ndcg: float, point: dict[str, Value] | None = None, **fields: object) -> Record:
    """A trial with these evaluations, one per epoch; failed if there are none."""
    history = [{"epoch": e, "loss": 1.0, "ndcg@20": v, "hr@20": 2 * v} for e, v in enumerate(ndcg, 1)]
    settings = {"seed": 0, "state": "complete" if ndcg else "failed", "seconds": 1.0, "ended": float(number)} | fields
    return Record(number=number, point={"lam": 0.5} if point is None else point, history=history, **settings)
