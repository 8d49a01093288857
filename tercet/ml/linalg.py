"""Numerical building blocks on secret numbers: means, reciprocals, roots, inverses.

All of them are fixed sequences of products and truncations: what they do never depends on secret values. Iterations start from
a value brought into a known range by comparing it with powers of two, all in parallel, so they converge in a fixed number of
steps for every input in range.
"""

from __future__ import annotations

import math

import numpy as np

from tercet.actors import Value, concatenate

WORK_BITS = 26
"""Fractional bits inside reciprocals and roots, whose iterates stay below 8."""


def halvings(count: int) -> int:
    """The number of halvings that brings `count` to one or less."""
    return max(0, math.ceil(math.log2(count))) if count > 0 else 0


def mean(total: Value, count: int, *, scale: int) -> Value:
    """`total / count` for a public count, at `scale`: two truncations, each within a unit in the last place."""
    shift = halvings(count)
    halved = total.shifted(shift).rescale(scale)
    factor = 2.0**shift / count
    if factor == 1:
        return halved
    return (halved * total.builder.constant(factor, scale=20)).rescale(scale)


def _magnitude_weights(x: Value, base: int, low: int, high: int, weights: list[np.ndarray], scales: list[int]) -> list[Value]:
    """For each list of weights, the one that belongs to the power of `base` just above `x`, of shape `(d,)`.

    Weight number i belongs to `base**(low+i-1) <= x < base**(low+i)`; the ends hold beyond. 1 comparison of all powers at
    once, and a conversion of its bits.
    """
    (count,) = x.shape
    assert isinstance(count, int)  # noqa: S101 - small vectors have a known length
    powers = np.array([float(base) ** k for k in range(low, high)])
    below = x.reshape(1, count) - x.builder.constant(powers[:, None], scale=x.scale)
    flags = below.reshape(len(powers) * count).is_negative().to_ring().reshape(len(powers), count)
    found = []
    for weight, scale in zip(weights, scales, strict=True):
        steps = x.builder.constant((weight[:-1] - weight[1:])[:, None], scale=scale)
        chosen = (flags * steps).sum_columns() + float(weight[-1])
        found.append(chosen.bounded(float(np.abs(weight).max()), "one of the weights"))
    return found


def reciprocal(x: Value, *, low: int, high: int, scale: int) -> Value:
    """`1 / x` of a vector with `2^(low-1) <= x < 2^high`, at `scale`; x = 0 gives some finite number.

    Newton's iteration `y <- y (2 - x y)`, from a line that errs by 9 %; three steps reach 2^-26.
    """
    factors = np.array([2.0**-k for k in range(low, high + 1)])
    (factor,) = _magnitude_weights(x, 2, low, high, [factors], [max(high, 0)])
    unit = x.times(factor, magnitude=1.0).rescale(WORK_BITS)
    y = (unit * -2 + 2.9142).bounded(3.0, "the line")
    for _ in range(3):
        residual = (unit * y).rescale(WORK_BITS) * -1 + 2
        y = (y * residual.bounded(2.5, "x y stays near one")).rescale(WORK_BITS).bounded(4.0, "Newton's iterates")
    return y.times(factor, magnitude=2.0 ** (2 - low)).rescale(scale)


def inverse_sqrt(x: Value, *, low: int, high: int, scale: int) -> Value:
    """`1 / sqrt(x)` of a vector with `4^(low-1) <= x < 4^high`, at `scale`; smaller x gives a smaller number.

    Newton's iteration `y <- y (3 - x y^2) / 2`, from a line that errs by 9 %; four steps reach 2^-26.
    """
    powers = range(low, high + 1)
    factors, roots = np.array([4.0**-k for k in powers]), np.array([2.0**-k for k in powers])
    factor, root = _magnitude_weights(x, 4, low, high, [factors, roots], [2 * max(high, 0), max(high, 0)])
    unit = x.times(factor, magnitude=1.0).rescale(WORK_BITS)
    y = (unit * x.builder.constant(-1.215, scale=10)).rescale(WORK_BITS) + 2.13
    for _ in range(4):
        y = y.bounded(8.0, "growth by half a step from below")
        squared = (y * y).rescale(WORK_BITS)
        residual = unit.times(squared, magnitude=64.0).rescale(WORK_BITS) * -1 + 3
        y = y.times(residual, magnitude=16.0).shifted(1).rescale(WORK_BITS)
    return y.times(root, magnitude=2.0 ** (4 - low)).rescale(scale)


def newton_schulz(matrix: Value, start: Value, *, steps: int, bound: float, scale: int) -> Value:
    """The inverse of a symmetric positive definite matrix `(d, d)` by `V <- V (2 I - H V)`; 4 rounds a step.

    Converges where the eigenvalues of `H start` lie between 0 and 2, doubling the right digits in each step. `bound` promises a
    bound on the entries of every V.
    """
    size = matrix.shape[0]
    assert isinstance(size, int)  # noqa: S101 - matrices of parameters have a known size
    identity = matrix.builder.constant(2 * np.eye(size), scale=matrix.scale)
    inverse = start
    for _ in range(steps):
        product = matrix.matmul(inverse, magnitude=4.0).rescale(matrix.scale)
        inverse = inverse.matmul(identity - product, magnitude=2 * bound).rescale(scale)
        inverse = inverse.bounded(bound, "the matrix has no smaller eigenvalue")
    return inverse


def append_row(x: Value, number: float) -> Value:
    """A `(d, n)` value with one more row of a public number."""
    return concatenate([x, x.select([0]) * 0 + number])
