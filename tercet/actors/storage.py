"""The storage that a party's node shares with its workers, as a run uses it; `tercet.storage` has one.

A worker reads the tiles of stored values that it needs, and writes those that it has made of values to be
stored. What it may open or make, its node tells it for each value, with a key for that alone.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tercet.actors.values import FiledTiles, Stored
from tercet.plans.types import Type
from tercet.protocols.base import Share


@attrs.frozen
class Written:
    """What a worker has written of a value: these tiles, in this order, of so many bytes.

    `held` is how many words the party has for each of the value's, in a domain.
    """

    tiles: tuple[int, ...]
    size: int
    domain: str
    held: int


class PartWriter(abc.ABC):
    """Writes the part of a value that one worker makes; in any thread."""

    @abc.abstractmethod
    def write(self, tile: int, share: Share, due: int) -> Written | None:
        """Write one of `due` tiles, which come in any order; with the last of them the part is there.

        Blocks. Raises StorageError.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Leave nothing, also of a part that is there. Blocks."""


class Storage(abc.ABC):
    """Where a party's stored values lie, as its workers reach it; it has no key, and can be pickled."""

    @abc.abstractmethod
    def connect(self) -> None:
        """Get ready. Blocks; raises StorageError for a place that this process cannot reach."""

    @abc.abstractmethod
    def tiles(self, access: Sequence[Any]) -> FiledTiles:
        """The tiles of which a node has told the `FiledTiles.access`; nothing is read yet.

        Raises ProtocolError for what is no such thing. What is read later raises StorageError unless it is as
        it was written.
        """

    @abc.abstractmethod
    def part(self, place: Sequence[Any]) -> PartWriter:
        """The part of a value that a node has told a place for; nothing is written yet.

        Raises ProtocolError for what is no such thing.
        """


class ValueInParts(abc.ABC):
    """A value that a run is going to store, as its node sees it: workers write the tiles that they make."""

    places: Sequence[list[Any]]
    """What each worker is told, for `Storage.part`; with a key, so it goes over no other line."""

    @abc.abstractmethod
    def stored(self, kind: Type, tile_rows: int, written: Mapping[int, Written]) -> Stored:
        """The value, of a type with numbers for all dimensions, once workers have written all of it.

        It is nobody's yet: what keeps it writes down which parts it has. Raises StorageError for what lacks
        tiles.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove what there is of it, unless it is kept. Blocks; raises StorageError."""
