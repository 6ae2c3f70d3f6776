"""What workers have to say while they work, heard by the process that started them, whatever machine it is on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from ray.exceptions import RayError
from ray.util.queue import Queue


class Live:
    """A worker's end; a listener that is gone stops nothing."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def say(self, figures: dict[str, Any] | None) -> None:
        """Pass figures on."""
        with suppress(RayError):
            self._queue.put(figures)


@contextmanager
def listening(heard: Callable[[dict[str, Any]], None]) -> Iterator[Live]:
    """Call ``heard`` in a thread with all that workers say while the block runs; needs a Ray session."""
    queue = Queue(actor_options={"num_cpus": 0})
    live = Live(queue)
    thread = Thread(target=_listen, args=(queue, heard), daemon=True)
    thread.start()
    try:
        yield live
    finally:
        live.say(None)
        thread.join()
        queue.shutdown()


def _listen(queue: Queue, heard: Callable[[dict[str, Any]], None]) -> None:
    with suppress(RayError):
        while (figures := queue.get()) is not None:
            heard(figures)
