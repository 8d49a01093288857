"""Chances that a test's statistic exceeds what was found, in the clear: p-values and critical values.

scipy computes them. It is imported where it is needed, since importing it takes longer than all of Tercet.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import attrs


@attrs.frozen
class ChiSquareTest:
    """A test's statistic, its degrees of freedom and its p-value; `nan` where there is nothing to test."""

    statistic: float
    dof: int
    p_value: float

    @classmethod
    def of(cls, statistic: float, dof: int) -> ChiSquareTest:
        """The test of a statistic. Without degrees of freedom nothing can deviate, and there is no test."""
        if not dof or math.isnan(statistic):
            return cls(math.nan, dof, math.nan)
        return cls(statistic, dof, chi_square_tail(statistic, dof))


def chi_square_tail(statistic: float, dof: int) -> float:
    """Chance that a chi-square variable exceeds a statistic."""
    from scipy.special import chdtrc

    return float(chdtrc(dof, max(statistic, 0.0)))


def two_sided(value: float) -> float:
    """The p-value of a standard normal z."""
    return math.erfc(abs(value) / math.sqrt(2))


def critical(alpha: float) -> float:
    """The value of z beyond which p-values are below alpha."""
    return NormalDist().inv_cdf(1 - alpha / 2)


def shown_p(value: float) -> str:
    """A p-value as it is printed: never as zero."""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
