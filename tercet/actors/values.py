"""The values of a plan run as they come into being, tile by tile, and what a scheduler leaves behind."""

from __future__ import annotations

import abc
import functools
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.errors import PlanError, ProtocolError
from tercet.plans.kinds import Data
from tercet.plans.types import Form, Type
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import WORD_BITS, Words

T_co = TypeVar("T_co", covariant=True)


class Filed(Sequence[T_co]):
    """Things that are read from a file when they are asked for, one by one."""

    @abc.abstractmethod
    def at(self, number: int) -> T_co:
        """The thing of a number that there is."""

    @overload
    def __getitem__(self, number: int) -> T_co: ...
    @overload
    def __getitem__(self, number: slice) -> list[T_co]: ...
    def __getitem__(self, number: int | slice) -> T_co | list[T_co]:
        chosen = range(len(self))[number]
        return self.at(chosen) if isinstance(chosen, int) else [self.at(one) for one in chosen]


class FiledTiles(Filed[Share]):
    """Tiles that are read from a file when they are asked for, which takes a while; in any thread."""

    @abc.abstractmethod
    def ready(self, tile: int) -> bool:
        """Whether a tile was read already, so that asking for it takes no time."""

    def access(self) -> list[Any] | None:
        """What a worker of this party needs to read them by itself, for `Storage.tiles`; None if it cannot.

        It has the key of these tiles, so it goes over no other line than that between node and worker.
        """
        return None

    def forget(self) -> None:
        """Let go of what is in memory, since nobody is going to ask for it."""


@attrs.define(eq=False)
class Stored:
    """A secret value that a node keeps.

    Its type with numbers for all dimensions, and its tiles of so many rows, in memory or `FiledTiles`;
    whether a client has `dealt` it, and digests of what others hold of it too, once they were found (see
    `alike`).
    """

    type: Type
    tiles: Sequence[Share]
    tile_rows: int
    dealt: bool = attrs.field(default=False, kw_only=True)
    alike: Mapping[int, bytes] | None = attrs.field(default=None, kw_only=True, repr=False)


@attrs.define
class Statistics:
    """What a run cost one party: rounds on the critical path, payload bytes sent, seconds."""

    rounds: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0


Revealed = tuple[str, str, Type, list[Words]]
"""A party's part of a revealed value: its name, its receiver, its type, and what the party sends of it."""


@attrs.define(eq=False)
class Outcome:
    """What a run leaves.

    Exports for each reveal node in plan order, values to store, the symbols' numbers, its cost, and the check
    bits that the nodes were told, by name.
    """

    revealed: list[Revealed]
    stored: dict[str, Stored]
    symbols: dict[str, int]
    statistics: Statistics
    told: dict[str, npt.NDArray[np.float64]] = attrs.field(factory=dict)


class TiledValue:
    """A result of a node as it comes into being.

    One entry a tile, dropped when its last reader is done with it.

    `there` says which tiles have come, also those that were dropped since; `depth` is the number of rounds on
    the longest way to each.
    """

    def __init__(self, readers: Sequence[int], scratch: Scratch = IN_MEMORY) -> None:
        tiles = len(readers)
        self.tiles: list[Data | None] = [None] * tiles
        self.there = [False] * tiles
        self.depth = [0] * tiles
        self.missing = tiles
        self.source: FiledTiles | None = None
        """Where tiles are read from, of a value that lies in a file."""
        self._left = list(readers)
        self._whole: Data | None = None
        self._scratch = scratch
        self._held = 0
        self._room: Words | None = None
        self._making_room = threading.Lock()

    @classmethod
    def from_file(cls, tiles: FiledTiles, readers: Sequence[int], scratch: Scratch) -> TiledValue:
        """A value all of whose tiles are there, to be read."""
        value = cls(readers, scratch)
        value.source, value.there, value.missing = tiles, [True] * len(tiles), 0
        return value

    def put(self, tile: int, data: Data, depth: int) -> None:
        """Fill in a tile."""
        if self._left[tile]:
            self.tiles[tile] = data
            self._held += _bytes_in_memory(data)
        self.there[tile] = True
        self.depth[tile] = depth
        self.missing -= 1

    def shelve(self, tile: int, data: Data) -> Data:
        """A tile that is about to be put: in the scratch, where tiles pile up. In any thread."""
        array = _array(data)
        if not self._scratch.takes(self._held + array.nbytes) or Scratch.holds(array):
            return data
        with self._making_room:
            if self._room is None:
                if 0 < tile == len(self.tiles) - 1:
                    return data  # a last tile may be short, so it does not tell how large the others are
                self._room = self._scratch.empty((len(self.tiles), array.size))
        place = self._room[tile, : array.size].reshape(array.shape)
        place[...] = array
        return data.like(place) if isinstance(data, Share) else place

    def part(self, tile: int) -> Data | None:
        """A tile, None if it was dropped. Raises StorageError if it cannot be read."""
        return self.tiles[tile] if self.source is None else self.source[tile]

    def whole(self) -> Data:
        """All tiles as one; only once none is missing."""
        whole = self._whole
        if whole is None:
            held = [part for part in self.tiles if part is not None]
            whole = self._whole = join(held if self.source is None else self.source, self._scratch)
        return whole

    def block(self, tiles: range) -> Data:
        """Some neighbouring tiles as one; only once none of them is missing."""
        parts = [self.part(tile) for tile in tiles]
        if any(part is None for part in parts):
            raise ProtocolError(f"a tile of {tiles} was dropped before it was read")
        return join([part for part in parts if part is not None], self._scratch)

    def reader_done(self, tile: int) -> None:
        """Count a reader of a tile down; the last one lets the memory go."""
        self._left[tile] -= 1
        if self._left[tile] == 0:
            part, self.tiles[tile] = self.tiles[tile], None
            self._held -= 0 if part is None else _bytes_in_memory(part)
            self._whole = None
            if not any(self._left):
                self._room = None


