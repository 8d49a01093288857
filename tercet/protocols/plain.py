"""The clear reference: one party that holds every value openly, in the ring and fixed point of the others.

It says what each operation of the interface means. The tests hold every other protocol against it, and
`tercet compare` runs plans on it to tell what the privacy costs. Operations are generators that return at
once, so nothing else in Tercet has to know that there is nobody to talk to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, kernels
from tercet.protocols.base import (
    Cost,
    Op,
    Product,
    Protocol,
    Shape,
    Share,
    T,
    align,
    declared,
    require_full,
    require_one_dimension,
)
from tercet.protocols.domains import BITS, Z64, Domain, Words, decode, encode
from tercet.protocols.fourier import Series
from tercet.protocols.prg import Stream, derive_key
from tercet.protocols.together import Team, permute_columns

_FREE: Callable[..., Cost] = lambda self, *_, **__: self.free()  # noqa: E731 - one cost for all that follows


def _done(value: T) -> Op[T]:
    """An operation that takes no rounds."""
    yield from ()
    return value


def _signed(x: Share) -> Any:
    return x.data.view(np.int64)


class Plain(Protocol):
    """One party, everything in the clear: for comparison and tests, never for data that is to stay secret."""

    name: ClassVar[str] = "plain"
    held: ClassVar[int] = 1
    sizes: ClassVar[tuple[int, ...]] = (1,)
    shuffles_together: ClassVar[bool] = True

    @property
    def truncation_bias(self) -> None:
        """It draws nothing: every number goes to the nearest."""
        return None

    # -- values in and out -----------------------------------------------------------------------------------

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """The values themselves."""
        _ = domain, parties
        return [[values.copy()]]

    @classmethod
    def dealt_shapes(cls, shape: Shape, *, domain: Domain, party: int, parties: int) -> list[Shape]:
        """One array."""
        _ = domain, party, parties
        return [shape]

    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """Take the values."""
        return Share(domain, parts[0].reshape(1, *shape), scale)

    def export(self, x: Share) -> list[Words]:
        """The values themselves."""
        return [np.ascontiguousarray(x.data[0])]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """Take the values."""
        _ = domain
        return parts[0][0].reshape(shape)

    @declared(_FREE)
    def opening(self, x: Share) -> Op[Words]:
        """Look at the value."""
        return _done(x.data[0].copy())

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """The values themselves."""
        return (Product if product else Share)(domain, values[None].copy(), scale)

    def _own_stream(self, purpose: str) -> Stream:
        """A stream of the key under 0; without a key, one that depends on the operation's name alone."""
        key = self.keys.get(0, derive_key(b"", b"plain"))
        return self.stream(key, self.tag(), purpose)

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """Pseudorandom words, the same for one key and operation."""
        return Share(domain, self._own_stream("random").words((1, *shape)))

    # -- products --------------------------------------------------------------------------------------------

    def mul_local(self, x: Share, y: Share) -> Product:
        """The product."""
        require_full("a product", x, y)
        if x.domain is not y.domain:
            raise ProtocolError(
                f"a sharing in {x.domain} cannot be multiplied by one in {y.domain}; convert one"
            )
        a, b = align(x, y)
        return Product(x.domain, x.domain.multiply(a, b), x.scale + y.scale)

    def matmul_local(self, x: Share, y: Share) -> Product:
        """The product."""
        require_full("a product", x, y)
        return Product(Z64, kernels.ring_matmul(x.data[0], y.data[0])[None], x.scale + y.scale)

    def dot_local(self, x: Share, y: Share) -> Product:
        """The product."""
        require_full("a product", x, y)
        return Product(Z64, kernels.ring_dot(x.data[0], y.data[0])[None], x.scale + y.scale)

    @declared(_FREE)
    def reduce(self, x: Share) -> Op[Share]:
        """The same value, now a full sharing."""
        return _done(Share(x.domain, x.data, x.scale))

    @declared(_FREE)
    def mul(self, x: Share, y: Share) -> Op[Share]:
        """The product."""
        return super().mul(x, y)

    # -- functions -------------------------------------------------------------------------------------------

    @declared(_FREE)
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """The nearest code, halves rounded up."""
        if not 1 <= bits <= 62:
            raise ProtocolError(f"a truncation by {bits} bits: it must be by 1 to 62")
        half = np.int64(1) << np.int64(bits - 1)
        rounded = ((_signed(x) + half) >> np.int64(bits)).view(np.uint64)
        return _done(Share(Z64, rounded, x.scale - bits))

    @declared(_FREE)
    def nearest(self, x: Share, bits: int) -> Op[Share]:
        """The same."""
        return self.truncate(x, bits)

    @declared(_FREE)
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """The series at the value, in double precision."""
        scale = dealt_bits + coefficient_bits
        values = decode(x.data, x.scale)
        return _done([Share(Z64, encode(one(values), scale), scale) for one in series])

    @declared(_FREE)
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """Unpack."""
        require_one_dimension(x, "bits_to_ring")
        return _done(Share(Z64, bitplanes.unpack_bits(x.data[0], count).astype(np.uint64)[None]))

    @declared(_FREE)
    def is_negative(self, x: Share, bits: int = 64) -> Op[Share]:
        """Look at bit `bits - 1`."""
        require_one_dimension(x, "is_negative")
        return _done(Share(BITS, _packed((x.data[0] >> np.uint64(bits - 1)) & np.uint64(1))))

    @declared(_FREE)
    def is_zero(self, x: Share) -> Op[Share]:
        """Look."""
        require_one_dimension(x, "is_zero")
        return _done(Share(BITS, _packed(x.data[0] == 0)))

    @declared(_FREE)
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """One pseudorandom permutation of all columns."""
        require_full("shuffle", *columns)
        rows = columns[0].shape[-1]
        if self.team is not None:
            return self._shuffle_together(columns, self.team)
        order = kernels.permutation(self._own_stream("permutation").words((rows,)))
        return _done([column.like(column.data[..., order]) for column in columns])

    def _shuffle_together(self, columns: Sequence[Share], team: Team) -> Op[list[Share]]:
        moved = yield from permute_columns(self, team, [column.data for column in columns], self._own_stream)
        return [column.like(data) for column, data in zip(columns, moved, strict=True)]


def _packed(bits: Any) -> Words:
    return bitplanes.pack_bits(bits.astype(np.uint8))[None]
