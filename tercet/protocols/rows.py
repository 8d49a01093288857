"""Columns that move together, laid out row by row: what shuffles permute.

The words of a row lie side by side while they move: a row is then one line of the cache and not one for each
column. Columns become rows, and rows columns, in blocks that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Shape, Share
from tercet.protocols.detour import nearer
from tercet.protocols.domains import Domain, Words
from tercet.protocols.kernels import Indices
from tercet.protocols.prg import BLOCK_WORDS


@attrs.frozen(eq=False)
class Table:
    """Columns of one domain that move together; a row of them has `width` words."""

    domain: Domain
    columns: Sequence[Share]

    @classmethod
    def of(cls, columns: Sequence[Share]) -> list[Self]:
        """The columns by domain. Raises ProtocolError unless all have as many rows."""
        lengths = [column.shape[-1] for column in columns]
        if any(length != lengths[0] for length in lengths):
            raise ProtocolError(f"columns of {lengths} rows cannot be shuffled together")
        domains = list(dict.fromkeys(column.domain for column in columns))
        return [cls(domain, [c for c in columns if c.domain is domain]) for domain in domains]

    @property
    def width(self) -> int:
        """Words of a row."""
        return sum(_places(column) for column in self.columns)

    @property
    def shape(self) -> Shape:
        """Rows, and words of a row."""
        return self.columns[0].shape[-1], self.width

    def blocks(self) -> Iterator[slice]:
        """Runs of rows of about BLOCK_WORDS words."""
        rows, step = self.columns[0].shape[-1], max(1, BLOCK_WORDS // max(1, self.width))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def buffer(self) -> Words:
        """Room for the rows of a block."""
        return np.empty((max(1, BLOCK_WORDS // max(1, self.width)), self.width), dtype=np.uint64)

    def rows(self, protocol: Protocol, part: Callable[[Share], Words]) -> Words:
        """What `part` makes of each column, a flat array of words, row by row."""
        rows = protocol.allocate(self.shape)
        for block in self.blocks():
            for data, words in _in_rows(self.columns):
                share = Share(self.domain, data[:, :, block])
                rows[block, words] = part(share).reshape(share.shape).T
        return rows

    def empty(self, protocol: Protocol) -> list[Share]:
        """Columns like those that moved, to be filled."""
        return [column.like(protocol.allocate(column.data.shape)) for column in self.columns]


def write(columns: Sequence[Share], component: int, block: slice, rows: Words) -> None:
    """Write some rows of a component of columns."""
    for data, words in _in_rows(columns):
        data[component, :, block] = rows[:, words].T


def in_order(protocol: Protocol, rows: Words, order: Indices) -> Words:
    """The rows in another order."""
    moved = protocol.allocate(rows.shape)
    rows, order = nearer(rows, order, protocol.reach, protocol.allocate)
    return np.take(rows, order, axis=0, mode="clip", out=moved)


def as_asked(
    columns: Sequence[Share], tables: Sequence[Table], made: Sequence[Sequence[Share]]
) -> list[Share]:
    """What became of each column, in the order of the columns."""
    results = {table.domain: iter(shares) for table, shares in zip(tables, made, strict=True)}
    return [next(results[column.domain]) for column in columns]


def _places(column: Share) -> int:
    return math.prod(column.shape[:-1])


def _in_rows(columns: Sequence[Share]) -> Iterator[tuple[Words, slice]]:
    """For each column its data `(components, places, rows)`, a view, and its words of a row."""
    stop = 0
    for column in columns:
        start, stop = stop, stop + _places(column)
        yield column.data.reshape(len(column.data), stop - start, column.shape[-1]), slice(start, stop)


__all__ = ["Table", "as_asked", "in_order", "write"]
