"""Whose fault an error is: a row's, which is recorded, or a machine's, which another machine makes good."""

from cluster.errors import UserError

BEYOND_USE = ("CUDA error", "CUDA driver error", "NCCL error", "out of memory", "cublas", "cudnn")


class MachineError(Exception):
    """An actor's process is beyond use, or its machine lacks something; the work is to be done by another one."""


def is_of_machine(error: BaseException) -> bool:
    """Whether an error says nothing about the rows that were worked on.

    Engines wrap errors of a GPU in several of their own, so their words are looked at too.
    """
    if isinstance(error, UserError):
        return False
    if isinstance(error, (MachineError, OSError, MemoryError)) or type(error).__name__ in {
        "EngineDeadError",
        "AcceleratorError",
        "OutOfMemoryError",
    }:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in BEYOND_USE)


def one_line(error: BaseException) -> str:
    """What an error says, short."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, (MachineError, UserError)) else f"{type(error).__name__}: {text}"
