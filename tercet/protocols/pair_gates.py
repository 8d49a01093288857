"""Pair gates: functions of a value among four parties, of which each pair knows one summand.

A value is x = u + v, where u = x_i + x_j is known to parties g and h, and v = x_g + x_h to parties i and j.
Each pair works out functions A_k(u) and B_k(v) in the clear, and shares them jointly (see `rep4`), in two
components each: A_i, A_j and B_g, B_h. A sum of products A_k B_k is then four cross terms, of which the one
of components a and b is known to the two parties that are neither a nor b; they share it jointly again. So
whatever is bilinear in functions of u and of v takes 2 rounds, without a dealer, a mask or an opening, and 4
words for each result. What depends on u or v alone the pairs add as summands of their own.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from tercet.compiled import BOOLEAN, kernel
from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits, joint
from tercet.protocols.base import Cost, Op, Share, require_full
from tercet.protocols.domains import BITS, WORD_BITS, Z64, Domain, Words, packed_words
from tercet.protocols.fourier import Series, union
from tercet.protocols.harmonics import angle_coefficients, deal_harmonics
from tercet.protocols.joint import Components, Pair
from tercet.protocols.kernels import IN2, OUT2

if TYPE_CHECKING:
    from tercet.protocols.rep4 import Rep4


class PairGate(abc.ABC):
    """One kind of pair gate.

    `domain` is that of the functions and of what comes out; `lefts` and `rights` are the numbers of functions
    of u and of v, `results` that of sums of products.
    """

    domain: Domain = Z64
    lefts: int
    rights: int
    results: int
    own: bool = False
    """Whether the pairs have summands of their own."""

    def width(self, count: int) -> int:
        """Words of one function of `count` elements."""
        return count

    @abc.abstractmethod
    def left(self, u: Words, count: int) -> Words:
        """Functions of u, `(lefts, width)`."""

    @abc.abstractmethod
    def right(self, v: Words, count: int) -> Words:
        """Functions of v, `(rights, width)`."""

    @abc.abstractmethod
    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """Write the sums of products of a component of each side, `(results, width)`.

        `ones` says which of the two components carry public terms.
        """

    def summand(self, known: Words, out: Words, *, left: bool) -> None:
        """Write what a pair adds of its own, `(results, width)`."""
        raise NotImplementedError


def run(protocol: Rep4, x: Share, count: int, gate: PairGate) -> Op[tuple[Words, Components]]:
    """The results of a gate on a full sharing, `(3, results, width)`, and the components of A and of B.

    The latter, `(functions, width)` each, are those of `A + B` where both have as many functions. 2 rounds.
    Cost: `gate_cost`.
    """
    require_full("a gate", x)
    roles, width = joint.pairs(protocol.dealer), gate.width(count)
    left, right = roles[0], roles[2]
    at_left = protocol.party in left[:2]
    mine = left if at_left else right
    components = protocol.components(x.data)
    known: Words = x.domain.add(components[mine.receiver], components[mine.other]).reshape(-1)
    functions = (gate.left if at_left else gate.right)(known, count)
    lefts, rights = yield from joint.deal(
        protocol,
        gate.domain,
        (left, functions if at_left else None, (gate.lefts, width)),
        (right, None if at_left else functions, (gate.rights, width)),
    )
    terms = np.empty((3, gate.results, width), dtype=np.uint64)
    crossing = _crossing(gate, roles)
    for pair in crossing:
        if protocol.party not in pair[:2]:
            continue
        term = terms[joint.place(protocol.party, pair)]
        if pair in (left, right):
            gate.summand(known, term, left=pair is left)
        else:
            a, b = pair[2:] if pair.receiver in lefts else (pair.other, pair.receiver)
            gate.cross(lefts[a], rights[b], term, (a == left.receiver, b == right.receiver))
    made = yield from joint.deal_sum(protocol, gate.domain, crossing, terms)
    return made, {**lefts, **rights}


def gate_cost(protocol: Rep4, count: int, gate: PairGate) -> Cost:
    """Cost of `run`."""
    roles, width = joint.pairs(protocol.dealer), gate.width(count)
    dealt = joint.cost(([roles[0]], (gate.lefts, width)), ([roles[2]], (gate.rights, width)))
    return dealt + joint.cost((_crossing(gate, roles), (gate.results, width)))


def _crossing(gate: PairGate, roles: Sequence[Pair]) -> list[Pair]:
    """The pairs that share something in the second round."""
    return [pair for number, pair in enumerate(roles) if gate.own or number not in (0, 2)]


# -- numbers -------------------------------------------------------------------------------------------------


@attrs.frozen
class Truncation(PairGate):
    """Division by 2**bits for |x| < 2^62: the integer below or the one above.

    On x + 2^62, `(u >> f) + (v >> f) + 1 - w 2^(64-f)`, where the sum wraps but if neither top bit is set: `w
    = 1 - (1 - msb u)(1 - msb v)`. What is cut off of u does not carry into that of v with the chance
    of what is cut off of x, and 2^-f more, for u is uniform.
    """

    bits: int = attrs.field()

    lefts = rights = results = 1
    own = True

    @bits.validator
    def _in_range(self, _: object, bits: int) -> None:
        if not 1 <= bits <= WORD_BITS - 2:
            raise ProtocolError(f"a truncation by {bits} bits: it must be by 1 to 62")

    def left(self, u: Words, count: int) -> Words:
        """`1 - msb u`, of u lifted by 2^62."""
        return _no_top(u + _LIFT, count)

    def right(self, v: Words, count: int) -> Words:
        """`1 - msb v`."""
        return _no_top(v, count)

    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """What wraps is taken off."""
        _ = ones
        np.multiply(left, right, out=out)
        np.left_shift(out, np.uint64(WORD_BITS - self.bits), out=out)

    def summand(self, known: Words, out: Words, *, left: bool) -> None:
        """The part of each side, and the constants."""
        shift = np.uint64(self.bits)
        if not left:
            np.right_shift(known, shift, out=out[0])
            return
        constant = (1 - (1 << (WORD_BITS - self.bits)) - (1 << (WORD_BITS - 2 - self.bits))) % 2**WORD_BITS
        np.add(known, _LIFT, out=out[0])
        np.right_shift(out[0], shift, out=out[0])
        np.add(out[0], np.uint64(constant), out=out[0])


_LIFT = np.uint64(1 << 62)


def _no_top(words: Words, count: int) -> Words:
    _ = count
    return ((words >> np.uint64(63)) ^ np.uint64(1))[None]


class BitsToRing(PairGate):
    """Packed bits u ^ v to 0 and 1 in the ring: `u + v - 2 u v`, of which this is the product."""

    lefts = rights = results = 1

    def left(self, u: Words, count: int) -> Words:
        """The bits of u as numbers."""
        return bitplanes.unpack_bits(u, count).astype(np.uint64)[None]

    def right(self, v: Words, count: int) -> Words:
        """The bits of v as numbers."""
        return self.left(v, count)

    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """`-2 u v`."""
        _ = ones
        np.multiply(left, right, out=out)
        np.left_shift(out, np.uint64(1), out=out)
        np.negative(out, out=out)


class Fourier(PairGate):
    """Public functions given as Fourier series of one period, at u + v by the angle addition formulas.

    The left pair deals cosine and sine of each harmonic of -u, the right one what they are multiplied by: for
    each function `a cos + b sin` and `a sin - b cos` at v (see `harmonics`).
    """

    def __init__(
        self, series: Sequence[Series], *, scale: int, dealt_bits: int, coefficient_bits: int
    ) -> None:
        self._union = union(*series)
        self._period_bits = scale + self._union.period_log2
        if not 0 < self._period_bits < WORD_BITS:
            raise ProtocolError(
                f"a period of 2^{self._period_bits} ring units does not fit the ring; lower the scale"
            )
        self._dealt_bits = dealt_bits
        self._coefficient_bits = coefficient_bits
        self.lefts = self._union.dealt
        self.results = len(series)
        self.rights = self.lefts * self.results

    def constant(self, function: int, shape: tuple[int, ...]) -> Words:
        """The constant term of a function, at the scale of the results."""
        constants = self._union.constants(self._dealt_bits + self._coefficient_bits)
        return np.full(shape, constants[function], dtype=np.uint64)

    def left(self, u: Words, count: int) -> Words:
        """Cosine and sine of every harmonic."""
        out = np.zeros((self.lefts, count), dtype=np.uint64)
        return deal_harmonics(np.negative(u), self._period_bits, self._union.harmonics, self._dealt_bits, out)

    def right(self, v: Words, count: int) -> Words:
        """What they are multiplied by."""
        coefficients = angle_coefficients(
            v, self._period_bits, self._union.harmonics, *self._union.weights(), self._coefficient_bits
        )
        return coefficients.reshape(self.rights, count)

    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """The sum over all harmonics."""
        _ = ones
        _weigh(left, right, out)


@kernel(IN2, IN2, OUT2)
def _weigh(left: Words, right: Words, out: Words) -> None:
    """`out[f] = sum_k left[k] right[f K + k]`, in blocks that stay in the cache."""
    terms, step = left.shape[0], 512
    for start in range(0, out.shape[1], step):
        stop = min(start + step, out.shape[1])
        for f in range(out.shape[0]):
            total = out[f, start:stop]
            total[:] = 0
            for k in range(terms):
                a, b = left[k, start:stop], right[f * terms + k, start:stop]
                for i in range(stop - start):
                    total[i] += a[i] * b[i]


# -- comparisons ---------------------------------------------------------------------------------------------
# Codes of nibbles, [nibble = a] for a = 1 to 15, are shared by both sides; that of 0 is 1 less all of them.


class Carries(PairGate):
    """Carry and propagate bits of each nibble of u + v below bit `bits - 1`, as packed planes.

    `A + B` ends with the top bits of u and v.
    """

    domain = BITS

    def __init__(self, bits: int) -> None:
        if not 2 <= bits <= WORD_BITS:
            raise ProtocolError(f"a comparison over {bits} bits: it must be over 2 to 64")
        self._bits = bits
        self.groups = -(-(bits - 1) // circuits.NIBBLE)
        self.lefts = self.rights = circuits.ONE_HOT * self.groups + 1
        self.results = 2 * self.groups

    def width(self, count: int) -> int:
        """A plane packs 64 elements in a word."""
        return packed_words(count)

    def _code(self, words: Words, padding: np.uint64) -> Words:
        planes = bitplanes.to_planes(words, self._bits)
        low = np.full((self.groups * circuits.NIBBLE, planes.shape[1]), padding)
        low[: self._bits - 1] = planes[:-1]
        code = np.empty((self.lefts, planes.shape[1]), dtype=np.uint64)
        circuits.nibble_one_hot(low, code[:-1])
        code[-1] = planes[-1]
        return code

    def left(self, u: Words, count: int) -> Words:
        """Codes, and the top bit; beyond the number's bits ones, so that a carry runs through."""
        _ = count
        return self._code(u, ~np.uint64(0))

    def right(self, v: Words, count: int) -> Words:
        """Codes, and the top bit; zeros beyond the number's bits."""
        _ = count
        return self._code(v, np.uint64(0))

    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """[u + v >= 16] and [u + v = 15], of a component of each code."""
        _carry_terms(left[:-1], right[:-1], *ones, out[: self.groups], out[self.groups :])


