"""What workers have to say while they work, heard by the process that started them, whatever machine it is on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from ray.exceptions import RayError
from ray.util.queue import Queue

Figures = dict[str, Any]


class Live:
    """A worker's end; a listener that is gone stops nothing."""

    def __init__(self, put: Callable[[Figures], None]) -> None:
        """``put`` hands figures over to the listener."""
        self._put = put

    def say(self, figures: Figures) -> None:
        """Pass figures on."""
        with suppress(RayError):
            self._put(figures)


@contextmanager
def listening(heard: Callable[[Figures], None]) -> Iterator[Live]:
    """Call ``heard`` in a thread with all that workers say while the block runs; needs a Ray session."""
    queue = Queue(actor_options={"num_cpus": 0})
    thread = Thread(target=_listen, args=(queue, heard), daemon=True)
    thread.start()
    try:
        yield Live(queue.put)
    finally:
        with suppress(RayError):
            queue.put(None)
        thread.join()
        queue.shutdown()


def _listen(queue: Queue, heard: Callable[[Figures], None]) -> None:
    with suppress(RayError):
        while (figures := queue.get()) is not None:
            heard(figures)
