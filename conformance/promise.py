"""How a check fails."""


class ConformanceError(AssertionError):
    """A part breaks a promise; says which one and what was seen."""


def promise(kept: bool, name: str, text: str) -> None:
    """Raise if a promise is not kept.

    Args:
        kept: whether it is.
        name: the part, as the user calls it.
        text: the promise, and what was seen instead.

    Raises:
        ConformanceError: it is not.
    """
    if not kept:
        raise ConformanceError(f"{name}: {text}")
