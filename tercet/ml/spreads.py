"""Centring columns and bounding how far they spread: what scalers, fits and statistics begin with.

Owners check at upload that no column spreads further than its scale allows. That promise, and the row counts
of tables, are all that bounds sums of squares here; `widest_variance` carries it from the rows of an upload
to those that a join or a split left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tercet.ml.linalg import halvings, mean
from tercet.ml.schema import SPREAD_BITS, VARYING_BITS
from tercet.ml.stored_columns import WIDE_SPREAD
from tercet.ml.table import Table
from tercet.plans import Value

SPREAD_SCALE = 28
"""Fractional bits of mean squares, in units."""
ROOT_SCALE = 20
"""Fractional bits of inverse deviations."""
LOW_POWER = VARYING_BITS - SPREAD_BITS
"""Variances in units are told apart from 4^-8 on; a column that varies less counts as constant."""


def widest_variance(table: Table, names: Sequence[str]) -> float:
    """A bound on the mean square of columns about their mean, in units squared.

    Their sum over some rows of a source is at most the sum over all of them, and owners checked at upload
    that columns have a spread of at most one unit, or WIDE_SPREAD if they are integers.
    """
    spread = WIDE_SPREAD if any(table.column(name).is_wide for name in names) else 1.0
    return 1.02 * spread**2 * max(1.0, table.rows_of_sources / table.rows)


def high_power(variance: float) -> int:
    """The least power of four above a variance."""
    return max(1, math.ceil(math.log2(variance) / 2))


def centre(features: Value, rows: int) -> tuple[Value, Value]:
    """Features less their means `(d, n)`, and the means `(d,)`, at the features' scale. 2 or 4 rounds."""
    means = mean(features.sum(), rows, scale=features.scale)
    return features - means.column(), means


def squares(centred: Value, rows: int, widest: float) -> Value:
    """Sums over rows of the squares of columns, over 2^halvings(rows), `(d,)` at scale 28. 2 rounds.

    `widest` promises a bound on their means.
    """
    total = centred.dot_squares(widest * rows)
    return total.shifted(halvings(rows)).rescale(SPREAD_SCALE)
