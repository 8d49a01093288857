"""Small systems of linear equations with a symmetric positive definite matrix, as of least squares.

The matrix is scaled by secret factors S to a diagonal near one, so that it does not matter what its
columns measure: `S A S y = S b`, and x is S y. The inverse V of the scaled matrix is made by Newton's and
Schulz's iteration, in product form: with R = I - A V, the next V is f V (I + R) and its residual (1 - f)
I + f R^2, 2 rounds a step. Errors of R add up meanwhile, so the last steps make it anew. That V is good
enough for each refinement of the solution to leave no more than 2^-8 is proved by the sum of squares of
`I - A V`, which is compared with the square of that. Where it is larger, the matrix is nearly singular or not
positive: what rests on its solution is NaN when it is revealed, and the right side is zero from here on, so
that no bound is broken. Then the solution is refined: what it leaves of the right side is found exactly, and
V times that is added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from tercet.errors import PlanError
from tercet.ml import linalg
from tercet.ml.numbers import arithmetic
from tercet.ml.numbers.alignment import made_of, turned_to
from tercet.ml.numbers.by_row import rows_of
from tercet.ml.numbers.checks import all_of, lies_within
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.number import Number
from tercet.ml.numbers.ring import ROOM_BITS, Held, bits_of
from tercet.ml.numbers.source import line
from tercet.plans import concatenate

MOST_UNKNOWNS = 64
MOST_CONDITION = 2.0**16
LOW_ROOT = -7
"""Diagonal entries are told from zero if they are at least 4^-7 of their bounds."""
ROOT_BITS, ROOT_PLACES = 12, 40
"""Fractional bits of the factors that scale the matrix, and of the diagonal that these are made of."""
MATRIX_BITS, RESIDUAL_BITS = 28, 24
"""Fractional bits of the scaled matrix, and of residuals on the way to its inverse."""
REACH = 4.0
"""A matrix that is proved to be inverted has no eigenvalue that is so many times smaller than it has to be:
its residual were 0.03 there."""
FRESH_STEPS = 2
"""Steps whose residual is made anew, after those in which errors of residuals have added up."""
REFINED = 2.0**-8
REFINEMENTS = 4
SOLUTION_BITS = 29
WIDEST = 64.0
"""Solutions of the scaled system are at most so many times as large as its right side usually is."""
NEAR_ONE = 1.02
"""A bound on entries of the scaled matrix, by Cauchy and Schwarz, with room for rounding."""


def solve(matrix: Number, right: Number, condition: float) -> Number:
    """The x with `matrix @ x = right`, `(d,)`. See `Formulas.solve`."""
    d = matrix.shape[0] if matrix.ndim == 2 else 0
    if matrix.shape != (d, d) or right.shape != (d,) or not 0 < d <= MOST_UNKNOWNS:
        raise PlanError(
            f"{line()}: a system has a square matrix of up to {MOST_UNKNOWNS} rows and a vector, not shapes "
            f"{matrix.shape} and {right.shape}"
        )
    if not isinstance(condition, int | float) or not 1 <= condition <= MOST_CONDITION:
        raise PlanError(f"{line()}: condition={condition!r:.40} is not between 1 and {MOST_CONDITION:g}")
    whole = turned_to(matrix, 2, flipped=False)
    roots = _inverse_roots(whole)
    scaled = _scaled(whole, roots)
    norm = max(1.0, condition / d)
    inverse = _inverse(scaled, norm)
    sound = _proved(scaled, inverse, matrix)
    vector = Number(matrix.plan, arithmetic.multiple(right.held, roots), (d,)) * sound
    solution = _refined(scaled, inverse, vector.held, REACH * norm)
    most = WIDEST * float(solution.facts.usual.max())
    found = Number(matrix.plan, solution, (d,))
    sound = sound & all_of(lies_within(found, -most, most))
    # Where that does not hold, zeros go on, so that whatever is made of them keeps its bounds.
    kept = (found * sound).held
    kept = Held.of(kept.value, kept.unit, kept.facts.within(-most, most))
    by_row = rows_of(matrix.rows.along(matrix.rows.axes and {0}), right.rows)
    made = made_of((matrix, right), arithmetic.multiple(kept, roots), (d,), False, by_row)
    made.sound = sound if made.sound is None else made.sound & sound
    return made


def _shaped(x: Held, *shape: int) -> Held:
    """A vector `(d,)` as a column or a row."""
    move: Callable[[Reals], Reals] = lambda one: one.reshape([-1 if dim > 1 else 1 for dim in shape])  # noqa: E731
    return Held(x.value.reshape(*shape), move(x.unit), x.facts.map(move))


def _uniform(most: float, usual: float, axes: int) -> Facts:
    """Numbers up to a bound, exact by definition."""
    facts = Facts.of(-most, most, usual=usual)
    return facts if axes == 1 else facts.columns(lambda one: one[None])


def _inverse_roots(matrix: Held) -> Held:
    """Inverse roots of the diagonal `(d,)`, exact by definition. About 15 rounds."""
    d = int(matrix.value.shape[0])
    places = [matrix.value.select([place]).squeeze().slice(place, place + 1) for place in range(d)]
    diagonal = concatenate([one.reshape(1, 1) for one in places]).reshape(d)
    units, high, usual, off = (
        np.diagonal(np.broadcast_to(one, (d, d))).copy()
        for one in (matrix.unit, matrix.facts.held, matrix.facts.usual, matrix.facts.error)
    )
    if (usual < high * 4.0 ** (LOW_ROOT + 1)).any():
        raise PlanError(
            f"{line()}: entries on the diagonal of the matrix are usually about {float(usual.min()):.3g} and "
            f"only known to be up to {float(high.max()):.3g}; subtract the means of its columns, or say more "
            "of these, as in x.within(low, high)"
        )
    powers = np.array([4.0 ** math.ceil(bits_of(float(one) * NEAR_ONE) / 2) for one in high])
    held = Held(diagonal, units, Facts.of(np.zeros(d), high, error=off, usual=usual))
    held = held.at(powers * 2.0**-ROOT_PLACES)
    made = linalg.inverse_sqrt(held.value.shifted(ROOT_PLACES), low=LOW_ROOT, high=0, scale=ROOT_BITS)
    most = 2.0 ** (1 - LOW_ROOT)
    facts = Facts.of(np.zeros(d), np.full(d, most), usual=np.clip(np.sqrt(powers / usual), 1.0, most))
    return Held.of(made.shifted(-ROOT_BITS), np.full(d, 2.0**-ROOT_BITS), facts).worth(1 / np.sqrt(powers))


def _scaled(matrix: Held, roots: Held) -> Held:
    """`S A S` with a diagonal near one. 6 rounds."""
    d = int(matrix.value.shape[0])
    size = NEAR_ONE * np.sqrt(np.diagonal(np.broadcast_to(matrix.facts.held, (d, d))))
    once = arithmetic.multiple(matrix, _shaped(roots, d, 1), most=size[None, :])
    made = arithmetic.multiple(once, _shaped(roots, 1, d), most=np.full((1, 1), NEAR_ONE))
    held = made.at(np.full((d, d), 2.0**-MATRIX_BITS))
    return Held.of(held.value, np.full((1, 1), 2.0**-MATRIX_BITS), _uniform(NEAR_ONE + 0.01, 1.0, 2))


def _inverse(matrix: Held, norm: float) -> Held:
    """About the inverse of a matrix whose eigenvalues lie between 1 / norm and its number of rows."""
    d = int(matrix.value.shape[0])
    top = 2.0 ** bits_of(d * NEAR_ONE)
    factors = linalg.schulz_factors(1 / (norm * top))
    # Steps make no eigenvalue more than 2 f times as large, however small that of the matrix is.
    bound = math.prod(2 * factor for factor in factors) * 2.0**FRESH_STEPS / top
    places = min(28, ROOM_BITS - RESIDUAL_BITS - linalg.STEP_BITS - 1 - bits_of(bound))
    value, identity = matrix.value.shifted(MATRIX_BITS), np.eye(d)
    inverse = linalg.scaled_identity(value, 1 / top, scale=places)
    one, limit = matrix.builder.constant(identity, scale=RESIDUAL_BITS), "steps double it at most"
    residual = one - value.matmul(inverse, magnitude=2.0).rescale(RESIDUAL_BITS)
    for factor in factors:
        # R is a polynomial of the matrix with eigenvalues between -1 and 1, so that no entry is larger.
        grown = residual.bounded(1.5, "eigenvalues between -1 and 1") + one
        step = matrix.builder.constant(factor, scale=linalg.STEP_BITS)
        inverse = (inverse.matmul(grown, magnitude=bound) * step).rescale(places)
        inverse = inverse.bounded(bound, limit)
        squared = (residual.matmul(residual, magnitude=1.5) * step).rescale(RESIDUAL_BITS)
        residual = squared + matrix.builder.constant((1 - factor) * identity, scale=RESIDUAL_BITS)
    for _ in range(FRESH_STEPS):
        residual = one - value.matmul(inverse, magnitude=2.0).rescale(RESIDUAL_BITS)
        grown = residual.bounded(1.5, "eigenvalues between -1 and 1") + one
        inverse = inverse.matmul(grown, magnitude=bound).rescale(places)
        inverse = inverse.bounded(bound, limit)
    return Held.of(inverse.shifted(-places), np.full((1, 1), 2.0**-places), _uniform(bound, 1.0, 2))


def _refined(matrix: Held, inverse: Held, vector: Held, norm: float) -> Held:
    """The solution `(d,)` of the scaled system, to an error from that of the equations as they are held.

    4 rounds for each refinement but the last.
    """
    d = int(matrix.value.shape[0])
    largest = float(vector.facts.held.max()) * math.sqrt(d)
    first = largest
    left, parts = vector, list[Held]()
    for step in range(REFINEMENTS):
        # By eigenvalues, V times a vector is at most `norm` times as long, and A times one at most d times.
        top = bits_of(norm * largest)
        unit, fine = 2.0 ** (top - SOLUTION_BITS), 2.0 ** (top - SOLUTION_BITS - MATRIX_BITS)
        left = left.at(np.full(1 if step else d, fine))
        left = Held.of(left.value, np.full(1, fine), _uniform(largest, largest, 1))
        cut = left.coarser(left.bits + inverse.bits + bits_of(d) - ROOM_BITS)
        column, most = cut.value.column(), 2.0**top
        made = Held.of(
            inverse.value.matmul(column, magnitude=2.0**ROOM_BITS).reshape(d),
            cut.unit * inverse.unit[0], _uniform(most, most, 1),
        ).at(np.full(1, unit))  # fmt: skip
        part = Held.of(made.value, made.unit, _uniform(most, largest, 1))  # exact by definition from here on
        parts.append(part)
        off = REFINED * largest + math.sqrt(d) * (4 * float(cut.unit[0]) + 4 * d * unit)
        if step < REFINEMENTS - 1:
            taken = matrix.value.matmul(part.value.column(), magnitude=2.0**ROOM_BITS).reshape(d)
            limit = "what a solution leaves of the right side"
            value = (left.value - taken.bounded(2 * largest / fine, limit)).bounded(off / fine, limit)
            left = Held(value, np.full(1, fine), _uniform(off, off, 1))
        largest = off
    found = functools.reduce(arithmetic.add, parts)
    most = norm * first * NEAR_ONE
    facts = Facts.of(-most, most, error=norm * largest, usual=float(vector.facts.usual.max()))
    return Held.of(found.value, found.unit, facts)


def _proved(matrix: Held, inverse: Held, source: Number) -> Number:
    """Whether a refinement leaves as little as it has to, by the sum of squares of `I - A V`."""
    d = int(matrix.value.shape[0])
    value = matrix.value.matmul(inverse.value, magnitude=2.0**ROOM_BITS)
    product = Number(source.plan, Held.of(value, matrix.unit * inverse.unit, _uniform(2.0, 1.0, 2)), (d, d))
    left = product - np.eye(d)
    return (left * left).sum() < (0.9 * REFINED) ** 2
