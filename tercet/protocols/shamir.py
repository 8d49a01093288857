"""Shamir's protocol for 3, 5 or 7 parties, fewer than half of them corrupted.

Numbers are shared modulo 2^127 - 1, bits in the field of eight elements (see `shamir_sharing`). A product has
twice the degree, and one round, in which every party deals its summand anew, brings it back (Gennaro, Rabin,
Rabin 1998). What is not linear is done on an opened value under masks: t + 1 dealers add a mask each, so that
nobody knows the sum, and deal what is needed of it. A mask is 125 bits long (124 among seven parties), so the
openings of two 62-bit numbers can be told apart with a chance of 2^-62. All parties learn the masked value,
and what was dealt comes as full sharings, so such an opening takes one round.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits, kernels
from tercet.protocols.base import (
    Cost,
    Op,
    Product,
    Round,
    Shape,
    Share,
    align,
    declared,
    gather,
    require_full,
    require_one_dimension,
)
from tercet.protocols.domains import BITS, WORD_BITS, WORD_BYTES, Z64, Words, packed_words
from tercet.protocols.fourier import Harmonics, Series, union
from tercet.protocols.gf8 import GF8
from tercet.protocols.harmonics import angle_coefficients, deal_harmonics
from tercet.protocols.mersenne import MERSENNE, PRIME
from tercet.protocols.prg import KEY_BYTES, Stream
from tercet.protocols.shamir_sharing import Polynomials, field_of, total
from tercet.protocols.together import permute_columns

OFFSET_BITS: Final = 120
"""2 to this power is added to a number that is opened, so that it is positive; masks leave room for it."""
HALF: Final = pow(2, -1, PRIME)
GUARD_BITS: Final = {2: 2, 3: 4, 4: 5}
"""More fractional bits for dealt cosines and sines, by the number of dealers whose angles are added: products
and truncations on the way then err by no more than a dealt value that is used as it comes."""
HIDING: Final = 56
"""Bits by which a mask has to be longer than what it hides."""
BLOCK: Final = 1 << 10
_SEED: Final = (KEY_BYTES // WORD_BYTES,)


class Shamir(Polynomials):
    """Any minority of 3, 5 or 7 parties may be corrupt; semi-honest."""

    name: ClassVar[str] = "shamir"
    sizes: ClassVar[tuple[int, ...]] = (3, 5, 7)
    shuffles_together: ClassVar[bool] = True

    @property
    def truncation_error(self) -> int:
        """`ceil(3/2 + t/2) - 1`: see `truncate`."""
        return (self.degree + 2) // 2

    @property
    def truncation_bias(self) -> float:
        """Rounding halves up adds 1/2 to the opened sum and takes it away with each of t + 1 masks."""
        return self.degree / 2

    # -- products --------------------------------------------------------------------------------------------

    def mul_local(self, x: Share, y: Share) -> Product:
        """The product of the values, of degree 2 t."""
        require_full("a product", x, y)
        if x.domain is not y.domain:
            raise ProtocolError(
                f"a sharing in {x.domain} cannot be multiplied by one in {y.domain}; convert one"
            )
        return Product(x.domain, field_of(x.domain).multiply(*align(x, y)), x.scale + y.scale)

    def matmul_local(self, x: Share, y: Share) -> Product:
        """Summed before it is reduced modulo p."""
        require_full("a product", x, y)
        return Product(Z64, MERSENNE.matmul(x.data, y.data), x.scale + y.scale)

    def dot_local(self, x: Share, y: Share) -> Product:
        """Summed before it is reduced modulo p."""
        require_full("a product", x, y)
        return Product(Z64, MERSENNE.dot(x.data, y.data), x.scale + y.scale)

    @declared(lambda self, x: self.share_out_cost(self.everyone, self.words(x)))
    def reduce(self, x: Share) -> Op[Share]:
        """Every party deals its Lagrange summand: 1 round, t elements (Gennaro, Rabin, Rabin 1998)."""
        field = field_of(x.domain)
        weight = field.weights(tuple(party + 1 for party in self.everyone))[self.party]
        summand = field.combine([weight], [x.data])
        dealt = yield from self.share_out(self.tag(), self.everyone, [(field, x.shape)], [summand])
        return Share(x.domain, total(field, dealt), x.scale)

    # -- masked openings -------------------------------------------------------------------------------------

    @property
    def _mask_bits(self) -> int:
        """The sum of t + 1 masks of so many bits and of twice the offset is below p."""
        return ((PRIME - (2 << OFFSET_BITS)) // len(self.dealers)).bit_length() - 1

    def _speakers(self, x: Share) -> tuple[int, ...]:
        return self.everyone if isinstance(x, Product) else self.dealers

    def _mask(self, tag: str, shape: Shape) -> Words | None:
        """A dealer's mask; None at the other parties."""
        if self.party not in self.dealers:
            return None
        return MERSENNE.below(self._mask_bits, self.own_stream(tag, "mask"), shape)

    def _announce_masked(self, tag: str, x: Share, mask: Words | None) -> Op[Words]:
        """`x + 2^OFFSET_BITS` and all masks: a positive integer. For |x| < 2^OFFSET_BITS."""
        if x.domain is not Z64:
            raise ProtocolError(f"a number was expected, not a sharing in {x.domain}; convert it first")
        if self.party == self.dealer and mask is not None:
            mask = MERSENNE.add(mask, MERSENNE.scalar(1 << OFFSET_BITS, x.shape))
        return self.announce(tag, self._speakers(x), x, mask)

    @declared(lambda self, x, *_: self._truncate_cost(x))
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """1 round; errs by less than `1 + t/2` units in the last place, and by `t / 2^(bits+1)` on average.

        Each dealer deals its mask, rounded. The opened sum, rounded, less those is the value but for what was
        rounded off the masks, half a unit each at most, and off the sum.
        """
        if not 1 <= bits < OFFSET_BITS:
            raise ProtocolError(f"a truncation by {bits} bits: it must be by 1 to {OFFSET_BITS - 1}")
        tag = self.tag()
        mask = self._mask(tag, x.shape)
        rounded = [] if mask is None else [MERSENNE.shift(mask, bits)]
        opened, dealt = yield from gather(
            self._announce_masked(tag, x, mask),
            self.share_out(tag, self.dealers, [(MERSENNE, x.shape)], rounded),
        )
        offset = MERSENNE.scalar(1 << OFFSET_BITS - bits, x.shape)
        public = MERSENNE.subtract(MERSENNE.shift(opened, bits), offset)
        return Share(Z64, MERSENNE.subtract(public, total(MERSENNE, dealt)), x.scale - bits)

    def _truncate_cost(self, x: Share) -> Cost:
        words = self.words(x)
        return self.announce_cost(self._speakers(x), words) | self.share_out_cost(self.dealers, words)

    # -- Fourier series --------------------------------------------------------------------------------------

    @declared(lambda self, x, series, **bits: self._fourier_cost(x, union(*series), **bits))
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """2 rounds among 3 parties, else 3.

        Every dealer deals cosines and sines of its mask. Those of the sum of masks are products of complex
        numbers; the last of them and the coefficients, which depend on the opened value, make a product that
        is truncated to the wanted scale, a digit of the coefficients at a time.
        """
        harmonics, tag = union(*series), self.tag()
        period_bits = x.scale + harmonics.period_log2
        if not 0 < period_bits < WORD_BITS:
            raise ProtocolError(f"a period of 2^{period_bits} units does not fit a word; lower the scale")
        fine, places = self._precision(harmonics, dealt_bits, coefficient_bits)
        shape = (harmonics.dealt, x.size)
        mask, turns = self._mask(tag, x.shape), []
        if mask is not None:
            dealt = np.zeros(shape, dtype=np.uint64)
            deal_harmonics(mask[0].reshape(-1), period_bits, harmonics.harmonics, fine, dealt)
            turns = [MERSENNE.encode(dealt)]
        opened, shares = yield from gather(
            self._announce_masked(tag, x, mask), self.share_out(tag, self.dealers, [(MERSENNE, shape)], turns)
        )
        factors = [shares[dealer][0] for dealer in self.dealers]
        while len(factors) > 2:
            pairs = [Product(Z64, _turned(a, b)) for a, b in zip(factors[::2], factors[1::2], strict=False)]
            joined = yield from gather(*(self.truncate(pair, fine) for pair in pairs))
            factors = [*(share.data for share in joined), *factors[2 * len(joined) :]]
        angles = opened[0].reshape(-1)
        digits = _weighed(factors, angles, period_bits, harmonics, coefficient_bits, places)
        cuts = [2 * fine - dealt_bits - place for place in places]
        parts = yield from gather(*map(self.truncate, digits, cuts))
        scale = dealt_bits + coefficient_bits
        made = functools.reduce(self.add, (part.like(part.data, scale=scale) for part in parts))
        made = self.add_public(made, harmonics.constants(scale)[:, None])
        return [made.like(made.data[:, i].reshape(2, *x.shape)) for i in range(len(series))]

    def _precision(self, harmonics: Harmonics, dealt_bits: int, coefficient_bits: int) -> tuple[int, range]:
        """Fractional bits of what dealers deal, and the places of the digits of coefficients.

        The product with a coefficient has to leave HIDING bits of a mask. One that does not is cut into
        digits that do, summed over all harmonics.
        """
        fine = dealt_bits + GUARD_BITS[len(self.dealers)]
        largest = max(1.0, *(one.coefficient_sum for one in harmonics.series))
        width = coefficient_bits + 1 + math.ceil(math.log2(largest))
        digit = room = self._mask_bits - HIDING - 2 * fine
        if width > room:
            digit -= harmonics.dealt.bit_length()
        if digit < 1 or (width - 1) // digit * digit >= 2 * fine - dealt_bits:
            raise ProtocolError(
                f"dealt values of {dealt_bits} and coefficients of {coefficient_bits} fractional bits are "
                f"more than masks of {self._mask_bits} bits hide among {self.parties} parties; use fewer"
            )
        return fine, range(0, width, digit)

    def _fourier_cost(self, x: Share, harmonics: Harmonics, dealt_bits: int, coefficient_bits: int) -> Cost:
        shape, count = (harmonics.dealt, x.size), len(self.dealers)
        cost = self.announce_cost(self._speakers(x), self.words(x))
        cost = cost | self.share_out_cost(self.dealers, 2 * math.prod(shape))
        while count > 2:
            pairs = [self.cost("truncate", self.spec(shape, product=True), 1)] * (count // 2)
            cost = cost + functools.reduce(Cost.__or__, pairs)
            count -= count // 2
        _, places = self._precision(harmonics, dealt_bits, coefficient_bits)
        results = self.spec((len(places), len(harmonics.series), x.size), product=True)
        return cost + self.cost("truncate", results, 1)

    # -- bits ------------------------------------------------------------------------------------------------

    @declared(lambda self, x, count: self._bits_to_ring_cost(x, count))
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """2 rounds among 3 parties, else 3: `b = (1 - e s_0 ... s_t) / 2`.

        Here e is the opened bit and s_i are the dealers' mask bits, each as 1 or -1.
        """
        require_one_dimension(x, "bits_to_ring")
        if x.size != packed_words(count):
            raise ProtocolError(f"{count} packed bits are {packed_words(count)} words, not {x.size}")
        tag, signs, mask = self.tag(), list[Words](), None
        if self.party in self.dealers:
            mask = GF8.uniform(self.own_stream(tag, "mask"), x.shape)
            signs = [MERSENNE.encode(_signs(GF8.decode(mask), count))]
        opened, dealt = yield from gather(
            self.announce(tag, self.dealers, x, mask),
            self.share_out(tag, self.dealers, [(MERSENNE, (count,))], signs),
        )
        factors = [Share(Z64, dealt[dealer][0]) for dealer in self.dealers]
        while len(factors) > 2:
            pairs = zip(factors[::2], factors[1::2], strict=False)
            joined = yield from gather(*(self.mul(a, b) for a, b in pairs))
            factors = [*joined, *factors[2 * len(joined) :]]
        product = self.mul_public(self.mul_local(*factors), _signs(GF8.decode(opened), count))
        halved = MERSENNE.combine([PRIME - HALF], [product.data])
        bit = product.like(MERSENNE.add(halved, MERSENNE.scalar(HALF, (1,))))
        return (yield from self.reduce(bit))

    def _bits_to_ring_cost(self, x: Share, count: int) -> Cost:
        factors = len(self.dealers)
        cost = self.announce_cost(self.dealers, self.words(x))
        cost = cost | self.share_out_cost(self.dealers, 2 * count)
        product = self.cost("reduce", self.spec((count,), product=True))
        while factors > 2:
            cost = cost + functools.reduce(Cost.__or__, [product] * (factors // 2))
            factors -= factors // 2
        return cost + product

    def _carry_save(self, x: Share, bits: int) -> Op[tuple[Share, Share]]:
        """Planes `(bits, words)` of two numbers whose sum is x, modulo 2^bits.

        x is the opened value less t + 1 masks, whose bits their dealers deal. Each round of carry-save adders
        makes two numbers of three (Wallace 1964).
        """
        tag, shape = self.tag(), (bits, packed_words(x.size))
        mask, planes = self._mask(tag, x.shape), []
        if mask is not None:
            planes = [GF8.encode(bitplanes.to_planes(np.negative(mask[0]), bits))]
        opened, dealt = yield from gather(
            self._announce_masked(tag, x, mask), self.share_out(tag, self.dealers, [(GF8, shape)], planes)
        )
        numbers = [Share(BITS, dealt[dealer][0]) for dealer in self.dealers]
        numbers.append(self.constant(bitplanes.to_planes(opened[0], bits), domain=BITS))
        while len(numbers) > 2:
            count = len(numbers) // 3 * 3
            triples = zip(*(numbers[i:count:3] for i in range(3)), strict=True)
            sums = yield from gather(*(self._add_three(*triple) for triple in triples))
            numbers = [*itertools.chain.from_iterable(sums), *numbers[count:]]
        return numbers[0], numbers[1]

    def _add_three(self, a: Share, b: Share, c: Share) -> Op[tuple[Share, Share]]:
        """Sum and carries of three numbers, modulo their width: 1 round, an AND for each bit but the last."""
        first, second = self.add(a, b), self.add(a, c)
        ands = yield from self.mul(_low(first), _low(second))
        carries = self.add(ands, _low(a))
        return self.add(first, c), _raised(carries)

    def _carry_save_cost(self, count: int, bits: int) -> Cost:
        words, numbers = packed_words(count), len(self.dealers) + 1
        cost = self.announce_cost(self.dealers, 2 * count)
        cost = cost | self.share_out_cost(self.dealers, 3 * bits * words)
        while numbers > 2:
            ands = [self._ands_cost(bits - 1, words)] * (numbers // 3)
            cost = cost + functools.reduce(Cost.__or__, ands)
            numbers -= numbers // 3
        return cost

    def _ands_cost(self, planes: int, words: int) -> Cost:
        ands = self.spec((planes, words), domain=BITS)
        return self.cost("mul", ands, ands)

    @declared(lambda self, x, bits=WORD_BITS: self._is_negative_cost(x, bits))
    def is_negative(self, x: Share, bits: int = WORD_BITS) -> Op[Share]:
        """Top bit of a carry-save sum: 9 to 11 rounds for 64 bits."""
        require_one_dimension(x, "is_negative")
        if not 2 <= bits <= WORD_BITS:
            raise ProtocolError(f"a comparison over {bits} bits: it must be over 2 to 64")
        a, b = yield from self._carry_save(x, bits)
        either = self.add(a, b)
        generate = yield from self.mul(_low(a), _low(b))
        carry = yield from circuits.carry_tree(self, generate, _low(either))
        return self.add(either.like(either.data[:, -1]), carry)

    def _is_negative_cost(self, x: Share, bits: int) -> Cost:
        words = packed_words(x.size)
        cost = self._carry_save_cost(x.size, bits) + self._ands_cost(bits - 1, words)
        return cost + circuits.carry_tree_cost(self, bits - 1, words)

    @declared(lambda self, x: self._is_zero_cost(x))
    def is_zero(self, x: Share) -> Op[Share]:
        """Whether a carry-save sum is zero, without adding it up: 9 to 11 rounds.

        a + b = 0 modulo 2^64 just if at every place `a xor b` is `a or b` of the place below: while all bits
        of the sum are zero, a place carries if either bit is one.
        """
        require_one_dimension(x, "is_zero")
        a, b = yield from self._carry_save(x, WORD_BITS)
        both = yield from self.mul(_low(a), _low(b))
        either = self.add(a, b)
        carried = _raised(self.add(both, _low(either)))
        zeros = self.add_public(self.add(either, carried), np.full(either.shape, ~np.uint64(0)))
        return (yield from circuits.and_tree(self, zeros))

    def _is_zero_cost(self, x: Share) -> Cost:
        words = packed_words(x.size)
        cost = self._carry_save_cost(x.size, WORD_BITS) + self._ands_cost(WORD_BITS - 1, words)
        return cost + circuits.and_tree_cost(self, WORD_BITS, words)

    # -- moving rows -----------------------------------------------------------------------------------------

    @property
    def _hops(self) -> list[tuple[int, ...]]:
        """All sets of t + 1 parties: every t parties miss one of them."""
        return list(itertools.combinations(self.everyone, self.degree + 1))

    @declared(lambda self, columns: self._shuffle_cost(columns))
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """One hop for each set of t + 1 parties, who permute and deal anew (Laur, Willemson, Zhang 2011).

        C(n, t) rounds, and one before them if t > 1, in which each set agrees on the seed of its permutation.
        """
        require_full("shuffle", *columns)
        rows = columns[0].shape[-1]
        if any(column.shape[-1] != rows for column in columns):
            raise ProtocolError(
                f"columns of {[c.shape[-1] for c in columns]} rows cannot be shuffled together"
            )
        tag = self.tag()
        seeds = yield from self._agree(tag)
        fields = [field_of(column.domain) for column in columns]
        kinds = [(field, column.shape) for field, column in zip(fields, columns, strict=True)]
        moving = [column.data for column in columns]
        for number, hop in enumerate(self._hops):
            summands: list[Words] = []
            if self.party in hop:
                points = tuple(party + 1 for party in hop)
                weight = [field.weights(points)[hop.index(self.party)] for field in fields]
                moved = yield from self._permuted(moving, seeds[number])
                summands = [
                    field.combine([w], [data]) for field, w, data in zip(fields, weight, moved, strict=True)
                ]
            dealt = yield from self.share_out(self.tag(), hop, kinds, summands)
            moving = [total(field, dealt, index) for index, field in enumerate(fields)]
        return [column.like(data) for column, data in zip(columns, moving, strict=True)]

    def _permuted(self, columns: Sequence[Words], seed: Words) -> Op[list[Words]]:
        """Columns `(..., rows)` in an order that all who know the seed draw."""
        if self.team is None:
            order = kernels.permutation(Stream(seed.tobytes(), b"permutation").words(columns[0].shape[-1:]))
            return [np.take(data, order, axis=-1) for data in columns]
        draw: Callable[[str], Stream] = lambda use: Stream(seed.tobytes(), use.encode())  # noqa: E731
        return (yield from permute_columns(self, self.team, columns, draw))

    def _agree(self, tag: str) -> Op[dict[int, Words]]:
        """For every hop of a shuffle that this party is in, a seed that all in it know."""
        drawn: dict[int, Words] = {}
        send: dict[int, list[Words]] = {}
        recv: dict[int, list[int]] = {}
        for number, (first, second, *rest) in enumerate(self._hops):
            if self.party in (first, second):
                pair = second if self.party == first else first
                drawn[number] = self.stream(self.keys[pair], tag, f"hop {number}").words(_SEED)
            if self.party == first:
                for other in rest:
                    send.setdefault(other, []).append(drawn[number])
            if self.party in rest:
                recv.setdefault(first, []).append(number)
        if self.degree > 1:
            got = yield Round(send, {first: [_SEED] * len(numbers) for first, numbers in recv.items()})
            for first, numbers in recv.items():
                drawn.update(zip(numbers, got[first], strict=True))
        return drawn

    def _shuffle_cost(self, columns: Sequence[Share]) -> Cost:
        words = sum(self.words(column) for column in columns)
        cost = self.free()
        if self.degree > 1:
            told = [self._from([first], len(rest) * math.prod(_SEED)) for first, _, *rest in self._hops]
            cost = functools.reduce(Cost.__or__, told)
        return functools.reduce(Cost.__add__, [self.share_out_cost(hop, words) for hop in self._hops], cost)


def _turned(a: Words, b: Words) -> Words:
    """Products of complex numbers: cosines in the even rows of `(2, 2 K, n)`, sines in the odd ones."""
    product = np.empty(a.shape, dtype=np.uint64)
    (a_cos, a_sin), (b_cos, b_sin) = ((part[:, 0::2], part[:, 1::2]) for part in (a, b))
    multiply = MERSENNE.multiply
    product[:, 0::2] = MERSENNE.subtract(multiply(a_cos, b_cos), multiply(a_sin, b_sin))
    product[:, 1::2] = MERSENNE.add(multiply(a_sin, b_cos), multiply(a_cos, b_sin))
    return product


def _weighed(
    factors: Sequence[Words],
    angles: Words,
    period_bits: int,
    harmonics: Harmonics,
    coefficient_bits: int,
    places: range,
) -> list[Product]:
    """The product of two factors times coefficients at opened angles, summed: `(functions, n)` a digit."""
    digits = np.empty((len(places), 2, len(harmonics.series), angles.size), dtype=np.uint64)
    for start in range(0, angles.size, BLOCK):
        block = slice(start, start + BLOCK)
        weights = angle_coefficients(
            angles[block], period_bits, harmonics.harmonics, *harmonics.weights(), coefficient_bits
        )
        turned = _turned(*(factor[:, :, block] for factor in factors))[:, None]
        for digit, part in zip(digits, _digits(weights, places), strict=True):
            digit[:, :, block] = MERSENNE.sum(MERSENNE.multiply(turned, MERSENNE.encode(part)), axis=-2)
    return [Product(Z64, digit) for digit in digits]


def _digits(words: Words, places: range) -> Iterator[Words]:
    """Digits of signed integers, which begin at evenly spaced places; the last one has the sign."""
    signed = words.view(np.int64)
    for place in places[:-1]:
        yield (signed >> place & (1 << places.step) - 1).view(np.uint64)
    yield (signed >> places[-1]).view(np.uint64)


def _signs(bits: Words, count: int) -> Words:
    """-1 for each set bit, 1 for each other."""
    one_or_zero = bitplanes.unpack_bits(bits, count).astype(np.uint64)
    signs: Words = np.uint64(1) - one_or_zero - one_or_zero
    return signs


def _low(planes: Share) -> Share:
    """All planes but the top one."""
    return planes.like(planes.data[:, :-1])


def _raised(planes: Share) -> Share:
    """Every plane one place up."""
    return planes.like(np.concatenate([np.zeros_like(planes.data[:, :1]), planes.data], axis=1))


__all__ = ["Shamir"]