class Equalities(PairGate):
    """Whether nibbles of u and -v agree, as packed planes: x = u + v is zero if all do."""

    domain = BITS
    results = WORD_BITS // circuits.NIBBLE
    lefts = rights = circuits.ONE_HOT * results

    def width(self, count: int) -> int:
        """A plane packs 64 elements in a word."""
        return packed_words(count)

    def left(self, u: Words, count: int) -> Words:
        """Codes of u."""
        _ = count
        planes = bitplanes.to_planes(u)
        code = np.empty((self.lefts, planes.shape[1]), dtype=np.uint64)
        circuits.nibble_one_hot(planes, code)
        return code

    def right(self, v: Words, count: int) -> Words:
        """Codes of -v."""
        return self.left(np.negative(v), count)

    def cross(self, left: Words, right: Words, out: Words, ones: tuple[bool, bool]) -> None:
        """[u = -v], of a component of each code."""
        _equal_terms(left, right, *ones, out)


@kernel(IN2, IN2, BOOLEAN, BOOLEAN, OUT2, OUT2)
def _carry_terms(
    left: Words, right: Words, left_one: bool, right_one: bool, generate: Words, propagate: Words
) -> None:
    ones, none = ~np.uint64(0), np.uint64(0)
    for g in range(generate.shape[0]):
        o = 15 * g
        for j in range(generate.shape[1]):
            u1, u2, u3 = left[o, j], left[o + 1, j], left[o + 2, j]
            u4, u5, u6, u7 = left[o + 3, j], left[o + 4, j], left[o + 5, j], left[o + 6, j]
            u8, u9, u10, u11 = left[o + 7, j], left[o + 8, j], left[o + 9, j], left[o + 10, j]
            u12, u13, u14, u15 = left[o + 11, j], left[o + 12, j], left[o + 13, j], left[o + 14, j]
            v1, v2, v3 = right[o, j], right[o + 1, j], right[o + 2, j]
            v4, v5, v6, v7 = right[o + 3, j], right[o + 4, j], right[o + 5, j], right[o + 6, j]
            v8, v9, v10, v11 = right[o + 7, j], right[o + 8, j], right[o + 9, j], right[o + 10, j]
            v12, v13, v14, v15 = right[o + 11, j], right[o + 12, j], right[o + 13, j], right[o + 14, j]
            # [u = a] [v >= 16 - a], for a = 1 to 15
            most = v15
            carry = u1 & most
            most ^= v14
            carry ^= u2 & most
            most ^= v13
            carry ^= u3 & most
            most ^= v12
            carry ^= u4 & most
            most ^= v11
            carry ^= u5 & most
            most ^= v10
            carry ^= u6 & most
            most ^= v9
            carry ^= u7 & most
            most ^= v8
            carry ^= u8 & most
            most ^= v7
            carry ^= u9 & most
            most ^= v6
            carry ^= u10 & most
            most ^= v5
            carry ^= u11 & most
            most ^= v4
            carry ^= u12 & most
            most ^= v3
            carry ^= u13 & most
            most ^= v2
            carry ^= u14 & most
            most ^= v1
            carry ^= u15 & most
            # [u = a] [v = 15 - a], for a = 0 to 15
            u0 = (ones if left_one else none) ^ u1 ^ u2 ^ u3 ^ u4 ^ u5 ^ u6 ^ u7
            u0 ^= u8 ^ u9 ^ u10 ^ u11 ^ u12 ^ u13 ^ u14 ^ u15
            v0 = (ones if right_one else none) ^ most
            equal = (u0 & v15) ^ (u1 & v14) ^ (u2 & v13) ^ (u3 & v12) ^ (u4 & v11) ^ (u5 & v10) ^ (u6 & v9)
            equal ^= (u7 & v8) ^ (u8 & v7) ^ (u9 & v6) ^ (u10 & v5) ^ (u11 & v4) ^ (u12 & v3) ^ (u13 & v2)
            generate[g, j] = carry
            propagate[g, j] = equal ^ (u14 & v1) ^ (u15 & v0)


