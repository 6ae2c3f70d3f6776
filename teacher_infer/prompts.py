"""The instruction prompt that a generative teacher is trained on and asked with (BIGRec, arXiv 2308.08434)."""

import hashlib
from collections.abc import Callable, Sequence

INTRODUCTION = "The user chose these titles, oldest first:"
QUESTION = "\nName the title that comes next.\nAnswer:"
QUOTE = '"'
SEPARATOR = ","

Template = Callable[[Sequence[str]], str]


def quoted(title: str) -> str:
    """A title as it stands in prompts and responses; quotes inside it become apostrophes."""
    return f" {QUOTE}{title.replace(QUOTE, chr(39))}{QUOTE}"


def prompt(titles: Sequence[str]) -> str:
    """The task and the history, oldest first, up to the marker after which the model answers."""
    return INTRODUCTION + SEPARATOR.join(map(quoted, titles)) + QUESTION


def response(title: str) -> str:
    """The text that a teacher is trained to answer; the tokenizer's end of text follows it."""
    return quoted(title)


def embedded(title: str) -> str:
    """The text whose embedding stands for a title."""
    return title


def history_text(titles: Sequence[str]) -> str:
    """The text whose embedding stands for a history, newest title first: embedding models weigh what comes first."""
    return SEPARATOR.join(f" {title}" for title in reversed(titles)).strip()


def title_of(text: str) -> str:
    """The title inside a generated response; the whole first line where the quotes are missing."""
    line = text.strip().split("\n", 1)[0].removeprefix(QUOTE)
    return line.split(QUOTE, 1)[0].strip()


def fitted(
    template: Template, titles: Sequence[str], count_tokens: Callable[[str], int], limit: int
) -> tuple[str, int]:
    """The text of the newest titles that fit into ``limit`` tokens.

    Oldest titles go first; a single title that is still too long is cut at its end.

    Returns:
        the text, and how many titles were dropped.
    """
    dropped = 0
    while count_tokens(text := template(titles)) > limit:
        if len(titles) > 1:
            titles, dropped = titles[1:], dropped + 1
        elif len(titles[0]) > 1:
            titles = [titles[0][: len(titles[0]) // 2]]
        else:
            break
    return text, dropped


def fingerprint() -> str:
    """SHA-256 of the template: labels and teachers of different templates do not mix."""
    return hashlib.sha256((prompt(["A", "B"]) + response("C")).encode()).hexdigest()
