"""Imports of engines, which are most of what a short job waits for."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lean_import(*unused: str) -> Iterator[None]:
    """Import an engine in the block, without packages that it would load though nothing here uses them.

    The garbage collector rests meanwhile: it would look at a million new objects again and again, none of them garbage.

    Args:
        unused: packages that the engine does without where they are not installed.
    """
    hidden = [name for name in unused if name not in sys.modules]
    collects = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # what Python takes for "not to be had"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if collects:
            gc.enable()
