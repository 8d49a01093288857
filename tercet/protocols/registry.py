"""Protocols by name: those that come with Tercet, and any that an installed package offers.

A package adds a protocol by an entry point in the group `tercet.protocols`, for instance in its
pyproject.toml

    [project.entry-points."tercet.protocols"]
    mine = "my_package.protocol:Mine"

Nothing is imported before it is asked for. The built-in names work from a bare checkout and cannot be taken
over.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol

GROUP = "tercet.protocols"
BUILT_IN = {
    "replicated": "tercet.protocols.replicated:Replicated",
    "plain": "tercet.protocols.plain:Plain",
    "shamir": "tercet.protocols.shamir:Shamir",
}


def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN}


def names() -> list[str]:
    """All names that `get` knows, the built-in ones first."""
    return [*BUILT_IN, *sorted(_offered())]


def get(name: str) -> type[Protocol]:
    """The class of a protocol. ProtocolError if nobody offers the name, or the plug-in does not load."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        entry = _offered().get(name)
        if entry is None:
            raise ProtocolError(_unknown(name))
        try:
            found = entry.load()
        except Exception as cause:
            raise ProtocolError(
                f"protocol {name!r} is offered as {entry.value}, which does not load: {cause}"
            ) from cause
    if not (isinstance(found, type) and issubclass(found, Protocol)):
        raise ProtocolError(f"protocol {name!r} is offered as {found!r}, which is no subclass of Protocol")
    return found


def _unknown(name: str) -> str:
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"there is no protocol {name!r}{hint} Known protocols: {', '.join(known)}"


__all__ = ["BUILT_IN", "GROUP", "get", "names"]