@kernel(IN2, IN2, BOOLEAN, BOOLEAN, OUT2)
def _equal_terms(left: Words, right: Words, left_one: bool, right_one: bool, equal: Words) -> None:
    ones, none = ~np.uint64(0), np.uint64(0)
    for g in range(equal.shape[0]):
        o = 15 * g
        for j in range(equal.shape[1]):
            u1, u2, u3 = left[o, j], left[o + 1, j], left[o + 2, j]
            u4, u5, u6, u7 = left[o + 3, j], left[o + 4, j], left[o + 5, j], left[o + 6, j]
            u8, u9, u10, u11 = left[o + 7, j], left[o + 8, j], left[o + 9, j], left[o + 10, j]
            u12, u13, u14, u15 = left[o + 11, j], left[o + 12, j], left[o + 13, j], left[o + 14, j]
            v1, v2, v3 = right[o, j], right[o + 1, j], right[o + 2, j]
            v4, v5, v6, v7 = right[o + 3, j], right[o + 4, j], right[o + 5, j], right[o + 6, j]
            v8, v9, v10, v11 = right[o + 7, j], right[o + 8, j], right[o + 9, j], right[o + 10, j]
            v12, v13, v14, v15 = right[o + 11, j], right[o + 12, j], right[o + 13, j], right[o + 14, j]
            u0 = (ones if left_one else none) ^ u1 ^ u2 ^ u3 ^ u4 ^ u5 ^ u6 ^ u7
            u0 ^= u8 ^ u9 ^ u10 ^ u11 ^ u12 ^ u13 ^ u14 ^ u15
            v0 = (ones if right_one else none) ^ v1 ^ v2 ^ v3 ^ v4 ^ v5 ^ v6 ^ v7
            v0 ^= v8 ^ v9 ^ v10 ^ v11 ^ v12 ^ v13 ^ v14 ^ v15
            same = (u0 & v0) ^ (u1 & v1) ^ (u2 & v2) ^ (u3 & v3) ^ (u4 & v4) ^ (u5 & v5) ^ (u6 & v6)
            same ^= (u7 & v7) ^ (u8 & v8) ^ (u9 & v9) ^ (u10 & v10) ^ (u11 & v11) ^ (u12 & v12)
            equal[g, j] = same ^ (u13 & v13) ^ (u14 & v14) ^ (u15 & v15)


__all__ = ["BitsToRing", "Carries", "Equalities", "Fourier", "PairGate", "Truncation", "gate_cost", "run"]
