"""Names to classes: what Tercet comes with, and what installed packages offer as entry points.

Protocols and transports are found alike. Nothing is imported before it is asked for, and the built-in names
work from a bare checkout and cannot be taken over.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

import attrs

from tercet.errors import TercetError

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Registry(Generic[T]):
    """The classes of one group of entry points.

    `word` is what one is called in sentences, `base` what it has to be a subclass of, `built_in` has the
    `module:Class` of names. Whatever goes wrong is an `error`.
    """

    group: str
    word: str
    base: Any
    built_in: Mapping[str, str]
    error: type[TercetError]

    def names(self) -> list[str]:
        """All names that `get` knows, the built-in ones first."""
        return [*self.built_in, *sorted(self._offered())]

    def get(self, name: str) -> type[T]:
        """The class of a name. Raises `error` if nobody offers it, or the plug-in does not load."""
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            found = self._load(name)
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise self.error(
                f"{self.word} {name!r} is offered as {found!r}, which is no subclass of {self.base.__name__}"
            )
        return found

    def _offered(self) -> dict[str, EntryPoint]:
        return {
            entry.name: entry for entry in entry_points(group=self.group) if entry.name not in self.built_in
        }

    def _load(self, name: str) -> Any:
        entry = self._offered().get(name)
        if entry is None:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise self.error(f"there is no {self.word} {name!r}{hint} Known {self.word}s: {', '.join(known)}")
        try:
            return entry.load()
        except Exception as cause:
            raise self.error(
                f"{self.word} {name!r} is offered as {entry.value}, which does not load: {cause}"
            ) from cause


__all__ = ["Registry"]
