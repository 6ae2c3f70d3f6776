"""Parts that configs call by a built-in name, or by the dotted path of something of the user's own."""

from collections.abc import Collection, Mapping
from pkgutil import resolve_name
from typing import Any

from pydantic import AfterValidator

from cluster.errors import ConfigError


def one_of(names: Collection[str]) -> AfterValidator:
    """Validator of a config field that names an entry, or something of the user's own as ``module:name``."""

    def check(name: str) -> str:
        if name not in names and ":" not in name:
            raise ValueError(f"should be one of {', '.join(names)}, or a dotted path like my_package.module:Name")
        return name

    return AfterValidator(check)


def find(names: Mapping[str, str], name: str) -> Any:  # noqa: ANN401  # a class or function
    """What a name of a config stands for.

    Raises:
        ConfigError: the dotted path leads to nothing.
    """
    try:
        return resolve_name(names.get(name, name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{name}` cannot be imported ({error}): give it as my_package.module:Name") from error
