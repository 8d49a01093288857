"""The field of eight elements, bit-sliced: bits of secret sharings, 64 to a word.

An element is a polynomial in a over bits, modulo a^3 + a + 1, and its three coefficients lie in three planes:
one word of each plane holds a coefficient of 64 elements. Zero and one, the bits themselves, have nothing in
the planes of a and a^2. The seven other points than zero are enough for seven parties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tercet.compiled import INT64, kernel
from tercet.protocols.domains import Words
from tercet.protocols.fields import Field, Shape, spread
from tercet.protocols.kernels import IN2, OUT2
from tercet.protocols.prg import Stream


@kernel(IN2, IN2, OUT2)
def _multiply(x: Words, y: Words, out: Words) -> None:
    for i in range(x.shape[1]):
        x0, x1, x2 = x[0, i], x[1, i], x[2, i]
        y0, y1, y2 = y[0, i], y[1, i], y[2, i]
        cube = (x1 & y2) ^ (x2 & y1)  # a^3 = a + 1
        fourth = x2 & y2  # a^4 = a^2 + a
        out[0, i] = (x0 & y0) ^ cube
        out[1, i] = (x0 & y1) ^ (x1 & y0) ^ cube ^ fourth
        out[2, i] = (x0 & y2) ^ (x1 & y1) ^ (x2 & y0) ^ fourth


@kernel(INT64, IN2, OUT2)
def _add_times(weight: int, x: Words, out: Words) -> None:
    """`out += weight * x`."""
    zero, ones = np.uint64(0), ~np.uint64(0)
    w0 = ones if weight & 1 else zero
    w1 = ones if weight & 2 else zero
    w2 = ones if weight & 4 else zero
    for i in range(x.shape[1]):
        x0, x1, x2 = x[0, i], x[1, i], x[2, i]
        cube, fourth = (x1 & w2) ^ (x2 & w1), x2 & w2
        out[0, i] ^= (x0 & w0) ^ cube
        out[1, i] ^= (x0 & w1) ^ (x1 & w0) ^ cube ^ fourth
        out[2, i] ^= (x0 & w2) ^ (x1 & w1) ^ (x2 & w0) ^ fourth


class _GF8(Field):
    limbs = 3

    def encode(self, words: Words) -> Words:
        """Bits as the elements zero and one."""
        elements = np.zeros((3, *words.shape), dtype=np.uint64)
        elements[0] = words
        return elements

    def decode(self, elements: Words) -> Words:
        """The bits of elements that are zero or one."""
        bits: Words = elements[0, ...]
        return bits

    def uniform(self, stream: Stream, shape: Shape) -> Words:
        """Three words for 64 elements."""
        return stream.words((3, *shape))

    def add(self, a: Words, b: Words) -> Words:
        """XOR."""
        return a ^ b

    def subtract(self, a: Words, b: Words) -> Words:
        """XOR."""
        return a ^ b

    def multiply(self, a: Words, b: Words) -> Words:
        """Nine ANDs for 64 products."""
        a, b = spread(a, b)
        out = np.empty(a.shape, dtype=np.uint64)
        _multiply(a.reshape(3, -1), b.reshape(3, -1), out.reshape(3, -1))
        return out

    def combine(self, weights: Sequence[int], parts: Sequence[Words]) -> Words:
        """One pass for each part."""
        out = np.zeros(parts[0].shape, dtype=np.uint64)
        for weight, part in zip(weights, parts, strict=True):
            _add_times(weight, np.ascontiguousarray(part).reshape(3, -1), out.reshape(3, -1))
        return out

    def minus(self, a: int, b: int) -> int:
        """XOR."""
        return a ^ b

    def times(self, a: int, b: int) -> int:
        """Product of polynomials, reduced."""
        product = 0
        for place in range(3):
            product ^= (a << place) if b >> place & 1 else 0
        for place in (4, 3):
            product ^= (0b1011 << place - 3) if product >> place & 1 else 0
        return product

    def inverse(self, a: int) -> int:
        """`a^6`, since a^7 = 1."""
        if a == 0:
            raise ZeroDivisionError("zero has no inverse in the field of eight elements")
        square = self.times(a, a)
        return self.times(square, self.times(square, square))


GF8 = _GF8()

__all__ = ["GF8"]
