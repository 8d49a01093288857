"""Fourier series of public functions: what a masked-opening gate needs to know of the sigmoid and its kin.

The gate (see `harmonics`) evaluates a periodic function, so a function such as the sigmoid is replaced by a
short series that agrees with it on an interval and does as it likes on the rest of the period. This module
fits such series: least squares made minimax by Lawson's reweighting, with a ridge that keeps the coefficients
small, because each of them multiplies the rounding error of a dealt value. Every harmonic costs two dealt
words an element, its cosine and its sine, so a fit uses as few harmonics as the wanted error allows.

The sigmoid, less 1/2, is a sine series, best of odd harmonics. Those are symmetric about a quarter of the
period, so where bound > P/4 their error cannot fall below half of exp(bound - P/2), the tail there; one to
four even harmonics mend that. (All sine harmonics have no such floor but need twice as many.) Examples:

| function      | bound | P   | harmonics | even | error   | slope's error | sum of sizes |
| ------------- | ----- | --- | --------- | ---- | ------- | ------------- | ------------ |
| sigmoid       | 8     | 32  | 5         | 0    | 9.6e-04 | 2.1e-03       | 0.8          |
| sigmoid       | 8     | 32  | 8         | 0    | 3.8e-05 | 7.9e-05       | 0.8          |
| sigmoid       | 8     | 32  | 12        | 1    | 6.4e-07 | 2.4e-06       | 0.8          |
| sigmoid       | 12    | 32  | 11        | 4    | 8.0e-05 | 2.5e-04       | 0.8          |
| sigmoid       | 24    | 64  | 10        | 0    | 8.6e-04 | 1.9e-03       | 1.0          |
| sigmoid       | 24    | 64  | 12        | 0    | 2.7e-04 | 6.6e-04       | 1.0          |
| sigmoid       | 24    | 64  | 15        | 1    | 8.3e-05 | 2.2e-04       | 1.0          |
| sigmoid       | 56    | 128 | 25        | 0    | 1.9e-04 | 4.7e-04       | 1.2          |
| sigmoid       | 56    | 128 | 30        | 2    | 8.1e-05 | 2.0e-04       | 1.2          |
| softplus_tail | 8     | 32  | 5         | 0    | 2.7e-06 | 1.8e-05       | 2.6          |
| softplus_tail | 24    | 64  | 11        | 0    | 3.5e-06 | 1.8e-05       | 3.3          |
| softplus_tail | 56    | 128 | 21        | 0    | 3.3e-05 | 2.4e-05       | 3.5          |
| softplus_tail | 56    | 128 | 25        | 4    | 8.3e-06 | 2.5e-05       | 3.0          |

A series is data: its coefficients belong in the plan. Parties that each fitted their own on unlike machines
could round a coefficient differently, and then their shares would not cancel at all.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

Symmetry = Literal["odd", "even", "none"]

MOST_HARMONICS: Final = 64
COEFFICIENT_SUM: Final = 4.0
"""Largest sum of coefficient sizes: the factor by which a series can enlarge the rounding of dealt values."""
COEFFICIENT_QUANTUM: Final = 2.0**-32
"""Coefficients are multiples of this, short to write down in a plan."""
_LAWSON_STEPS = 60
_RIDGES = (1e-14, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
_MOST_EVEN = 12
_GRID = 20001


def _sigmoid(x: Reals) -> Reals:
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1.0 + tail)


def _sigmoid_slope(x: Reals) -> Reals:
    tail = np.exp(-np.abs(x))
    return tail / (1.0 + tail) ** 2


def _softplus_tail(a: Reals) -> Reals:
    return np.log1p(np.exp(-a))


EXACT: Final[dict[str, Callable[[Reals], Reals]]] = {
    "sigmoid": _sigmoid,
    "sigmoid'": _sigmoid_slope,
    "softplus_tail": _softplus_tail,
    "softplus_tail'": lambda a: _sigmoid(a) - 1.0,
}
"""The functions that series stand for, by name; a prime marks the derivative."""


@attrs.frozen
class Series:
    """`constant + sum_i cos[i] cos(k_i w x) + sin[i] sin(k_i w x)` with `w = 2 pi / 2^period_log2`.

    It stands for the function `name` (see `EXACT`) on `low <= x <= bound`, to within `error`, measured on a
    dense grid; infinite if the function is not known. Outside, it is some other function.
    """

    name: str
    period_log2: int
    harmonics: tuple[int, ...]
    cos: tuple[float, ...]
    sin: tuple[float, ...]
    constant: float
    low: float
    bound: float
    error: float = attrs.field()

    @error.default
    def _measured(self) -> float:
        if self.name not in EXACT:
            return float("inf")
        x = np.linspace(self.low, self.bound, _GRID)
        return float(np.max(np.abs(self(x) - EXACT[self.name](x))))

    @property
    def coefficient_sum(self) -> float:
        """Sum of the sizes of all coefficients but the constant."""
        return float(np.sum(np.hypot(self.cos, self.sin)))

    def __call__(self, x: npt.ArrayLike) -> Reals:
        """The series at real x, any shape, in float64: the reference for the gate."""
        angles = np.multiply.outer(np.asarray(x, dtype=np.float64), self._frequencies())
        value: Reals = (
            self.constant + np.cos(angles) @ np.array(self.cos) + np.sin(angles) @ np.array(self.sin)
        )
        return value

    def derivative(self) -> Series:
        """The derivative, a series of the same harmonics, so that one opening serves both."""
        w = self._frequencies()
        return Series(
            name=self.name + "'",
            period_log2=self.period_log2,
            harmonics=self.harmonics,
            cos=tuple((w * np.array(self.sin)).tolist()),
            sin=tuple((-w * np.array(self.cos)).tolist()),
            constant=0.0,
            low=self.low,
            bound=self.bound,
        )

    def rounding(self, dealt_bits: int, coefficient_bits: int) -> float:
        """What fixed point can add to `error`: a bound, not an estimate."""
        dealt, coefficient = 0.501 * 2.0**-dealt_bits, 0.501 * 2.0**-coefficient_bits
        half, root = 0.5 * 2.0 ** -(dealt_bits + coefficient_bits), 2**0.5
        each = root * coefficient + 2 * dealt * coefficient
        return root * self.coefficient_sum * dealt + len(self.harmonics) * each + half

    def _frequencies(self) -> Reals:
        return np.array(self.harmonics, dtype=np.float64) * (2 * np.pi / 2.0**self.period_log2)


# -------------------------------------------------------------------- fitting


def _lawson(basis: Reals, values: Reals, ridges: Reals) -> tuple[Reals, float]:
    """Coefficients of nearly least maximal residual, and that residual: infinite if they are too large.

    Lawson's algorithm: weighted least squares by normal equations with a ridge for each column, every weight
    multiplied by its residual in every step.
    """
    best, best_error = np.zeros(basis.shape[1]), np.inf
    weights = np.full(values.size, 1.0 / values.size)
    for _ in range(_LAWSON_STEPS):
        weighted = basis * weights[:, None]
        trial = np.linalg.solve(weighted.T @ basis + np.diag(ridges), weighted.T @ values)
        residual = np.abs(values - basis @ trial)
        error = float(residual.max())
        # A column without a ridge is the constant, which multiplies nothing that is dealt.
        if error < best_error and float(np.abs(trial[ridges > 0]).sum()) <= COEFFICIENT_SUM:
            best, best_error = trial, error
        weights *= residual
        weights /= max(float(weights.sum()), 1e-300)
    return best, best_error


def _minimax(basis: Reals, values: Reals, free: int) -> Reals:
    """`_lawson` with the least ridge that keeps coefficients small; the last `free` columns go without."""
    ridged = np.ones(basis.shape[1])
    ridged[basis.shape[1] - free :] = 0.0
    for ridge in _RIDGES:
        with contextlib.suppress(
            np.linalg.LinAlgError
        ):  # too small a ridge: the normal equations are singular
            solution, error = _lawson(basis, values, ridge * ridged)
            if error < np.inf:
                return solution
    return np.zeros(basis.shape[1])


def fit(
    name: str, *, bound: float, period_log2: int, harmonics: tuple[int, ...], symmetry: Symmetry
) -> Series:
    """The series of given harmonics that is nearest to the function `name`, up to `bound`.

    `symmetry` chooses the terms and the interval: "odd" fits sines about the function's value at 0 and "even"
    cosines, both valid for |x| <= bound; "none" fits both, for 0 <= x <= bound.
    """
    exact = EXACT[name]
    count = 16 * len(harmonics) + 64
    x = bound * (1 - np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
    angles = np.multiply.outer(x, np.array(harmonics) * (2 * np.pi / 2.0**period_log2))
    constant = float(exact(np.zeros(1))[0]) if symmetry == "odd" else 0.0
    columns = {"odd": [np.sin(angles)], "even": [np.cos(angles)], "none": [np.sin(angles), np.cos(angles)]}[
        symmetry
    ]
    free = 0 if symmetry == "odd" else 1
    solution = _minimax(np.hstack([*columns, np.ones((count, free))]), exact(x) - constant, free)
    *rounded, last = (np.rint(solution / COEFFICIENT_QUANTUM) * COEFFICIENT_QUANTUM).tolist()
    if free:
        constant = last
    else:
        rounded.append(last)
    K = len(harmonics)
    none = (0.0,) * K
    return Series(
        name=name,
        period_log2=period_log2,
        harmonics=harmonics,
        cos=none if symmetry == "odd" else tuple(rounded[-K:]),
        sin=none if symmetry == "even" else tuple(rounded[:K]),
        constant=constant,
        low=0.0 if symmetry == "none" else -bound,
        bound=bound,
    )


def _family(odd: int, even: int) -> tuple[int, ...]:
    return tuple(sorted([*range(1, 2 * odd, 2), *range(2, 2 * even + 1, 2)]))


def _fewest(fits: Callable[[int], Series], error: float, most: int) -> Series | None:
    """The first of `fits(1)`, ..., `fits(most)` within `error`, by halving; None if the last is not."""
    if most < 1 or (found := fits(most)).error > error:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        trial = fits(middle)
        if trial.error <= error:
            found, high = trial, middle
        else:
            low = middle
    return found


def _search(name: str, *, bound: float, error: float, symmetry: Symmetry) -> Series:
    """The shortest series within `error`, over two periods and numbers of even harmonics among the odd."""
    if not (0 < bound < 2**15 and 0 < error < 0.25):
        raise ValueError(
            f"a series for {name} with bound {bound} and error {error}: needs 0 < error < 0.25 and bound"
        )
    best: Series | None = None
    # The function jumps or bends between bound and half the period, so leave it at least one unit for that.
    first = math.ceil(math.log2(2 * bound + 1))
    for period_log2 in (first, first + 1):
        for even in range(_MOST_EVEN + 1):
            fits = functools.partial(_fit_family, name, bound, period_log2, symmetry, even)
            allowed = len(best.harmonics) - 1 if best else MOST_HARMONICS
            best = _fewest(fits, error, allowed - even) or best
    if best is None:
        raise ValueError(
            f"no series of {MOST_HARMONICS} harmonics gives {name} up to {bound} within {error}; "
            "allow a larger error or a smaller bound"
        )
    return best


def _fit_family(
    name: str, bound: float, period_log2: int, symmetry: Symmetry, even: int, count: int
) -> Series:
    harmonics = _family(count, even)
    return fit(name, bound=bound, period_log2=period_log2, harmonics=harmonics, symmetry=symmetry)


STANDARD_BOUNDS: Final = (8.0, 12.0, 24.0, 56.0, 120.0)
STANDARD_ERRORS: Final = (1e-3, 2e-4, 2e-5, 5e-6, 1e-6)
"""What `write_library` fits ahead of time into series.json, where 64 harmonics suffice."""
_LIBRARY = Path(__file__).with_name("series.json")


@functools.cache
def _library() -> dict[tuple[str, float, float], Series]:
    """Series fitted ahead of time, by name, bound and wanted error: every run needs the same few."""
    entries = json.loads(_LIBRARY.read_text()) if _LIBRARY.exists() else []
    found = {}
    for name, bound, wanted, fields in entries:
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        found[name, bound, wanted] = Series(**plain)
    return found


def _known(name: str, bound: float, error: float) -> Series | None:
    """A standard series; ValueError for one that was tried ahead of time and has too many harmonics."""
    found = _library().get((name, float(bound), float(error)))
    if found is None and _library() and bound in STANDARD_BOUNDS and error in STANDARD_ERRORS:
        raise ValueError(
            f"{MOST_HARMONICS} harmonics are not enough for {name} on {bound:g} within {error:g}"
        )
    return found


def write_library() -> None:
    """Fit all standard series anew and write them to series.json; takes about a minute."""
    _LIBRARY.unlink(missing_ok=True)
    _library.cache_clear()
    lines = [json.dumps(entry, separators=(",", ":")) for entry in _fit_library()]
    _LIBRARY.write_text("[" + ",\n".join(lines) + "]\n")


def _fit_library() -> list[list[object]]:
    entries: list[list[object]] = []
    for bound in STANDARD_BOUNDS:
        for wanted in STANDARD_ERRORS:
            with contextlib.suppress(ValueError):
                best = _search("sigmoid", bound=bound, error=wanted, symmetry="odd")
                entries.append(["sigmoid", bound, wanted, attrs.asdict(best)])
                entries.append(["sigmoid'", bound, wanted, attrs.asdict(slope(best))])
            with contextlib.suppress(ValueError):
                tail = _search("softplus_tail", bound=bound, error=wanted, symmetry="none")
                entries.append(["softplus_tail", bound, wanted, attrs.asdict(tail)])
    return entries


@functools.cache
def sigmoid(bound: float, error: float) -> Series:
    """The shortest series for 1 / (1 + exp(-x)) on |x| <= bound, within `error`.

    Standard bounds and errors are looked up; others take a second or so the first time. Raises ValueError if
    64 harmonics are not enough.
    """
    return _known("sigmoid", bound, error) or _search("sigmoid", bound=bound, error=error, symmetry="odd")


@functools.cache
def softplus_tail(bound: float, error: float) -> Series:
    """The shortest series for log(1 + exp(-a)) on 0 <= a <= bound, within `error`.

    With a = |x|, softplus(x) = relu(x) + softplus_tail(a). As for `sigmoid`.
    """
    return _known("softplus_tail", bound, error) or _search(
        "softplus_tail", bound=bound, error=error, symmetry="none"
    )


@functools.cache
def slope(series: Series) -> Series:
    """The derivative of the function that `series` stands for, fitted anew on the same harmonics.

    One opening serves both, and this errs less than `Series.derivative`, which is exact for the series
    instead.
    """
    for known in _library().values():
        if (known.name, known.bound, known.harmonics) == (series.name + "'", series.bound, series.harmonics):
            return known
    turned: dict[bool, Symmetry] = {True: "none", False: "even" if any(series.sin) else "odd"}
    return fit(
        series.name + "'",
        bound=series.bound,
        period_log2=series.period_log2,
        harmonics=series.harmonics,
        symmetry=turned[series.low == 0.0],
    )


# -------------------------------------------------------------------- for a gate


@attrs.frozen
class Harmonics:
    """What one opening must deal to evaluate several series at once: F functions, K harmonics in all."""

    period_log2: int
    harmonics: tuple[int, ...]
    series: tuple[Series, ...]

    @property
    def dealt(self) -> int:
        """Words dealt for every element: a cosine and a sine of each harmonic."""
        return 2 * len(self.harmonics)

    def weights(self) -> tuple[Reals, Reals]:
        """Cosine and sine weights, [F, K] each, zero where a function does not use a harmonic."""
        cosine = np.zeros((len(self.series), len(self.harmonics)))
        sine = np.zeros_like(cosine)
        column = {k: i for i, k in enumerate(self.harmonics)}
        for row, series in enumerate(self.series):
            at = [column[k] for k in series.harmonics]
            cosine[row, at], sine[row, at] = series.cos, series.sin
        return cosine, sine

    def constants(self, scale: int) -> npt.NDArray[np.uint64]:
        """The constant terms [F] in fixed point, for one of the two parties that recombine."""
        rounded = [round(series.constant * 2**scale) % 2**64 for series in self.series]
        return np.array(rounded, dtype=np.uint64)

    def rounding(self, dealt_bits: int, coefficient_bits: int) -> tuple[float, ...]:
        """For each function, what fixed point can add to its `error`: a bound, not an estimate."""
        return tuple(series.rounding(dealt_bits, coefficient_bits) for series in self.series)


def union(*series: Series) -> Harmonics:
    """The harmonics that evaluate all these series from one opening; ValueError if their periods differ."""
    periods = {one.period_log2 for one in series}
    if len(periods) != 1:
        raise ValueError(f"one opening has one period, but the series have {sorted(2**p for p in periods)}")
    harmonics = sorted({k for one in series for k in one.harmonics})
    return Harmonics(periods.pop(), tuple(harmonics), series)
