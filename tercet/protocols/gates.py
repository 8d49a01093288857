"""Masked-opening gates: what a dealer prepares, and what two parties make of it and the masked value.

Truncation, bit-to-arithmetic and every Fourier function have one shape. A dealer knows a mask r and deals
additive halves of some values g(r). The two others open c = x + r, which tells them nothing, and combine the
halves linearly, with public coefficients that depend on c, into additive halves of f(x). A gate here is only
that pair of functions, over blocks of elements that fit the cache; how x is masked, who deals and how the
halves become a full sharing again is the protocol's business and is written once there.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import attrs
import numpy as np

from tercet.compiled import BOOLEAN, UINT64, kernel
from tercet.errors import ProtocolError
from tercet.protocols.domains import BITS, WORD_BITS, Z64, Domain, Words, packed_words
from tercet.protocols.fourier import Series, union
from tercet.protocols.harmonics import combine_harmonics, deal_harmonics
from tercet.protocols.kernels import IN, IN2, OUT, OUT2

BLOCK = 1 << 14
"""Elements per block: a multiple of 64, so that packed bits split evenly."""


class Gate(abc.ABC):
    """One kind of masked opening.

    `domain` is the domain in which x is masked, `dealt` the words dealt per element, `results` the words that
    come out per element.
    """

    domain: Domain = Z64
    dealt: int
    results: int

    def opened(self, count: int) -> int:
        """Words opened for `count` elements."""
        return count

    @abc.abstractmethod
    def deal(self, mask: Words, half: Words) -> None:
        """Replace `half`, of shape `(dealt, b)`, by `g(mask) - half`."""

    @abc.abstractmethod
    def combine(self, masked: Words, half: Words, out: Words, *, first: bool) -> None:
        """Write this party's summand of f(x), `(results, b)`, to `out`; `first` adds public terms."""


@attrs.frozen
class Truncation(Gate):
    """Division by 2**bits for |x| < 2^62, error at most one unit in the last place, never a large one.

    Dalskov, Escudero, Keller 2020. x + 2^62 is below 2^63, so the sum with the mask wraps exactly where the
    mask's top bit is one and the sum's is zero. The rounding bit depends on the dealer's mask (eprint
    2024/1127; see the threat model).
    """

    bits: int = attrs.field()

    dealt = 2
    results = 1

    @bits.validator
    def _in_range(self, _: object, bits: int) -> None:
        if not 1 <= bits <= 62:
            raise ProtocolError(f"a truncation by {bits} bits: it must be by 1 to 62")

    def deal(self, mask: Words, half: Words) -> None:
        """Deal `mask >> bits` and the mask's top bit."""
        _truncation_deal(mask, np.uint64(self.bits), half)

    def combine(self, masked: Words, half: Words, out: Words, *, first: bool) -> None:
        """`(c >> f) - (r >> f) + b m 2^(64-f) - 2^(62-f)`, m = 1 where c's top bit is zero."""
        _truncation_combine(masked, np.uint64(self.bits), half, first, out[0])


@attrs.frozen
class BitsToRing(Gate):
    """Packed bits to 0 and 1 in the ring: with e = b xor s open, `[b] = e + (1 - 2e) [s]`."""

    domain = BITS
    dealt = 1
    results = 1

    def opened(self, count: int) -> int:
        """One word for 64 elements."""
        return packed_words(count)

    def deal(self, mask: Words, half: Words) -> None:
        """Deal the mask's bits as ring elements."""
        _bits_deal(mask, half[0])

    def combine(self, masked: Words, half: Words, out: Words, *, first: bool) -> None:
        """Flip the dealt bit where the opened one is set."""
        _bits_combine(masked, half[0], first, out[0])


class Fourier(Gate):
    """Public functions given as Fourier series of one period (Boura et al. 2018).

    The dealer deals cosine and sine of every harmonic of the mask; angle addition with the opened value does
    the rest. The period is a power of two in ring units, so the mask is uniform over whole periods and hides
    x perfectly.
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
        self._weights = self._union.weights()
        self._constants = self._union.constants(dealt_bits + coefficient_bits)
        self.dealt = self._union.dealt
        self.results = len(series)

    def deal(self, mask: Words, half: Words) -> None:
        """Deal cosine and sine of every harmonic of the mask."""
        deal_harmonics(mask, self._period_bits, self._union.harmonics, self._dealt_bits, half)

    def combine(self, masked: Words, half: Words, out: Words, *, first: bool) -> None:
        """Add the angles."""
        combine_harmonics(
            masked,
            half,
            self._period_bits,
            self._union.harmonics,
            *self._weights,
            self._coefficient_bits,
            self._constants if first else np.zeros_like(self._constants),
            out,
        )


@kernel(IN, UINT64, OUT2)
def _truncation_deal(mask: Words, bits: np.uint64, half: Words) -> None:
    for i in range(mask.size):
        half[0, i] = (mask[i] >> bits) - half[0, i]
        half[1, i] = (mask[i] >> np.uint64(63)) - half[1, i]


@kernel(IN, UINT64, IN2, BOOLEAN, OUT)
def _truncation_combine(masked: Words, bits: np.uint64, half: Words, first: bool, out: Words) -> None:
    one = np.uint64(1)
    lift = np.uint64(64) - bits
    offset = one << np.uint64(62)
    for i in range(masked.size):
        c = masked[i] + offset
        no_top = one - (c >> np.uint64(63))
        y = (half[1, i] * no_top << lift) - half[0, i]
        if first:
            y += (c >> bits) - (offset >> bits)
        out[i] = y


@kernel(IN, OUT)
def _bits_deal(mask: Words, half: Words) -> None:
    for i in range(half.size):
        half[i] = ((mask[i >> 6] >> np.uint64(i & 63)) & np.uint64(1)) - half[i]


@kernel(IN, IN, BOOLEAN, OUT)
def _bits_combine(masked: Words, half: Words, first: bool, out: Words) -> None:
    one = np.uint64(1)
    for i in range(half.size):
        e = (masked[i >> 6] >> np.uint64(i & 63)) & one
        y = half[i] * (one - e - e)
        if first:
            y += e
        out[i] = y
