"""Replicated secret sharing among three parties, one of them corrupted (Araki et al. 2016, ABY3 2018).

`x = x_0 + x_1 + x_2` in Z_2^64, or XOR on packed words. Party i holds `(x_i, x_{i+1})`, indices modulo 3, so
component j is held by parties j and j-1 and missing at j+1. A product costs one word an element. What a
dealer prepares and two parties open under its mask is in `masking`; here is what is particular to the
sharing: how values come in and go out, products, comparisons and shuffles.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits, kernels, shuffling
from tercet.protocols.base import (
    Cost,
    Op,
    Product,
    Round,
    Shape,
    Share,
    align,
    declared,
    require_full,
    require_one_dimension,
)
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, Domain, Words, packed_words
from tercet.protocols.fourier import Series, union
from tercet.protocols.gates import BitsToRing, Fourier, Truncation
from tercet.protocols.masking import DEALER, FIRST, Masking
from tercet.protocols.prg import KEY_BYTES, Stream

DIGEST_WORDS = 4


def digest(words: Words) -> Words:
    """A 32-byte digest of an array, as four words, by which a second holder vouches for it."""
    hashed = hashlib.sha256(np.ascontiguousarray(words).reshape(-1).view(np.uint8).data)
    return np.frombuffer(hashed.digest(), dtype=np.uint64)


class Replicated(Masking):
    """Three parties, honest majority, semi-honest; the ring of 64-bit integers and packed bits."""

    name: ClassVar[str] = "replicated"
    held: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, ...]] = (3,)
    shuffles_together: ClassVar[bool] = True
    truncates_down: ClassVar[bool] = True

    # -- values in and out -----------------------------------------------------------------------------------

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """Two components are 32-byte seeds, the third is explicit and goes to its two holders."""
        _ = parties
        seeds = [np.frombuffer(secrets.token_bytes(KEY_BYTES), dtype=np.uint64) for _ in range(2)]
        third = values.copy()
        for seed in seeds:
            domain.subtract(third, _seeded(seed).words(values.shape), out=third)
        return [[seeds[0], seeds[1]], [seeds[1], third], [third, seeds[0]]]

    @classmethod
    def dealt_shapes(cls, shape: Shape, *, domain: Domain, party: int, parties: int) -> list[Shape]:
        """A seed is four words."""
        _ = domain, parties
        seed = (KEY_BYTES // WORD_BYTES,)
        shapes: list[list[Shape]] = [[seed, seed], [seed, shape], [shape, seed]]
        return shapes[party]

    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """Expand the seeds."""
        data = np.empty((2, *shape), dtype=np.uint64)
        for index, part in enumerate(parts):
            explicit = (self.party + index) % 3 == 2
            if explicit:
                data[index] = part.reshape(shape)
            else:
                _seeded(part).fill(data[index : index + 1])
        return Share(domain, data, scale)

    def held_alike(self, x: Share) -> Mapping[int, Words]:
        """Each component, with its other holder."""
        return {self.prev: x.data[0], self.next: x.data[1]}

    def export(self, x: Share) -> list[Words]:
        """Component i in full, and a digest of component i+1."""
        return [np.ascontiguousarray(x.data[0]), digest(x.data[1])]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """Add the three components, each checked against its second holder's digest."""
        for party in range(3):
            component = (party + 1) % 3
            if not np.array_equal(digest(parts[component][0]), parts[party][1]):
                raise ProtocolError(
                    f"party {component} and party {party} disagree on component {component} of a result; one "
                    "of them is faulty, and the result was thrown away"
                )
        return domain.total(part[0] for part in parts).reshape(shape)

    @declared(lambda self, x: self.each(1, x.size + DIGEST_WORDS))
    def opening(self, x: Share) -> Op[Words]:
        """One round: component i goes to party i+1, a digest of component i+1 to party i-1."""
        got = yield Round(
            send={
                self.next: [np.ascontiguousarray(x.data[0]).reshape(x.shape)],
                self.prev: [digest(x.data[1])],
            },
            recv={self.prev: [x.shape], self.next: [(DIGEST_WORDS,)]},
        )
        missing = got[self.prev][0]
        if not np.array_equal(digest(missing), got[self.next][0]):
            raise ProtocolError(
                f"the opening of {self._operation!r} failed its cross-check: party {self.prev} and party "
                f"{self.next} hold different components"
            )
        return x.domain.total([x.data[0], x.data[1], missing])

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """Component 0 is the value, the others are zero."""
        kind, held = (Product, 1) if product else (Share, 2)
        data = np.zeros((held, *values.shape), dtype=np.uint64)
        if self.party == 0:
            data[0] = values
        elif self.party == 2 and not product:
            data[1] = values
        return kind(domain, data, scale)

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """Component j is F(K_j)."""
        tag = self.tag()
        data = np.stack([self.draw(self.party + i, tag, "random").words(shape) for i in range(2)])
        return Share(domain, data)

    # -- products --------------------------------------------------------------------------------------------

    def mul_local(self, x: Share, y: Share) -> Product:
        """`x_i y_i + x_i y_{i+1} + x_{i+1} y_i` (Araki et al. 2016)."""
        a, b = _factors(x, y)
        if a.shape == b.shape:
            z = np.empty(a.shape[1:], dtype=np.uint64)
            local = kernels.mul3 if x.domain is Z64 else kernels.and3
            (x0, x1), (y0, y1) = _components(a), _components(b)
            local(x0, x1, y0, y1, z)
        else:
            z = x.domain.multiply(a[0], x.domain.add(b[0], b[1]))
            x.domain.add(z, x.domain.multiply(a[1], b[0]), out=z)
        return Product(x.domain, z[None], x.scale + y.scale)

    def matmul_local(self, x: Share, y: Share) -> Product:
        """`x_i @ (y_i + y_{i+1}) + x_{i+1} @ y_i`."""
        require_full("a product", x, y)
        z = kernels.matmul3(x.data[0], x.data[1], y.data[0], y.data[1])
        return Product(Z64, z[None], x.scale + y.scale)

    def dot_local(self, x: Share, y: Share) -> Product:
        """As `matmul_local`, contracting the rows of both."""
        require_full("a product", x, y)
        z = kernels.dot3(x.data[0], x.data[1], y.data[0], y.data[1])
        return Product(Z64, z[None], x.scale + y.scale)

    @declared(lambda self, x: self.each(1, x.size))
    def reduce(self, x: Share) -> Op[Share]:
        """One round, one word an element to the previous party, under a zero share (Araki et al. 2016)."""
        result = np.empty((2, *x.shape), dtype=np.uint64)
        own, z = (part.reshape(-1) for part in (x.data[:1], result[:1]))
        for block, plus, minus in self.zero_blocks(z.size):
            x.domain.add(own[block], plus, out=plus)
            x.domain.subtract(plus, minus, out=z[block])
        return self._exchange(result, x.domain, x.scale)

    @declared(lambda self, x, y: self.each(1, math.prod(np.broadcast_shapes(x.shape, y.shape))))
    def mul(self, x: Share, y: Share) -> Op[Share]:
        """One round, one word an element to the previous party (Araki et al. 2016)."""
        a, b = _factors(x, y)
        if a.shape != b.shape:
            return self.reduce(self.mul_local(x, y))
        result = np.empty(a.shape, dtype=np.uint64)
        x0, x1, y0, y1, z = (part.reshape(-1) for part in (*_components(a), *_components(b), result[:1]))
        local = kernels.mul3_zero if x.domain is Z64 else kernels.and3_zero
        for block, plus, minus in self.zero_blocks(z.size):
            local(x0[block], x1[block], y0[block], y1[block], plus, minus, z[block])
        return self._exchange(result, x.domain, x.scale + y.scale)

    def _exchange(self, result: Words, domain: Domain, scale: int) -> Op[Share]:
        """Component i of the result is the own summand z_i; component i+1 comes from the next party."""
        got = yield Round(send={self.prev: [result[0]]}, recv={self.next: [result[0].shape]})
        result[1] = got[self.next][0]
        return Share(domain, result, scale)

    # -- masked openings -------------------------------------------------------------------------------------

    @declared(lambda self, x, *_: self.masked_cost(x, x.size, opened=x.size, dealt=2, results=1))
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """A masked opening: 2 rounds; 2 words an element from each party, 4 from the dealer of a product.

        Gives the integer above with the chance of the fraction, else the one below, so its mean is exact.
        """
        y = yield from self.masked_opening(x, x.size, Truncation(bits))
        return Share(Z64, y.reshape(2, *x.shape), x.scale - bits)

    @declared(
        lambda self, x, series, **_: self.masked_cost(
            x, x.size, opened=x.size, dealt=union(*series).dealt, results=len(series)
        )
    )
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """A masked opening: 2 rounds; two words a harmonic and element from the dealer."""
        gate = Fourier(series, scale=x.scale, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits)
        y = yield from self.masked_opening(x, x.size, gate)
        scale = dealt_bits + coefficient_bits
        return [Share(Z64, y[:, i].reshape(2, *x.shape), scale) for i in range(len(series))]

    @declared(
        lambda self, x, count: self.masked_cost(x, count, opened=packed_words(count), dealt=1, results=1)
    )
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """A masked opening of packed bits: 2 rounds; a word an element from each party."""
        require_one_dimension(x, "bits_to_ring")
        if x.size != packed_words(count):
            raise ProtocolError(f"{count} packed bits are {packed_words(count)} words, not {x.size}")
        y = yield from self.masked_opening(x, count, BitsToRing())
        return Share(Z64, y[:, 0])

    # -- comparisons -----------------------------------------------------------------------------------------

    def _deal_planes(self, planes: Words | None, shape: Shape) -> Op[Words]:
        """Share planes that the dealer knows: 1 round, from dealer d to party d+1. The others pass None.

        Returns component d, which is F(K_d), to party d-1, and component d+1 to parties d and d+1; d+2 is
        zero.
        """
        tag, d = self.tag(), self.dealer
        if planes is not None:
            code: Words = planes ^ self.draw(d, tag, "code").words(shape)
            yield Round(send={self.next: [code]})
            return code
        if self.role(d) == FIRST:
            got = yield Round(recv={d: [shape]})
            return got[d][0]
        yield Round()
        return self.draw(d, tag, "code").words(shape)

    def _known(self, x: Share) -> Words:
        """U = x_d + x_{d+1} at the dealer, v = x_{d+2} at the two others."""
        role = self.role(self.dealer)
        return (
            x.data[0] + x.data[1]
            if role == DEALER
            else np.ascontiguousarray(x.data[1 if role == FIRST else 0])
        )

    @declared(lambda self, x, bits=64: self._negative_cost(x.size, bits))
    def is_negative(self, x: Share, bits: int = 64) -> Op[Share]:
        """Top bit of `bits`: 2 + log2(bits / 4) rounds; for 64 bits 52 bytes an element sent by all together.

        The dealer knows u = x_d + x_{d+1}, the others know v = x_{d+2}. The top bit of u + v is u's and v's
        top bits and the carry into them; carries of four bits come from one product (see `circuits`), the
        rest from a tree.
        """
        require_one_dimension(x, "is_negative")
        if not 2 <= bits <= 64:
            raise ProtocolError(f"a comparison over {bits} bits: it must be over 2 to 64")
        role = self.role(self.dealer)
        groups, words = _nibbles(bits - 1), packed_words(x.size)
        planes = bitplanes.to_planes(self._known(x), bits)
        top = planes[bits - 1]
        low = np.empty((groups * circuits.NIBBLE, words), dtype=np.uint64)
        low[: bits - 1] = planes[: bits - 1]
        # Beyond the number's bits, u is all ones and v all zeros, so a carry runs through.
        low[bits - 1 :] = ~np.uint64(0) if role == DEALER else 0
        code = None
        if role == DEALER:
            code = np.empty((circuits.ONE_HOT * groups + 1, words), dtype=np.uint64)
            circuits.nibble_one_hot(low, code[:-1])
            code[-1] = top
        shared = yield from self._deal_planes(code, (circuits.ONE_HOT * groups + 1, words))
        leaves = np.zeros((2, groups, words), dtype=np.uint64)
        if role != DEALER:
            circuits.nibble_carry_leaves(shared[:-1], low, role == FIRST, leaves[0], leaves[1])
        pair = yield from self.reduce(Product(BITS, leaves[None]))
        carry = yield from circuits.carry_tree(self, *(Share(BITS, pair.data[:, i]) for i in range(2)))
        # u's top bit has components d and d+1, v's is component d+2.
        u_top = shared[-1]
        tops = {DEALER: (u_top ^ top, u_top), FIRST: (u_top, top)}.get(role, (top, u_top))
        return Share(BITS, carry.data ^ np.stack(tops))

    def _code_cost(self, planes: int, words: int) -> Cost:
        sent = [0, 0, 0]
        sent[self.dealer] = planes * words * WORD_BYTES
        return Cost(1, tuple(sent))

    def _negative_cost(self, count: int, bits: int) -> Cost:
        groups, words = _nibbles(bits - 1), packed_words(count)
        leaves = self.cost("reduce", self.spec((2, groups, words), domain=BITS, product=True))
        code = self._code_cost(circuits.ONE_HOT * groups + 1, words)
        return code + leaves + circuits.carry_tree_cost(self, groups, words)

    @declared(lambda self, x: self._zero_cost(x.size))
    def is_zero(self, x: Share) -> Op[Share]:
        """[u = -v] by nibbles, then an AND tree: 6 rounds; 42 bytes an element sent by all together."""
        require_one_dimension(x, "is_zero")
        role = self.role(self.dealer)
        groups, words = _nibbles(64), packed_words(x.size)
        known = self._known(x)
        planes = bitplanes.to_planes(known if role == DEALER else np.negative(known))
        code = None
        if role == DEALER:
            code = np.empty((circuits.ONE_HOT * groups, words), dtype=np.uint64)
            circuits.nibble_one_hot(planes, code)
        shared = yield from self._deal_planes(code, (circuits.ONE_HOT * groups, words))
        leaves = np.zeros((groups, words), dtype=np.uint64)
        if role != DEALER:
            circuits.nibble_equal_leaves(shared, planes, role == FIRST, leaves)
        nibbles = yield from self.reduce(Product(BITS, leaves[None]))
        equal: Share = yield from circuits.and_tree(self, nibbles)
        return equal

    def _zero_cost(self, count: int) -> Cost:
        groups, words = _nibbles(64), packed_words(count)
        leaves = self.cost("reduce", self.spec((groups, words), domain=BITS, product=True))
        code = self._code_cost(circuits.ONE_HOT * groups, words)
        return code + leaves + circuits.and_tree_cost(self, groups, words)

    # -- moving rows -----------------------------------------------------------------------------------------

    @declared(shuffling.shuffle_cost)
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """Three hops, each by a pair of parties: 3 rounds, 4 words an element in all; see `shuffling`."""
        return shuffling.shuffle(self, columns)

    def each(self, rounds: int, words: int) -> Cost:
        """The cost of `words` sent by every party."""
        return Cost(rounds, (words * WORD_BYTES,) * 3)


def _seeded(seed: Words) -> Stream:
    """What a component is drawn from that an owner dealt as a seed."""
    return Stream(seed.tobytes(), b"input")


def _factors(x: Share, y: Share) -> list[Words]:
    """The data of two factors, aligned; raises ProtocolError where a product would be meaningless."""
    require_full("a product", x, y)
    if x.domain is not y.domain:
        raise ProtocolError(f"a sharing in {x.domain} cannot be multiplied by one in {y.domain}; convert one")
    return align(x, y)


def _components(data: Words) -> list[Words]:
    return [np.ascontiguousarray(component) for component in data]


def _nibbles(bits: int) -> int:
    return -(-bits // circuits.NIBBLE)
