"""What a person sees of a job: bars on a terminal, sparse lines in a log, and nothing of the engines.

Any process may report. What a worker reports travels to the driver's screen as a marked line of its output; every other
line of a worker is shown with ``--verbose`` only.
"""

import gc
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

VERBOSE = "DLLM2REC_VERBOSE"
SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.05
"""Of the time that has passed: a job of hours would fill its log otherwise."""
_MARK = "dllm2rec-report: "
_RAY_HANDLER = "ray_print_logs"
_QUIET_LOGGERS = (
    *("ray.train", "ray.data", "ray.tune", "ray.dashboard", "ray._private.runtime_env"),
    *("DeepSpeed", "mlflow", "alembic", "matplotlib"),
)
_in_worker = False


def say(text: str) -> None:
    """Show a line (or a few), from any process."""
    _emit({"text": text})


def report(name: str, done: float, total: float, unit: str, text: str = "", finished: bool = False) -> None:
    """Show how far something is, from any process.

    Args:
        name: what; unique among what is at work at the same time.
        done: how much of it is done.
        total: how much there is at most.
        unit: of both, in the plural.
        text: figures of the moment.
        finished: whether this is the last report, as where a training stops early.
    """
    _emit({"name": name, "done": done, "total": total, "unit": unit, "text": text, "finished": finished})


def verbose() -> bool:
    """Whether everything that engines and libraries print is shown."""
    return bool(os.environ.get(VERBOSE))


def quiet_driver() -> None:
    """Keep warnings and notices of libraries off the screen."""
    if verbose():
        return
    warnings.simplefilter("ignore")
    # What the processes of a local Ray print is for their developers.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet_libraries()


def quiet_worker() -> None:
    """Set up a Ray worker process; imports nothing heavy, for each actor runs it."""
    global _in_worker
    _in_worker = True
    # Imports make a million objects that stay; by default the collector goes through them again and again.
    gc.set_threshold(100_000, 50, 100)
    quiet_libraries()
    import ray

    # A library would search this machine for "the" Ray otherwise, and fail where two are at work.
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


@contextmanager
def without_startup_lines() -> Iterator[None]:
    """Keep off the screen what Ray's C++ parts print at a start; their errors are raised as well."""
    if verbose():
        yield
        return
    screen = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)


def quiet_libraries() -> None:
    """Let loggers of libraries through with errors alone; to be called again after a library has set up its own."""
    if not verbose():
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)


def show_workers() -> None:
    """Show what workers report; to be called in the driver, connected to Ray."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    dispatcher.remove_handler(_RAY_HANDLER)
    dispatcher.add_handler(_RAY_HANDLER, _from_worker)


def _from_worker(printed: dict[str, Any]) -> None:
    others = []
    for line in printed["lines"]:
        if line.startswith(_MARK):
            _screen.show(json.loads(line.removeprefix(_MARK)))
        else:
            others.append(line)
    if others and verbose():
        from ray._private.worker import print_to_stdstream

        print_to_stdstream(printed | {"lines": others}, ignore_prefix=False)


def _emit(message: Mapping[str, Any]) -> None:
    if _in_worker:
        print(_MARK + json.dumps(message), flush=True)
    else:
        _screen.show(message)


class _Screen:
    """The driver's standard output."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        """When each was reported first, and what was done then."""
        self._shown: dict[str, float] = {}

    def show(self, message: Mapping[str, Any]) -> None:
        if "name" not in message:
            tqdm.write(message["text"], file=sys.stdout)
            sys.stdout.flush()
        elif sys.stdout.isatty():
            self._bar(**message)
        else:
            self._line(**message)

    def _bar(self, name: str, done: float, total: float, unit: str, text: str, finished: bool) -> None:
        if name not in self._bars:
            self._bars[name] = tqdm(total=total, initial=done, desc=name, unit=f" {unit}", file=sys.stdout, leave=False)
        bar = self._bars[name]
        bar.set_postfix_str(text, refresh=False)
        bar.update(done - bar.n)
        if finished or done >= total:
            self._bars.pop(name).close()
            tqdm.write(_line(name, done, total, unit, text), file=sys.stdout)

    def _line(self, name: str, done: float, total: float, unit: str, text: str, finished: bool) -> None:
        now, last = time.monotonic(), finished or done >= total
        begun, before = self._begun.setdefault(name, (now, done))
        pause = max(SECONDS_BETWEEN_LINES, (now - begun) * SHARE_BETWEEN_LINES)
        if not last and now - self._shown.setdefault(name, now) < pause:
            return
        self._shown[name] = now
        left = (now - begun) / (done - before) * (total - done) if done > before and not last else 0.0
        print(_line(name, done, total, unit, text, f"{left:.0f} s left" if left else ""), flush=True)
        if last:
            del self._begun[name], self._shown[name]


def _line(name: str, done: float, total: float, unit: str, *figures: str) -> str:
    return ", ".join([f"{name}: {done:,.0f} of {total:,.0f} {unit}", *filter(None, figures)])


_screen = _Screen()
