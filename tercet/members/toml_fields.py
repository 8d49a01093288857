"""Reading files that people write: values are taken by name and kind, and nothing else may be there."""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tercet.errors import ConfigError

T = TypeVar("T")


def load(path: Path) -> dict[str, Any]:
    """What a file has. Raises ConfigError."""
    try:
        return parsed(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}); `tercet init` makes it"
        ) from error


MOST_DOTS = 64
"""In a line: the memory that `tomllib` takes for a key grows with the square of its parts."""


def parsed(packed: bytes, where: str) -> dict[str, Any]:
    """What the bytes of a file have. Raises ConfigError."""
    if any(line.count(b".") > MOST_DOTS for line in packed.splitlines()):
        raise ConfigError(f"{where} has more than {MOST_DOTS} dots in a line; such keys take all memory")
    try:
        return tomllib.loads(packed.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # that of a number with thousands of digits is no TOML error
        raise ConfigError(f"{where} is no TOML file: {error}") from error


def in_utc(moment: dt.datetime, what: str) -> dt.datetime:
    """The same moment in UTC. Raises ConfigError for one that is in no year there."""
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError as error:
        raise ConfigError(f"{what} = {moment} is beyond the calendar; take a time of this century") from error


_REQUIRED: Any = object()


class Fields:
    """The values of a table in a file: each taken once, by name, kind and default; no others may be there."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = table
        self._where = where
        self._known: list[str] = []

    def take(self, name: str, kind: type[T], default: T = _REQUIRED) -> T:
        """A value; whole numbers pass for floats.

        Raises ConfigError if it is missing without default, or of another kind.
        """
        self._known.append(name)
        if name not in self._table:
            if default is _REQUIRED:
                raise ConfigError(f"{self._where} does not say {name!r}; add it")
            return default
        value: Any = self._table[name]
        if kind is float and type(value) is int:
            with contextlib.suppress(OverflowError):
                value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise ConfigError(f"{self._where}: {name} = {value!r:.80} is not of kind {kind.__name__}")
        return value

    def strings(self, name: str, default: list[str] = _REQUIRED) -> list[str]:
        """A list of strings."""
        values = self.take(name, list, default)
        if not all(isinstance(value, str) for value in values):
            raise ConfigError(f"{self._where}: {name} = {values!r:.80} is not a list of strings")
        return values

    def tables(self, name: str) -> list[Fields]:
        """The tables `[[name]]`; each must be used up by who takes it."""
        values = self.take(name, list, [])
        if not all(isinstance(value, dict) for value in values):
            raise ConfigError(f"{self._where}: write {name} as tables, [[{name}]]")
        return [Fields(value, f"{self._where}, {name} {number}") for number, value in enumerate(values, 1)]

    def done(self) -> None:
        """Raise ConfigError if something is there that nobody took."""
        for name in self._table:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self._known)}"
                raise ConfigError(f"{self._where} has {name!r}, which means nothing; {hint}")
