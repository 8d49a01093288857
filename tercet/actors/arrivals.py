"""Arrivals: values that are dealt to a node in pieces, so that neither end holds more than one of them.

Pieces come in the order of their rows, each a number of whole tiles. A sink takes the tiles: one that gathers
them in memory, or a file of a node that lasts. Nothing of a value counts before all of it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol as Interface

import attrs
import trio

from tercet.actors.values import Stored
from tercet.errors import PlanError
from tercet.plans.types import Type
from tercet.protocols.base import Share

WORD_ROWS = 64
"""Packed booleans have so many rows in a word, so tiles are multiples of it."""


class Sink(Interface):
    """Where the tiles of a value go. All of it blocks, and raises StorageError."""

    def append(self, tile: Share) -> None:
        """Take the next tile."""

    def commit(self) -> Stored:
        """The value, now that all of its tiles are there."""

    def abort(self) -> None:
        """Leave nothing."""


@attrs.define(eq=False)
class Gathering:
    """A sink in memory."""

    type: Type
    tile_rows: int
    tiles: list[Share] = attrs.field(factory=list)

    def append(self, tile: Share) -> None:
        """As `Sink.append`."""
        self.tiles.append(tile)

    def commit(self) -> Stored:
        """As `Sink.commit`."""
        return Stored(self.type, self.tiles, self.tile_rows)

    def abort(self) -> None:
        """As `Sink.abort`."""
        self.tiles = []


@attrs.frozen
class Piece:
    """Which rows of a value a piece has, and how many there are in all; a single number counts as one row."""

    type: Type
    tile_rows: int
    start: int
    rows: int

    @property
    def own_type(self) -> Type:
        """The type of the piece itself."""
        shape = self.type.shape
        return attrs.evolve(self.type, shape=(*shape[:-1], self.rows)) if shape else self.type

    @property
    def first(self) -> bool:
        """Whether the value begins here."""
        return self.start == 0

    @property
    def last(self) -> bool:
        """Whether the value ends here."""
        return self.start + self.rows == self.type.rows

    def check(self) -> None:
        """Raise PlanError for a piece that no client cuts."""
        if self.tile_rows <= 0 or self.tile_rows % WORD_ROWS:
            raise PlanError(f"a tile of {self.tile_rows} rows is not a positive multiple of {WORD_ROWS}")
        total = int(self.type.rows)
        tiles = self.start % self.tile_rows == 0 and (self.last or self.rows % self.tile_rows == 0)
        if self.start < 0 or self.rows < min(1, total) or self.start + self.rows > total or not tiles:
            raise PlanError(
                f"rows {self.start} to {self.start + self.rows} of {total} are no whole tiles of "
                f"{self.tile_rows} rows"
            )


@attrs.define(eq=False)
class Arrival:
    """A value of which the rows up to `rows` have arrived."""

    type: Type
    tile_rows: int
    sink: Sink
    rows: int = 0
    turn: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while the sink is used."""

    def expects(self, piece: Piece) -> bool:
        """Whether a piece is the next one."""
        return (piece.type, piece.tile_rows, piece.start) == (self.type, self.tile_rows, self.rows)

    def take(self, piece: Piece, tiles: Callable[[], Sequence[Share]]) -> Stored | None:
        """Take the next piece, which blocks; the whole value with the last one. Raises StorageError."""
        for tile in tiles():
            self.sink.append(tile)
        self.rows += piece.rows
        return self.sink.commit() if piece.last else None
