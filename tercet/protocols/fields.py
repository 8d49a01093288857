"""Finite fields for Shamir's sharing: what a field can do with arrays of elements, and polynomials over it.

An element takes a few words, its limbs; an array of elements is an array of words with the limbs on the first
axis, so that it is what a `Share` holds. Scalars, such as points and Lagrange weights, are Python integers.
Interpolation is written here once; `mersenne` has the integers modulo 2^127 - 1, `gf8` the field of eight
elements, 64 of them at a time.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tercet.protocols.domains import Words
from tercet.protocols.prg import Stream

Shape = tuple[int, ...]


class Field(abc.ABC):
    """A finite field. Arrays have shape `(limbs, *shape)`; operations on two of them broadcast `shape`."""

    limbs: ClassVar[int]
    """Words of an element."""

    # -- arrays ----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def encode(self, words: Words) -> Words:
        """The elements that stand for public words."""

    @abc.abstractmethod
    def decode(self, elements: Words) -> Words:
        """The words that elements stand for; the inverse of `encode`."""

    @abc.abstractmethod
    def uniform(self, stream: Stream, shape: Shape) -> Words:
        """Uniformly random elements, the next of a stream."""

    @abc.abstractmethod
    def add(self, a: Words, b: Words) -> Words:
        """Sum."""

    @abc.abstractmethod
    def subtract(self, a: Words, b: Words) -> Words:
        """Difference."""

    @abc.abstractmethod
    def multiply(self, a: Words, b: Words) -> Words:
        """Product."""

    @abc.abstractmethod
    def combine(self, weights: Sequence[int], parts: Sequence[Words]) -> Words:
        """The sum of arrays of one shape, each times a scalar."""

    # -- scalars ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def minus(self, a: int, b: int) -> int:
        """Difference of scalars."""

    @abc.abstractmethod
    def times(self, a: int, b: int) -> int:
        """Product of scalars."""

    @abc.abstractmethod
    def inverse(self, a: int) -> int:
        """Inverse of a scalar other than zero."""

    @functools.cache  # noqa: B019 - there are two fields, for good
    def weights(self, points: tuple[int, ...], at: int = 0) -> tuple[int, ...]:
        """Lagrange weights: the value at `at` of a polynomial given at `points` is their weighted sum."""
        found = []
        for point in points:
            over, under = 1, 1
            for other in points:
                if other != point:
                    over = self.times(over, self.minus(at, other))
                    under = self.times(under, self.minus(point, other))
            found.append(self.times(over, self.inverse(under)))
        return tuple(found)

    def interpolate(self, points: tuple[int, ...], values: Sequence[Words], at: int = 0) -> Words:
        """The value at `at` of the polynomial of least degree through `values` at `points`."""
        return self.combine(self.weights(points, at), values)


def spread(a: Words, b: Words) -> tuple[Words, Words]:
    """Two arrays of elements, broadcast to one shape and contiguous, as a kernel wants them."""
    if a.shape != b.shape:
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


__all__ = ["Field", "spread"]
