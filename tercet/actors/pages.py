"""Pages of lists: a node shows so many items at a time, and so many bytes, whoever asks and for whatever.

A request carries the mark of the last item that the client has, None at first; the answer has the next items,
the mark of the last of them, and whether there are more. Marks are in the order of the list, so items that
come or go meanwhile neither hide others nor show them twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from tercet.errors import ProtocolError

PAGE_ITEMS, PAGE_BYTES = 256, 1 << 22
"""What a page has at most, but at least one item."""
MOST_ITEMS = 1 << 20
"""Items of a list that a client believes in."""


def page(field: str, items: Iterable[tuple[Any, Any]], mark: Any) -> dict[str, Any]:
    """The answer with the next items; `items` are marks and items after `mark`, in order, or some more."""
    shown: list[Any] = []
    room, more = PAGE_BYTES, False
    for one, item in items:
        room -= len(msgpack.packb(item))
        if len(shown) == PAGE_ITEMS or (shown and room < 0):
            more = True
            break
        shown.append(item)
        mark = one
    return {field: shown, "last": mark, "more": more}


def after(mark: Any, kind: type) -> Any:
    """The mark of a request. Raises ProtocolError for one of another kind."""
    if mark is not None and type(mark) is not kind:
        raise ProtocolError(f"{mark!r:.80} is not where a page of this list begins")
    return mark


class Paged:
    """What a client has of a list of one node."""

    def __init__(self, field: str) -> None:
        self._field = field
        self.items: list[Any] = []
        self.mark: Any = None
        self.more = True

    def take(self, told: dict[str, Any], node: str) -> None:
        """Take a page. Raises ProtocolError for one that would never end."""
        shown, self.mark, self.more = told.get(self._field), told.get("last"), bool(told.get("more"))
        if not isinstance(shown, list) or (self.more and not shown) or len(self.items) > MOST_ITEMS:
            raise ProtocolError(f"{node} shows pages of {self._field} that make no sense; see its release")
        self.items += shown