def _array(data: Data) -> npt.NDArray[Any]:
    return data.data if isinstance(data, Share) else data


def _bytes_in_memory(data: Data) -> int:
    array = _array(data)
    return 0 if Scratch.holds(array) else array.nbytes


def join(parts: Sequence[Data], scratch: Scratch = IN_MEMORY) -> Data:
    """Tiles side by side along the rows: a view where they are neighbours in memory, as `split` left them."""
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = None if isinstance(parts, FiledTiles) else _neighbours([_array(part) for part in parts])
    if whole is None:
        *lead, rows = _array(first).shape
        whole = scratch.empty((*lead, (len(parts) - 1) * rows + _array(parts[-1]).shape[-1]))
        for number, part in enumerate(parts):
            whole[..., number * rows : (number + 1) * rows] = _array(part)
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


def cut(share: Share, tile_rows: int, *, bits: bool = False) -> list[Share]:
    """A share as tiles along its rows, each contiguous; packed booleans have 64 rows in a word."""
    step = tile_rows // 64 if bits else tile_rows
    if len(share.shape) == 0 or share.shape[-1] <= step:
        return [share]
    starts = range(0, share.shape[-1], step)
    return [share.like(np.ascontiguousarray(share.data[..., i : i + step])) for i in starts]


def require_input(title: str, handle: str, stored: Stored, wanted: Type, tile_rows: int) -> None:
    """Raise PlanError unless a stored value is what a plan's node of this title reads under its handle."""
    ours = stored.type
    same = (ours.form, ours.shape, ours.scale) == (wanted.form, wanted.shape, wanted.scale)
    if not same or wanted.limit < ours.limit:
        raise PlanError(
            f"{title}: {handle!r} is {ours} of at most {ours.limit:g} units, the plan "
            f"reads it as {wanted} of at most {wanted.limit:g}"
        )
    if stored.tile_rows != tile_rows:
        raise PlanError(
            f"{title}: {handle!r} is stored in tiles of {stored.tile_rows} rows, the plan's have {tile_rows}"
        )


def add_up(protocol: Protocol, parts: Iterable[Share | None]) -> Share:
    """The sum of the tiles' summands."""
    return functools.reduce(protocol.add, (part for part in parts if part is not None))


def type_fields(kind: Type) -> list[Any]:
    """The wire form of a stored type; see `read_type`."""
    return [kind.form.value, list(kind.shape), kind.scale, kind.limit]


def read_type(fields: Any) -> Type:
    """A stored type from its wire form `[form, shape, scale, limit]`. Raises PlanError."""
    try:
        form, shape, scale, limit = fields
        dims = tuple(int(dim) for dim in shape)
        kind = Type(Form(form), dims, int(scale), float(limit))
    except (TypeError, ValueError, OverflowError) as error:
        raise PlanError(f"{fields!r:.200} is no type of a stored value") from error
    if kind.form is Form.PUBLIC or any(dim < 0 for dim in dims) or math.prod(dims) > 1 << 40:
        raise PlanError(f"a value of type {kind} cannot be stored")
    return kind
