"""What members of a party, its node and its workers, say to each other as each runs its share of a plan.

Values cross where the members that read a tile are not the one that has made it. Sums over rows cross as one
summand a worker. Where workers run an operation on all rows together, rows cross from one to another. All of
it stays inside the party, which holds those shares anyway.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.actors.storage import PartWriter, ValueInParts, Written
from tercet.actors.values import FiledTiles
from tercet.errors import ProtocolError
from tercet.plans.kinds import Data
from tercet.plans.types import Ref
from tercet.protocols.base import Product, Share
from tercet.protocols.domains import DOMAINS, Words


@attrs.frozen(eq=False)
class Parcel:
    """A tile of a value, or a worker's summand of a node, on its way to another member.

    `tile` is one of `tiles`, or the worker's number and 0; `depth` is the number of rounds on the longest way
    to it, and `symbols` are those that its sender knows: a parcel of -1 `tiles` tells nothing else. Where
    `data` has an `access`, it stands for all tiles, and a worker reads those that it needs. Of what a worker
    has `Written`, `tile` is its number too.
    """

    ref: Ref
    tile: int
    tiles: int
    depth: int
    data: Data | FiledTiles | Written
    symbols: Mapping[str, int] = attrs.field(factory=dict)

    def to_wire(self) -> tuple[list[Any], list[Words]]:
        """The header that `read` takes, and the words; reads a tile that lies in a file."""
        data: Any = self.data[self.tile] if isinstance(self.data, FiledTiles) else self.data
        form: list[Any] = []
        if isinstance(data, Share):
            form = [data.domain.name, data.scale, isinstance(data, Product)]
        array = data.data if isinstance(data, Share) else data
        words = np.ascontiguousarray(array).reshape(array.shape)
        header = [*self.ref, self.tile, self.tiles, self.depth, form, list(words.shape), dict(self.symbols)]
        return header, [words]

    @classmethod
    def read(cls, header: Sequence[Any], words: Words) -> Parcel:
        """From the wire. Raises ProtocolError."""
        try:
            index, output, tile, tiles, depth, form, shape, symbols = header
            words = words.reshape(shape)
            data: Data = words
            if form:
                domain, scale, product = form
                data = (Product if product else Share)(DOMAINS[domain], words, scale)
        except (ValueError, TypeError, KeyError) as error:
            raise ProtocolError(f"a member of this party sent a malformed value ({error})") from error
        return cls((index, output), tile, tiles, depth, data, symbols)


@attrs.frozen(eq=False)
class Handover:
    """What one worker has for another in an `Exchange`, the `number`th of a node that they run together."""

    index: int
    number: int
    sender: int
    arrays: Sequence[Words]

    def to_wire(self) -> tuple[list[Any], list[Words]]:
        """The header that `read` takes, and the words."""
        words = [np.ascontiguousarray(array) for array in self.arrays]
        return [self.index, self.number, self.sender, [list(array.shape) for array in self.arrays]], words

    @classmethod
    def read(cls, header: Sequence[Any], words: Words) -> Handover:
        """From the wire. Raises ProtocolError."""
        try:
            index, number, sender, shapes = header
            ends = np.cumsum([math.prod(shape) for shape in shapes], dtype=np.int64).tolist()
            if words.size != (ends[-1] if ends else 0):
                raise ValueError(f"{words.size} words for {shapes}")
            parts = np.split(words, ends[:-1]) if ends else []
            arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        except (ValueError, TypeError, OverflowError) as error:
            raise ProtocolError(f"a worker of this party sent malformed rows ({error})") from error
        return cls(index, number, sender, arrays)


Parcels = Mapping[int, Sequence[Parcel | Handover]]
"""What goes to other members, by member."""


@attrs.frozen(eq=False)
class Part:
    """The part of a run that one member of a party with so many workers takes.

    `send` takes what goes to other members, by member, and returns when it is queued. `begun` is called once
    the run takes what other members have made: none of them sends anything of it before. Of values that
    workers write by themselves, by the nodes of the plan that store them, a worker has its `writers`, and the
    node what is `in_parts`.
    """

    member: int
    workers: int
    send: Callable[[Parcels], Awaitable[None]]
    begun: Callable[[], None] = lambda: None
    writers: Mapping[int, PartWriter] = attrs.field(factory=dict)
    in_parts: Mapping[int, ValueInParts] = attrs.field(factory=dict)

    @property
    def written(self) -> set[int]:
        """The nodes that store what workers write."""
        return {*self.writers, *self.in_parts}
