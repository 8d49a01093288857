"""Gathering rows in random order from more than memory holds, on a detour by runs.

Rows that lie in a mapped file and are read in random order cost a page of the disk each. Here they move
twice instead, both times near to each other: first every block of the source is read once, and its rows are
put down by the block of the result that they belong to; then each block of the result is put in order. That
is what a sort on a disk does, with two passes over the rows, and the result is the one of `rows[order]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import attrs
import numpy as np

from tercet.protocols.domains import WORD_BYTES, Words
from tercet.protocols.kernels import Indices

Allocate = Callable[[tuple[int, ...]], Words]

BOOKKEEPING_WORDS = 4
"""Words for each row of a block that it takes to tell where the rows go."""


@attrs.frozen(eq=False)
class Detour:
    """A gather of rows of `width` words by `order`, as two that stay within blocks of rows."""

    places: Indices
    """The rows of the source, in the order in which they lie on the way."""
    near: Indices
    """Where on the way each row of the result lies: within the block of the result."""
    runs: Indices
    """`(blocks of the result, blocks of the source + 1)`: where runs of one source block begin on the way."""

    @classmethod
    def plan(cls, order: Indices, rows: int, width: int, reach: int, allocate: Allocate) -> Self | None:
        """The detour for an order of some of `rows` rows; None where all of them are within `reach` bytes.

        Raises IndexError for a row that is not there.
        """
        if rows * width * WORD_BYTES <= reach:
            return None
        block = max(1, reach // (WORD_BYTES * (width + BOOKKEEPING_WORDS)))
        sources = -(-rows // block)
        places, near = (allocate((len(order),)).view(np.int64) for _ in range(2))
        runs = np.zeros((-(-len(order) // block), sources + 1), dtype=np.int64)
        for number, start in enumerate(range(0, len(order), block)):
            wanted = order[start : start + block]
            if wanted.min() < 0 or wanted.max() >= rows:
                raise IndexError(f"a row number lies outside the {rows} rows there are")
            source = (wanted // block).astype(np.min_scalar_type(sources))
            by_source = np.argsort(source, kind="stable")
            places[start : start + block] = wanted[by_source]
            near[start : start + block][by_source] = np.arange(start, start + len(wanted))
            runs[number, 0] = start
            runs[number, 1:] = start + np.cumsum(np.bincount(source, minlength=sources))
        return cls(places, near, runs)

    def first(self, rows: Words, out: Words) -> Words:
        """The rows as they lie on the way, `(len(order), width)`; `[near]` of it is the result."""
        for source in range(self.runs.shape[1] - 1):
            for start, stop in self.runs[:, source : source + 2]:
                np.take(rows, self.places[start:stop], axis=0, out=out[start:stop], mode="clip")
        return out


def nearer(rows: Words, order: Indices, reach: int, allocate: Allocate) -> tuple[Words, Indices]:
    """Rows and an order of them with the same `rows[order]`, such that rows in random order are near.

    That is, within about `reach` bytes; `rows` is `(n, width)`. What is made comes from `allocate`.
    """
    count, width = rows.shape
    detour = Detour.plan(order, count, width, reach, allocate)
    if detour is None:
        return rows, order
    return detour.first(rows, allocate((len(order), width))), detour.near
