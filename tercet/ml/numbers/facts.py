"""What everyone may know of a secret array before anyone computes on it: bounds, moments, errors.

All of it follows from public schemas by interval arithmetic. Where a range alone proves too little,
moments along the last axis, which is that of rows, prove more: owners check at upload how far their
columns spread, so by Cauchy and Schwarz a sum of products of centred columns is far smaller than its
range says. Facts are arrays that broadcast against the numbers, since columns measure different things;
those on moments have a last axis of one. Only additions, products, quotients and roots make them, which
are the same on every machine: nodes and clients have to find the same plan.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]


def reals(given: Any) -> Reals:
    """Numbers as an array of one axis at least."""
    return np.atleast_1d(np.asarray(given, dtype=np.float64))


@attrs.frozen(eq=False)
class Facts:
    """Bounds of an array of true numbers, and of how far what is computed may be from them.

    Every number lies from `low` to `high`. Along the last axis, `spread` bounds the standard deviation, `rms`
    the root of the mean square, and `size` the mean of absolute values. `error` bounds by how much the number
    that is held differs from the true one, which is exact arithmetic on what owners have put in, and
    `relative` bounds the same over the size of the true one: both hold. `usual` is no bound: how large
    numbers usually are, or how far they spread where they are all far from zero, for telling whether enough
    digits are left.
    """

    low: Reals
    high: Reals
    spread: Reals
    rms: Reals
    size: Reals
    error: Reals
    usual: Reals
    relative: Reals

    @classmethod
    def of(
        cls,
        low: Any,
        high: Any,
        *,
        error: Any = 0.0,
        usual: Any = None,
        spread: Any = np.inf,
        rms: Any = np.inf,
        size: Any = np.inf,
        relative: Any = np.inf,
    ) -> Facts:
        """Facts that agree with each other, as narrow as they make each other."""
        low, high = np.broadcast_arrays(reals(low), reals(high))
        reach = np.maximum(np.abs(low), np.abs(high))
        most = reach.max(axis=-1, keepdims=True)
        half = ((high - low) / 2).max(axis=-1, keepdims=True)
        if low.shape[-1] > 1:  # then values are known to differ from place to place
            half = most
        rms = np.minimum(reals(rms), most)
        error, relative = reals(error), reals(relative)
        if np.isfinite(relative).any():
            error = np.minimum(error, _product(relative, reach))
        return cls(
            low,
            high,
            np.minimum(np.minimum(reals(spread), half), rms),
            rms,
            np.minimum(reals(size), rms),
            error,
            reach if usual is None else np.minimum(reals(usual), reach),
            _telling(np.minimum(relative, _over_least(error, low, high))),
        )

    @property
    def reach(self) -> Reals:
        """A bound on absolute values."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def held(self) -> Reals:
        """A bound on absolute values as they are held."""
        return self.reach + self.error

    def off(self, more: Any) -> Facts:
        """The same, held with an error that is larger by so much."""
        more = reals(more)
        relative = self.relative + _over_least(more, self.low, self.high)
        return attrs.evolve(self, error=self.error + more, relative=_telling(relative))

    def within(self, low: Any, high: Any) -> Facts:
        """The same between bounds that are known otherwise."""
        least, most = np.minimum(reals(low), high), np.maximum(reals(high), low)
        return Facts.of(
            np.clip(self.low, least, most),
            np.clip(self.high, least, most),
            error=self.error,
            usual=self.usual,
            spread=self.spread,
            rms=self.rms,
            size=self.size,
            relative=self.relative,
        )

    # -- arithmetic ------------------------------------------------------------------------------------------

    def plus(self, other: Facts) -> Facts:
        """Of a sum."""
        return Facts.of(
            self.low + other.low,
            self.high + other.high,
            error=self.error + other.error,
            usual=np.maximum(self.usual, other.usual),
            spread=self.spread + other.spread,
            rms=self.rms + other.rms,
            size=self.size + other.size,
            relative=np.where(
                ((self.low >= 0) & (other.low >= 0)) | ((self.high <= 0) & (other.high <= 0)),
                np.maximum(self.relative, other.relative),
                np.inf,
            ),
        )

    def scaled(self, factor: Any) -> Facts:
        """Of a product with public numbers, exactly."""
        factor = reals(factor)
        ends, size = (self.low * factor, self.high * factor), np.abs(factor)
        most = size if size.shape[-1] == 1 else size.max(axis=-1, keepdims=True)
        return Facts.of(
            np.minimum(*ends),
            np.maximum(*ends),
            error=self.error * size,
            usual=self.usual * size,
            spread=self.spread * most if size.shape[-1] == 1 else np.inf,
            rms=self.rms * most,
            size=self.size * most,
            relative=self.relative,
        )

    def times(self, other: Facts, *, same: bool = False) -> Facts:
        """Of products, or squares where both are the `same` numbers."""
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        low = np.minimum(np.minimum(*corners[:2]), np.minimum(*corners[2:]))
        high = np.maximum(np.maximum(*corners[:2]), np.maximum(*corners[2:]))
        if same:
            low = np.where((self.low < 0) & (self.high > 0), 0.0, low).clip(min=0.0)
        x, y = _most(self.reach), _most(other.reach)
        return Facts.of(
            low,
            high,
            error=self.reach * other.error + other.reach * self.error + self.error * other.error,
            usual=self.usual * other.usual,
            # |xy - mean x mean y| <= |mean x| |y - mean y| + |y| |x - mean x|
            spread=x * other.spread + y * self.spread,
            rms=np.minimum(x * other.rms, y * self.rms),
            size=np.minimum(self.rms * other.rms, np.minimum(x * other.size, y * self.size)),
            relative=self.relative + other.relative + _product(self.relative, other.relative),
        )

    def hull(self, other: Facts) -> Facts:
        """Of numbers, each of which is one of two."""
        return Facts.of(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            error=np.maximum(self.error, other.error),
            usual=np.maximum(self.usual, other.usual),
            relative=np.maximum(self.relative, other.relative),
        )

    def summed(self, count: int, *, size: Reals | None = None) -> Facts:
        """Of sums over the last axis, as it were of `count` places; that axis stays, with a length of one."""
        most = count * (self.size if size is None else size)
        low, high = (_total(one, count, -1) for one in (self.low, self.high))
        return Facts.of(
            np.maximum(low, -most),
            np.minimum(high, most),
            error=count * self.error.max(axis=-1, keepdims=True),
            usual=count * self.usual.max(axis=-1, keepdims=True),
            relative=self._relative_of_sums(-1),
        )

    def summed_columns(self, count: int) -> Facts:
        """Of sums over the first axis, of `count` places, which goes."""
        low, high, spread, rms, size, error, usual = (
            _total(one, count, 0)[0] for one in attrs.astuple(self, recurse=False)[:-1]
        )
        relative = self._relative_of_sums(0)[0]
        return Facts.of(
            low, high, error=error, usual=usual, spread=spread, rms=rms, size=size, relative=relative
        )

    def _relative_of_sums(self, axis: int) -> Reals:
        """Of sums along an axis, which stays: of numbers of one sign, it is the largest of any."""
        alike = (self.low >= 0).all(axis, keepdims=True) | (self.high <= 0).all(axis, keepdims=True)
        found: Reals = np.where(alike, self.relative.max(axis=axis, keepdims=True), np.inf)
        return found

    def less_mean(self, count: int) -> Facts:
        """Of numbers less their mean over the last axis, which is of `count` places."""
        # One of n numbers is within root n times their standard deviation of their mean.
        most = np.minimum((self.high - self.low).max(axis=-1, keepdims=True), math.sqrt(count) * self.spread)
        return Facts.of(
            -most,
            most,
            error=self.error,
            usual=np.minimum(self.usual, most),
            spread=self.spread,
            rms=self.spread,
            size=self.spread,
        )

    # -- shape -----------------------------------------------------------------------------------------------

    def map(self, move: Any) -> Facts:
        """The same with each array moved along; moments are found anew."""
        error, usual, relative = (move(one) for one in (self.error, self.usual, self.relative))
        return Facts.of(move(self.low), move(self.high), error=error, usual=usual, relative=relative)

    def columns(self, move: Any) -> Facts:
        """The same with each array moved by its axes but the last."""
        return Facts(*(move(one) for one in attrs.astuple(self, recurse=False)))


