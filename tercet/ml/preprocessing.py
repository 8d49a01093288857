"""Preparing columns in MPC: standardising by means and standard deviations that nobody sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Type, Value
from tercet.errors import PlanError, SchemaError
from tercet.ml.linalg import halvings, inverse_sqrt, mean
from tercet.ml.schema import ColumnSchema
from tercet.ml.table import ANALYST, UNIT_BITS, WIDE_SPREAD, Column, Part, Steps, Table, as_names

SPREAD_SCALE = 28
"""Fractional bits of mean squares, in units."""
ROOT_SCALE = 20
MEANS, ROOTS = "means of columns", "inverse standard deviations of columns"
WIDEST_SCALED = 2.0**14
"""A bound on standardised values, also of rows that the scaler did not learn from."""
LOW_POWER = -8
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


@attrs.frozen(eq=False)
class _Learned:
    """What a scaler has learned: from which table, and where means and inverse deviations are."""

    table: Table
    means: tuple[str, Type]
    roots: tuple[str, Type]

    def inputs(self, builder: Builder) -> tuple[Value, Value]:
        """Means and inverse deviations in a plan."""
        return builder.input(*self.means), builder.input(*self.roots)


@attrs.define(eq=False)
class StandardScaler:
    """Columns to mean zero and variance one, in MPC; means and deviations stay secret until `reveal`.

    Conventions are scikit-learn's: the variance divides by the number of rows; those that a filter dropped do
    not count. A column that does not vary
    where it was learned, or by less than a millionth of its mean, becomes zero. Booleans are left alone
    unless they are named in `columns`. On an `AsyncLake`, every method gives an awaitable of what is
    annotated here.
    """

    columns: str | Sequence[str] | None = None
    names_: tuple[str, ...] = attrs.field(default=(), init=False)
    _learned: _Learned | None = attrs.field(default=None, init=False, repr=False)

    def fit(self, table: Table) -> Self:
        """Learn means and deviations of the table's columns. Discloses nothing."""
        fitted: Self = table.lake.perform(self._fit(table), "fit")
        return fitted

    def transform(self, table: Table) -> Table:
        """The table with the learned columns standardised. Discloses nothing."""
        transformed: Table = table.lake.perform(self._transform(table), "transform")
        return transformed

    def fit_transform(self, table: Table) -> Table:
        """`fit` and `transform` of one table."""

        def both() -> Steps[Table]:
            yield from self._fit(table)
            return (yield from self._transform(table))

        transformed: Table = table.lake.perform(both(), "transform")
        return transformed

    def _fit(self, table: Table) -> Steps[Self]:
        table.require_rows("standardising", least=2)
        numeric = [column.name for column in table.columns if column.schema.kind != "boolean"]
        names = as_names(numeric if self.columns is None else self.columns)
        if not names:
            raise SchemaError(
                f"table {table.name!r} has no numeric column to standardise; name some in columns="
            )
        table.require_present(names)
        builder = table.lake.builder(f"standardise {table.name}")
        widest, selected = widest_variance(table, names), table.selected(builder)
        if selected is None:
            centred, means = centre(table.features(builder, names), table.rows)
            spread, part = squares(centred, table.rows, widest), table.rows / 2.0 ** halvings(table.rows)
            roots = inverse_sqrt(
                spread, low=LOW_POWER, high=high_power(widest), scale=ROOT_SCALE, factor=math.sqrt(part)
            )
        else:  # few rows may count: samples divide by what is not tiny
            from tercet.ml.disclosure import side_by_side
            from tercet.ml.sample import Sample

            samples = [Sample.of(table, builder, name, selected) for name in names]
            means = side_by_side(sample.mean(widest) for sample in samples)
            roots = side_by_side(sample.inverse_deviation(widest) for sample in samples)
        handles = [table.lake.handle("scaler") for _ in range(2)]
        means.store(handles[0])
        roots.store(handles[1])
        result = yield builder.plan()
        self.names_ = names
        self._learned = _Learned(table, *((handle, result.stored[handle]) for handle in handles))
        return self

    def _known(self) -> _Learned:
        if self._learned is None:
            raise PlanError("this scaler has not learned anything yet; call fit(table) first")
        return self._learned

    def _transform(self, table: Table) -> Steps[Table]:
        known = self._known()
        table.require_like(known.table, self.names_, "the scaler learned from")
        lake = table.lake
        builder = lake.builder(f"transform {table.name}")
        means, roots = known.inputs(builder)
        features = table.features(builder, self.names_, like=known.table)
        scaled = (features - means.column()).times(roots.column(), magnitude=WIDEST_SCALED)
        handle = lake.handle(f"{table.name}.scaled")
        stored = scaled.rescale(UNIT_BITS).shifted(-UNIT_BITS)
        stored.store(handle)
        result = yield builder.plan()
        place = len(table.parts)
        columns = []
        for column in table.columns:
            if column.name in self.names_:
                schema = ColumnSchema(name=column.name, kind="real", scale=UNIT_BITS)
                columns.append(Column(schema, column.owner, place, self.names_.index(column.name)))
            else:
                columns.append(column)
        parts = (*table.parts, Part(handle, result.stored[handle]))
        return attrs.evolve(table, name=f"{table.name}.scaled", columns=tuple(columns), parts=parts)

    def reveal(self, *, to: str = ANALYST) -> RevealedScaler:
        """Means and deviations in the columns' own units, to one receiver."""
        known = self._known()
        revealed: RevealedScaler = known.table.lake.perform(self._reveal(known, to), "reveal")
        return revealed

    def _reveal(self, known: _Learned, to: str) -> Steps[RevealedScaler]:
        builder = known.table.lake.builder("reveal scaler")
        for value, name in zip(known.inputs(builder), (MEANS, ROOTS), strict=True):
            value.reveal(name, to=to)
        result = yield builder.plan()
        exponents = [known.table.column(name).unit_exponent for name in self.names_]
        roots = result.revealed[ROOTS]
        deviations = np.divide(1.0, roots, out=np.zeros(len(roots)), where=roots > 0)
        scale = np.where(roots > 0, np.ldexp(deviations, exponents), 1.0)
        return RevealedScaler(self.names_, np.ldexp(result.revealed[MEANS], exponents), scale)


@attrs.frozen(eq=False)
class RevealedScaler:
    """What a scaler learned, in the columns' own units."""

    names_: tuple[str, ...]
    mean_: npt.NDArray[np.float64]
    scale_: npt.NDArray[np.float64]
