"""What kind of text a raw file holds, found by reading it once."""

import codecs
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cluster.console import say
from data_prep.readers.rawfiles import LATIN1, UTF8, readable

_BLOCK = 1 << 22
# A quote in the middle of a field, written as Spark does: a backslash before it. At the end of a field the backslash is
# the field's own.
_ESCAPED_QUOTE = re.compile(rb'\\"(?=[^,;|\t\r\n])')


class TextKind(NamedTuple):
    """How to read a text file."""

    encoding: str
    escaped: bool
    """Whether quotes inside fields have a backslash before them."""


def sniff(path: Path) -> TextKind:
    """UTF-8 where the complete file is, else ISO-8859-1, which is said once.

    Raises:
        DataError: the file is absent, or a damaged or truncated gzip.
    """
    with suppress(OSError):  # which reading tells
        now = path.stat()
        return _sniff(path, now.st_mtime_ns, now.st_size)
    return _sniff(path, 0, 0)


@cache
def _sniff(path: Path, _changed: int, _size: int) -> TextKind:
    """Once for every state of a file: a process may live longer than it."""
    decode = codecs.getincrementaldecoder(UTF8)().decode
    is_utf8, escaped, before = True, False, b""
    with readable(path) as stream:
        more = True
        while more:
            block = stream.read(_BLOCK)
            more = bool(block)
            escaped = escaped or bool(_ESCAPED_QUOTE.search(before + block))
            before = block[-2:]
            try:
                decode(block, final=not more)
            except UnicodeDecodeError:
                is_utf8 = False
    if not is_utf8:
        say(f"prepare: {path} is not UTF-8: read as ISO-8859-1 (Latin-1)")
    return TextKind(UTF8 if is_utf8 else LATIN1, escaped)
