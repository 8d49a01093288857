"""Where shares live: integers modulo 2^64, packed bits under XOR, and fixed-point numbers in the ring.

A domain says how two sharings are added and multiplied word by word. Both domains here use unsigned 64-bit
words, so that every message of a protocol is an array of uint64; what a word means (one number, one 64-bit
key word, or one bit of 64 different rows) is known to the plan, not to the sharing.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError

Words = npt.NDArray[np.uint64]

WORD_BYTES = 8
WORD_BITS = 64


@attrs.frozen(eq=False, repr=False)
class Domain:
    """One algebra of 64-bit words: `add`, `subtract`, `multiply` are numpy ufuncs over arrays of words."""

    name: str
    add: Callable[..., Any]
    subtract: Callable[..., Any]
    multiply: Callable[..., Any]
    reduce_add: Callable[..., Any]

    def __repr__(self) -> str:
        return self.name

    def total(self, words: Iterable[Words]) -> Words:
        """The sum of arrays of words of one shape."""
        return functools.reduce(self.add, words)


Z64 = Domain("Z64", np.add, np.subtract, np.multiply, np.add.reduce)
"""Integers modulo 2^64; signed values in two's complement, reals as `value * 2**scale`."""

BITS = Domain("Bits", np.bitwise_xor, np.bitwise_xor, np.bitwise_and, np.bitwise_xor.reduce)
"""Words under XOR and AND: 64 independent bits each."""

DOMAINS = {domain.name: domain for domain in (Z64, BITS)}


class Layout(enum.Enum):
    """What one element of a value in `BITS` is: a packed bit, or a whole word."""

    PACKED = "packed"
    WORDS = "words"


def packed_words(bits: int) -> int:
    """How many 64-bit words hold `bits` packed bits."""
    return -(-bits // WORD_BITS)


def encode(values: npt.ArrayLike, scale: int) -> Words:
    """Fixed-point code of real `values`: `round(value * 2**scale)` in two's complement, any shape.

    Raises SchemaError if a value is not finite or its code does not fit 63 bits.
    """
    scaled = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), scale))
    if scaled.size and not bool(np.all(np.abs(scaled) < 2.0**63)):
        worst = np.asarray(values).reshape(-1)[int(np.argmax(~(np.abs(scaled.reshape(-1)) < 2.0**63)))]
        raise SchemaError(
            f"{worst} does not fit fixed point with {scale} fractional bits; use a smaller scale"
        )
    return scaled.astype(np.int64).view(np.uint64)


def decode(words: Words, scale: int) -> npt.NDArray[np.float64]:
    """Real values of fixed-point codes, the inverse of `encode` to within half a unit in the last place."""
    return np.ldexp(words.view(np.int64).astype(np.float64), -scale)
