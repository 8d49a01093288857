"""Preparing columns in MPC: standardising by means and standard deviations that nobody sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Type, Value
from tercet.errors import SchemaError
from tercet.ml.linalg import inverse_sqrt, mean
from tercet.ml.schema import ColumnSchema
from tercet.ml.table import ANALYST, UNIT_BITS, Column, Part, Steps, Table, Workspace

SPREAD_SCALE = 24
"""Fractional bits of variances, in units."""
ROOT_SCALE = 20
LOW_POWER, HIGH_POWER = -7, 5
"""Variances in units are told apart from 4^-8 to 4^5; a column that varies less counts as constant."""
WIDEST_SQUARE = 2.0**8
"""A bound on the mean square of a column in units: uploads are checked for a spread of at most 2^20 stored units."""


def centre(features: Value, rows: int) -> tuple[Value, Value]:
    """Features less their means `(d, n)`, and the means `(d,)`, at the scale of the features. 4 rounds."""
    means = mean(features.sum(), rows, scale=features.scale)
    return features - means.column(), means


def variances(centred: Value, rows: int, rows_of_sources: int) -> Value:
    """Mean squares of centred columns, `(d,)` at scale 24 (population variance, as scikit-learn's). 4 rounds.

    The sum of squares about the mean over some rows of a source is at most the sum over all of them, which the owner's
    upload bounds.
    """
    total = centred.dot_squares(WIDEST_SQUARE * max(rows, rows_of_sources))
    return mean(total, rows, scale=SPREAD_SCALE).bounded(WIDEST_SQUARE * 2, "uploads bound the spread")


@attrs.define(eq=False)
class StandardScaler:
    """Columns to mean zero and variance one, in MPC; means and deviations stay secret until `reveal`.

    Conventions are scikit-learn's: the variance divides by the number of rows. Booleans are left alone unless they are named
    in `columns`.
    """

    columns: Sequence[str] | None = None
    table_: Table | None = attrs.field(default=None, init=False, repr=False)
    names_: tuple[str, ...] = attrs.field(default=(), init=False)
    _handles: tuple[str, ...] = attrs.field(default=(), init=False, repr=False)
    _types: tuple[Type, ...] = attrs.field(default=(), init=False, repr=False)

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
        names = tuple(self.columns if self.columns is not None else numeric)
        if not names:
            raise SchemaError(f"table {table.name!r} has no numeric column to standardise; name some in columns=")
        builder = table.lake.builder(f"standardise {table.name}")
        centred, means = centre(table.features(builder, names), table.rows)
        spread = variances(centred, table.rows, table.rows_of_sources)
        roots = inverse_sqrt(spread, low=LOW_POWER, high=HIGH_POWER, scale=ROOT_SCALE)
        handles = [table.lake.handle("scaler") for _ in range(2)]
        for value, handle in zip((means, roots), handles, strict=True):
            value.store(handle)
        result = yield builder.plan()
        self.table_, self.names_ = table, names
        self._handles = tuple(handles)
        self._types = tuple(result.stored[handle] for handle in handles)
        return self

    def _learned(self, builder: Builder) -> tuple[Value, Value]:
        if not self._handles:
            raise SchemaError("this scaler has not learned anything yet; call fit(table) first")
        means, roots = (builder.input(h, t) for h, t in zip(self._handles, self._types, strict=True))
        return means, roots

    def _transform(self, table: Table) -> Steps[Table]:
        lake: Workspace = table.lake
        builder = lake.builder(f"transform {table.name}")
        means, roots = self._learned(builder)
        features = table.features(builder, self.names_)
        self._check_units(table)
        scaled = (features - means.column()).times(roots.column(), magnitude=2.0**22)
        handle = lake.handle(f"{table.name}.scaled")
        stored = scaled.rescale(UNIT_BITS).shifted(-UNIT_BITS)
        stored.bounded(2.0**30, "standardised values are small").store(handle)
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

    def _check_units(self, table: Table) -> None:
        assert self.table_ is not None  # noqa: S101 - _learned raised otherwise
        for name in self.names_:
            if table.column(name).unit_exponent != self.table_.column(name).unit_exponent:
                raise SchemaError(
                    f"column {name!r} has another scale in table {table.name!r} than in {self.table_.name!r}, which the scaler "
                    "learned from; upload it with the same scales="
                )

    def reveal(self, *, to: str = ANALYST) -> RevealedScaler:
        """Means and deviations in the columns' own units, to one receiver."""
        if self.table_ is None:
            raise SchemaError("this scaler has not learned anything yet; call fit(table) first")
        revealed: RevealedScaler = self.table_.lake.perform(self._reveal(self.table_, to), "reveal")
        return revealed

    def _reveal(self, table: Table, to: str) -> Steps[RevealedScaler]:
        builder = table.lake.builder("reveal scaler")
        means, roots = self._learned(builder)
        means.reveal("means of columns", to=to)
        roots.reveal("inverse standard deviations of columns", to=to)
        result = yield builder.plan()
        units = np.array([2.0 ** table.column(name).unit_exponent for name in self.names_])
        return RevealedScaler(
            self.names_,
            result.revealed["means of columns"] * units,
            units / result.revealed["inverse standard deviations of columns"],
        )


@attrs.frozen(eq=False)
class RevealedScaler:
    """What a scaler learned, in the columns' own units."""

    names_: tuple[str, ...]
    mean_: npt.NDArray[np.float64]
    scale_: npt.NDArray[np.float64]