def _most(values: Reals) -> Reals:
    """The largest along the last axis, which stays."""
    most: Reals = values.max(axis=-1, keepdims=True)
    return most


def _telling(relative: Reals) -> Reals:
    """Relative errors, infinite where they tell nothing: from one on, not even the sign is known."""
    made: Reals = np.where(relative < 1, relative, np.inf)
    return made


def _product(x: Reals, y: Reals) -> Reals:
    """Of bounds that may be infinite; where one is and the other is zero, infinite."""
    known = np.isfinite(x) & np.isfinite(y)
    made: Reals = np.multiply(x, y, out=np.full(known.shape, np.inf), where=known)
    return made


def _over_least(error: Reals, low: Reals, high: Reals) -> Reals:
    """An error over the least size of numbers between two bounds: infinite where these hold zero."""
    error, least = np.broadcast_arrays(error, np.maximum(np.maximum(low, -high), 0.0))
    unknown = np.where(error == 0, 0.0, np.inf)
    made: Reals = np.divide(error, least, out=unknown, where=(least > 0) & (error > 0))
    return made


def _total(values: Reals, count: int, axis: int) -> Reals:
    """The sum along an axis of `count` places, which stays: term by term, the same on every machine."""
    if values.shape[axis] == 1:
        return count * values
    made: Reals = np.take(np.cumsum(values, axis=axis), [-1], axis=axis)
    return made
