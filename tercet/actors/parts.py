"""What members of a party, its node and its workers, say to each other as each runs its share of a plan.

Values cross where the members that read a tile are not the one that has made it. Sums over rows cross as one
summand a worker. All of it stays inside the party, which holds those shares anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

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
    to it, and `symbols` are those that its sender knows.
    """

    ref: Ref
    tile: int
    tiles: int
    depth: int
    data: Data | FiledTiles
    symbols: Mapping[str, int] = attrs.field(factory=dict)

    def to_wire(self) -> tuple[list[Any], list[Words]]:
        """The header that `read` takes, and the words; reads a tile that lies in a file."""
        data = self.data[self.tile] if isinstance(self.data, FiledTiles) else self.data
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
class Part:
    """The part of a run that one member of a party with so many workers takes.

    `send` takes parcels by member, and returns when they are queued.
    """

    member: int
    workers: int
    send: Callable[[Mapping[int, Sequence[Parcel]]], Awaitable[None]]
