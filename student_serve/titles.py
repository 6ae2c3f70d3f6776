"""How a raw title becomes the catalogue's: the same for `prepare` and for who asks a student by title."""

import html
import re
import unicodedata
from html.entities import html5

_ENTITY = re.compile(r"&(#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_TAG = re.compile(
    r"</?(?:a|b|big|br|div|em|font|i|img|li|p|small|span|strong|sub|sup|u|ul)(?:\s[^<>]*)?/?>", re.IGNORECASE
)


def clean_title(text: str) -> str:
    """Decode HTML entities, leave out tags, compose accents, and write every run of white space as one blank.

    Entities may be encoded any number of times. Each ends with a semicolon: in ``R&D &copycats`` stands none.
    """
    while (decoded := _ENTITY.sub(_character, text)) != text:
        text = decoded
    return " ".join(unicodedata.normalize("NFC", _TAG.sub(" ", text)).split())


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]) if entity[1].startswith("#") or f"{entity[1]};" in html5 else entity[0]
