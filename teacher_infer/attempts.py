"""Rows asked together or, if that fails, one by one, so that a row that cannot be answered stops no other."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cluster.errors import UserError
from teacher_infer.faults import is_of_machine
from teacher_infer.job import Engines
from teacher_infer.rankers.base import Rows, RowsRefused

GIVEN_UP = 8  # rows that fail one after the other, with new engines each, from which on the fault is not the rows'

T = TypeVar("T")


class _Failed(NamedTuple):
    error: str


def attempt(rows: Rows, ask: Callable[[Rows], T], engines: Engines) -> tuple[list[tuple[Rows, T]], dict[int, str]]:
    """What ``ask`` makes of the rows, in one part or many, and the errors of those that fail, by row id.

    What an engine that raised still holds (requests half done, cached blocks that were never computed) could give other
    rows wrong labels, so it is ended.

    Raises:
        UserError: raised by ``ask``.
        Exception: the machine's fault, see :func:`teacher_infer.faults.is_of_machine`.
    """

    def once(rows: Rows) -> T | _Failed:
        try:
            return ask(rows)
        except (UserError, RowsRefused):
            raise
        except Exception as error:
            if is_of_machine(error):
                raise
            engines.close()
            return _Failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def twice(row: Rows) -> T | _Failed:
        first = once(row)
        return once(row) if isinstance(first, _Failed) else first

    errors, together = dict[int, str](), None
    while together is None:
        rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in errors])
        if not rows.row_id:
            return [], errors
        try:
            together = once(rows)
        except RowsRefused as refused:
            errors |= refused.errors
    if not isinstance(together, _Failed):
        return [(rows, together)], errors
    found, in_a_row = list[tuple[Rows, T]](), 0
    for at, row_id in enumerate(rows.row_id):
        if in_a_row == GIVEN_UP:
            errors[row_id] = f"not asked, {GIVEN_UP} rows before failed: {together.error}"
            continue
        row = rows.take([at])
        result = twice(row)
        if isinstance(result, _Failed):
            errors[row_id] = result.error
            in_a_row += 1
        else:
            found.append((row, result))
            in_a_row = 0
    return found, errors
