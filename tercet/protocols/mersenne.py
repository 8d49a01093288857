"""Integers modulo the prime p = 2^127 - 1: fixed-point numbers with room for statistical masks.

An element is two words, low and high, always below p, so equal elements have equal words. A signed integer v
stands for itself, p + v if it is negative; the middle of the field is far beyond any number of a plan, so
products and sums of 64-bit numbers come out as integers, not modulo 2^64. What is read from an element is
that integer modulo 2^64.

Reduction is a shift and an addition, because 2^127 is 1. Products of 64-bit words are 128 bits wide, and sums
of products are reduced at their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from tercet.compiled import UINT64, inline, instruction, kernel
from tercet.protocols.domains import Domain, Words
from tercet.protocols.fields import Field, Shape, spread
from tercet.protocols.kernels import IN2, OUT2, words_in, words_out
from tercet.protocols.prg import Stream

PRIME: Final = (1 << 127) - 1
PRIME_BITS: Final = 127
_TOP = np.uint64((1 << 63) - 1)
_ONES = np.uint64((1 << 64) - 1)
_BLOCK = 1024
"""Columns of a matrix product at a time: the sums of one row, 24 KiB, stay in the first-level cache."""


@instruction
def _high(_context: Any, _x: Any, _y: Any) -> Any:
    """The high word of a product of words."""
    from llvmlite import ir
    from numba import types

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word, wide = context.get_value_type(types.uint64), ir.IntType(128)
        x, y = (builder.zext(argument, wide) for argument in arguments)
        return builder.trunc(builder.lshr(builder.mul(x, y), wide(64)), word)

    return types.uint64(types.uint64, types.uint64), emit


# -- scalars of kernels: pairs of words ----------------------------------------------------------------------


@inline
def _reduced(low: Any, high: Any) -> Any:
    """A number below 2^128 - 1, modulo p."""
    top = high >> np.uint64(63)
    low = low + top
    high = (high & _TOP) + np.uint64(low < top)
    if low == _ONES and high == _TOP:
        return np.uint64(0), np.uint64(0)
    return low, high


@inline
def _wide_product(a0: Any, a1: Any, b0: Any, b1: Any) -> Any:
    """The product of two elements, modulo p but only below 2^128 - 1."""
    r0, r1 = a0 * b0, _high(a0, b0)
    cross, other = a0 * b1, a1 * b0
    r1 += cross
    carry = np.uint64(r1 < cross)
    r1 += other
    carry += np.uint64(r1 < other)
    # The upper half of the product, below 2^126, counts twice.
    r2, r3 = a1 * b1, _high(a1, b1)
    cross, other = _high(a0, b1), _high(a1, b0)
    r2 += cross
    r3 += np.uint64(r2 < cross)
    r2 += other
    r3 += np.uint64(r2 < other)
    r2 += carry
    r3 += np.uint64(r2 < carry)
    high = r3 << np.uint64(1) | r2 >> np.uint64(63)
    low = r2 << np.uint64(1)
    top = r1 >> np.uint64(63)
    r0 += low
    r1 = (r1 & _TOP) + high + np.uint64(r0 < low)
    r0 += top
    r1 += np.uint64(r0 < top)
    return r0, r1


@inline
def _total(low: Any, middle: Any, high: Any) -> Any:
    """A sum of fewer than 2^62 wide products, in three words, modulo p: 2^127 is 1 and 2^128 is 2."""
    more = (high << np.uint64(1)) + (middle >> np.uint64(63))
    low = low + more
    return _reduced(low, (middle & _TOP) + np.uint64(low < more))


# -- kernels: elements on the last axis ----------------------------------------------------------------------


@kernel(IN2, IN2, OUT2)
def _add(a: Words, b: Words, out: Words) -> None:
    for i in range(out.shape[1]):
        low = a[0, i] + b[0, i]
        high = a[1, i] + b[1, i] + np.uint64(low < a[0, i])
        out[0, i], out[1, i] = _reduced(low, high)


@kernel(IN2, IN2, OUT2)
def _subtract(a: Words, b: Words, out: Words) -> None:
    for i in range(out.shape[1]):
        low = a[0, i] + ~b[0, i]  # p - b is the complement of b
        high = a[1, i] + (~b[1, i] & _TOP) + np.uint64(low < a[0, i])
        out[0, i], out[1, i] = _reduced(low, high)


@kernel(IN2, IN2, OUT2)
def _multiply(a: Words, b: Words, out: Words) -> None:
    for i in range(out.shape[1]):
        low, high = _wide_product(a[0, i], a[1, i], b[0, i], b[1, i])
        out[0, i], out[1, i] = _reduced(low, high)


@kernel(UINT64, UINT64, IN2, OUT2)
def _times(w0: np.uint64, w1: np.uint64, x: Words, out: Words) -> None:
    """`out = w x` for a scalar w."""
    for i in range(out.shape[1]):
        low, high = _wide_product(w0, w1, x[0, i], x[1, i])
        out[0, i], out[1, i] = _reduced(low, high)


@kernel(UINT64, UINT64, IN2, OUT2)
def _add_times(w0: np.uint64, w1: np.uint64, x: Words, out: Words) -> None:
    """`out += w x` for a scalar w."""
    for i in range(out.shape[1]):
        low, high = _wide_product(w0, w1, x[0, i], x[1, i])
        low, high = _reduced(low, high)
        low += out[0, i]
        high += out[1, i] + np.uint64(low < out[0, i])
        out[0, i], out[1, i] = _reduced(low, high)


@kernel(words_in(4), words_out(3))
def _sum(x: Words, out: Words) -> None:
    """Sum over the third axis: `(2, outer, terms, inner)` to `(2, outer, inner)`."""
    _, outer, terms, inner = x.shape
    for o in range(outer):
        for i in range(inner):
            low, high = np.uint64(0), np.uint64(0)
            for term in range(terms):
                low += x[0, o, term, i]
                high += x[1, o, term, i] + np.uint64(low < x[0, o, term, i])
                low, high = _reduced(low, high)
            out[0, o, i], out[1, o, i] = low, high


@kernel(words_in(3), words_out(3))
def _cumulate(x: Words, out: Words) -> None:
    """Running sums along the last axis of `(2, m, n)`."""
    for row in range(x.shape[1]):
        low, high = np.uint64(0), np.uint64(0)
        for i in range(x.shape[2]):
            low += x[0, row, i]
            high += x[1, row, i] + np.uint64(low < x[0, row, i])
            low, high = _reduced(low, high)
            out[0, row, i], out[1, row, i] = low, high


@kernel(words_in(3), words_in(3), words_out(3))
def _matmul(a: Words, b: Words, out: Words) -> None:
    """`(2, m, k) @ (2, k, n)`, reduced once for each element of the result."""
    _, m, terms = a.shape
    n = b.shape[2]
    sums = np.empty((3, _BLOCK), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        for row in range(m):
            sums[:] = 0
            for term in range(terms):
                a0, a1 = a[0, row, term], a[1, row, term]
                for i in range(size):
                    low, high = _wide_product(a0, a1, b[0, term, start + i], b[1, term, start + i])
                    low += sums[0, i]
                    carry = np.uint64(low < sums[0, i])
                    high += carry
                    over = np.uint64(high < carry)
                    high += sums[1, i]
                    sums[0, i] = low
                    sums[2, i] += over + np.uint64(high < sums[1, i])
                    sums[1, i] = high
            for i in range(size):
                low, high = _total(sums[0, i], sums[1, i], sums[2, i])
                out[0, row, start + i], out[1, row, start + i] = low, high


@kernel(words_in(3), words_in(3), words_out(3))
def _dot(a: Words, b: Words, out: Words) -> None:
    """`(2, d, n), (2, e, n) -> (2, d, e)`, reduced once for each element of the result."""
    for row in range(a.shape[1]):
        for column in range(b.shape[1]):
            low, middle, top = np.uint64(0), np.uint64(0), np.uint64(0)
            for i in range(a.shape[2]):
                r0, r1 = _wide_product(a[0, row, i], a[1, row, i], b[0, column, i], b[1, column, i])
                low += r0
                carry = np.uint64(low < r0)
                r1 += carry  # a wide product is below 2^128 - 1, so this may reach 2^64 only with a carry
                top += np.uint64(r1 < carry)
                middle += r1
                top += np.uint64(middle < r1)
            out[0, row, column], out[1, row, column] = _total(low, middle, top)


@kernel(IN2, UINT64, OUT2)
def _shift(x: Words, bits: np.uint64, out: Words) -> None:
    """`x / 2^bits`, to the nearest integer, for `1 <= bits <= 126` and x + 2^(bits-1) below 2^127."""
    half = bits - np.uint64(1)
    h0 = np.uint64(1) << half if half < np.uint64(64) else np.uint64(0)
    h1 = np.uint64(0) if half < np.uint64(64) else np.uint64(1) << (half - np.uint64(64))
    for i in range(out.shape[1]):
        low = x[0, i] + h0
        high = x[1, i] + h1 + np.uint64(low < h0)
        if bits < np.uint64(64):
            out[0, i] = low >> bits | high << (np.uint64(64) - bits)
            out[1, i] = high >> bits
        else:
            out[0, i] = high >> (bits - np.uint64(64))
            out[1, i] = np.uint64(0)


# -- the field -----------------------------------------------------------------------------------------------


def _limbs(scalar: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64(scalar & (1 << 64) - 1), np.uint64(scalar >> 64)


def _flat(elements: Words) -> Words:
    return np.ascontiguousarray(elements).reshape(2, -1)


class _Mersenne(Field):
    limbs = 2

    def encode(self, words: Words) -> Words:
        """Signed 64-bit integers; p + v, for a negative v, is the complement of -v."""
        negative = np.asarray(words >> np.uint64(63))
        return np.stack([np.asarray(words - negative), negative * _TOP])

    def decode(self, elements: Words) -> Words:
        """The signed integer modulo 2^64."""
        words: Words = np.asarray(elements[0, ...] + (elements[1, ...] >> np.uint64(62)))
        return words

    def uniform(self, stream: Stream, shape: Shape) -> Words:
        """127 bits of a stream; that they are p has a chance of 2^-127."""
        return self.below(PRIME_BITS, stream, shape)

    def below(self, bits: int, stream: Stream, shape: Shape) -> Words:
        """Uniformly random integers below 2^bits, for 64 <= bits <= 127."""
        elements = stream.words((2, *shape))
        elements[1] &= np.uint64((1 << bits - 64) - 1)
        return elements

    def _pairwise(self, operation: Callable[[Words, Words, Words], None], a: Words, b: Words) -> Words:
        a, b = spread(a, b)
        out = np.empty(a.shape, dtype=np.uint64)
        operation(a.reshape(2, -1), b.reshape(2, -1), out.reshape(2, -1))
        return out

    def add(self, a: Words, b: Words) -> Words:
        """48 bytes moved an element."""
        return self._pairwise(_add, a, b)

    def subtract(self, a: Words, b: Words) -> Words:
        """48 bytes moved an element."""
        return self._pairwise(_subtract, a, b)

    def multiply(self, a: Words, b: Words) -> Words:
        """Four products of words, 48 bytes moved an element."""
        return self._pairwise(_multiply, a, b)

    def sum(self, a: Words, axis: int) -> Words:
        """The sum along an axis of the elements, counted from the last one."""
        shape = a.shape[1:]
        place = axis % len(shape)
        sizes = (2, math.prod(shape[:place]), shape[place], math.prod(shape[place + 1 :]))
        out = np.empty((2, *shape[:place], *shape[place + 1 :]), dtype=np.uint64)
        _sum(np.ascontiguousarray(a).reshape(sizes), out.reshape(2, sizes[1], sizes[3]))
        return out

    def cumulate(self, a: Words) -> Words:
        """Running sums along the last axis."""
        out = np.empty(a.shape, dtype=np.uint64)
        rows = (2, math.prod(a.shape[1:-1]), a.shape[-1])
        _cumulate(np.ascontiguousarray(a).reshape(rows), out.reshape(rows))
        return out

    def matmul(self, a: Words, b: Words) -> Words:
        """`(2, m, k) @ (2, k, n)`."""
        out = np.empty((2, a.shape[1], b.shape[2]), dtype=np.uint64)
        _matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
        return out

    def dot(self, a: Words, b: Words) -> Words:
        """`(2, d, n), (2, e, n) -> (2, d, e)`."""
        out = np.empty((2, a.shape[1], b.shape[1]), dtype=np.uint64)
        _dot(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
        return out

    def shift(self, a: Words, bits: int) -> Words:
        """`a / 2^bits` to the nearest integer, halves up; `a` below p - 2^(bits-1)."""
        out = np.empty(a.shape, dtype=np.uint64)
        _shift(_flat(a), np.uint64(bits), out.reshape(2, -1))
        return out

    def combine(self, weights: Sequence[int], parts: Sequence[Words]) -> Words:
        """One pass for each part."""
        out = np.empty(parts[0].shape, dtype=np.uint64)
        flat = out.reshape(2, -1)
        _times(*_limbs(weights[0]), _flat(parts[0]), flat)
        for weight, part in zip(weights[1:], parts[1:], strict=True):
            _add_times(*_limbs(weight), _flat(part), flat)
        return out

    def scalar(self, value: int, shape: Shape) -> Words:
        """One public element throughout."""
        return np.stack([np.full(shape, limb) for limb in _limbs(value % PRIME)])

    def minus(self, a: int, b: int) -> int:
        """Difference modulo p."""
        return (a - b) % PRIME

    def times(self, a: int, b: int) -> int:
        """Product modulo p."""
        return a * b % PRIME

    def inverse(self, a: int) -> int:
        """By Euclid's algorithm."""
        return pow(a, -1, PRIME)


MERSENNE = _Mersenne()


def _reduce_add(data: Words, *, axis: int, dtype: Any = None) -> Words:
    _ = dtype
    return MERSENNE.sum(data, axis if axis < 0 else axis - 1)


ELEMENTS = Domain("Z_p", MERSENNE.add, MERSENNE.subtract, MERSENNE.multiply, _reduce_add)
"""How sharings of numbers are added: limbs on the first axis."""

__all__ = ["ELEMENTS", "MERSENNE", "PRIME", "PRIME_BITS"]
