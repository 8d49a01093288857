"""The values of a plan run as they come into being, tile by tile, and what a scheduler leaves behind."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors.kinds import Data
from tercet.actors.plan import Form, Type
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import WORD_BITS, Words


@attrs.define(eq=False)
class Stored:
    """A secret value that a node keeps.

    Its type with numbers for all dimensions, and its tiles of so many rows.
    """

    type: Type
    tiles: list[Share]
    tile_rows: int


@attrs.define
class Statistics:
    """What a run cost one party: rounds on the critical path, payload bytes sent, seconds."""

    rounds: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0


@attrs.define(eq=False)
class Outcome:
    """What a run leaves.

    Exports for each reveal node in plan order, values to store, the symbols' numbers, its cost.
    """

    revealed: list[tuple[str, str, Type, list[Words]]]
    stored: dict[str, Stored]
    symbols: dict[str, int]
    statistics: Statistics


class TiledValue:
    """A result of a node as it comes into being.

    One entry a tile, dropped when its last reader is done with it.

    `there` says which tiles have come, also those that were dropped since; `depth` is the number of rounds on
    the longest way to each.
    """

    def __init__(self, tiles: int, readers: int) -> None:
        self.tiles: list[Data | None] = [None] * tiles
        self.there = [False] * tiles
        self.depth = [0] * tiles
        self.missing = tiles
        self._left = [readers] * tiles
        self._whole: Data | None = None

    def put(self, tile: int, data: Data, depth: int) -> None:
        """Fill in a tile."""
        if self._left[tile]:
            self.tiles[tile] = data
        self.there[tile] = True
        self.depth[tile] = depth
        self.missing -= 1

    def whole(self) -> Data:
        """All tiles as one; only once none is missing."""
        whole = self._whole
        if whole is None:
            whole = self._whole = join([part for part in self.tiles if part is not None])
        return whole

    def reader_done(self, tile: int) -> None:
        """Count a reader of a tile down; the last one lets the memory go."""
        self._left[tile] -= 1
        if self._left[tile] == 0:
            self.tiles[tile] = None
            self._whole = None


def join(parts: Sequence[Data]) -> Data:
    """Tiles side by side along the rows: a view where they are neighbours in memory, as `split` left them."""
    first = parts[0]
    if len(parts) == 1:
        return first
    arrays = [part.data if isinstance(part, Share) else part for part in parts]
    whole = _neighbours(arrays)
    if whole is None:
        whole = np.concatenate(arrays, axis=-1)
    return first.like(whole) if isinstance(first, Share) else whole


def _neighbours(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """The array of which all these are consecutive slices along the last axis, or None."""
    first, end = arrays[0], arrays[0].ctypes.data
    if first.base is None or first.strides[-1] != first.itemsize:
        return None
    for array in arrays:
        alike = array.shape[:-1] == first.shape[:-1] and array.strides == first.strides
        if array.base is not first.base or not alike or array.ctypes.data != end:
            return None
        end += array.shape[-1] * array.itemsize
    shape = (*first.shape[:-1], sum(array.shape[-1] for array in arrays))
    return np.lib.stride_tricks.as_strided(first, shape, first.strides, writeable=False)


def split(kind: Type, whole: Data, tile_rows: int) -> list[Data]:
    """A whole value as tiles along its rows, views of it; packed booleans have 64 rows in a word."""
    data = whole.data if isinstance(whole, Share) else whole
    step = tile_rows // WORD_BITS if kind.form is Form.BITS else tile_rows
    if not kind.shape or data.shape[-1] <= step:
        return [whole]
    cuts = [data[..., i : i + step] for i in range(0, data.shape[-1], step)]
    return [whole.like(cut) for cut in cuts] if isinstance(whole, Share) else list(cuts)


def add_up(protocol: Protocol, parts: Iterable[Share | None]) -> Share:
    """The sum of the tiles' summands."""
    return functools.reduce(protocol.add, (part for part in parts if part is not None))
