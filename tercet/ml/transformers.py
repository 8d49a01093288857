"""Transformers in MPC with scikit-learn's manner: imputing by means, scaling to the range from 0 to 1.

Each learns secret numbers from one table and applies them to that one or another; what it has learned stays
at the nodes. (Standardising is in `tercet.ml.preprocessing`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs

from tercet.actors import Builder, Type, Value, concatenate
from tercet.errors import PlanError, SchemaError
from tercet.ml.describe import quantiles
from tercet.ml.disclosure import side_by_side
from tercet.ml.draft import Draft
from tercet.ml.linalg import reciprocal
from tercet.ml.preparation import out_of_range, with_part
from tercet.ml.preprocessing import widest_variance
from tercet.ml.sample import Sample
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, ColumnSchema, range_scale
from tercet.ml.table import ANALYST, UNIT_BITS, Column, Part, Steps, Table, as_names

WIDTH_POWERS = (-8, 16)
"""Ranges of columns in units are told apart between these powers of two; narrower ones count as constant."""
INVERSE_BITS = 30


@attrs.frozen(eq=False)
class _Learned:
    """What a transformer has learned: from which table, and the numbers `(k,)` in units, at scale 16."""

    table: Table
    numbers: tuple[str, Type]

    def input(self, builder: Builder) -> Value:
        """The numbers in a plan."""
        return builder.input(*self.numbers)


@attrs.define(eq=False)
class _Transformer:
    """What both have in common: columns, learning, and a part of new columns."""

    columns: str | Sequence[str] | None = None
    names_: tuple[str, ...] = attrs.field(default=(), init=False)
    _learned: _Learned | None = attrs.field(default=None, init=False, repr=False)

    def fit(self, table: Table) -> Self:
        """Learn from a table. Discloses nothing to receivers, and to the nodes at most a random order."""
        fitted: Self = table.lake.perform(self._fit(table), "fit")
        return fitted

    def transform(self, table: Table) -> Table:
        """The table with the learned columns transformed."""
        transformed: Table = table.lake.perform(self._transform(table), "transform")
        return transformed

    def fit_transform(self, table: Table) -> Table:
        """`fit` and `transform` of one table."""

        def steps() -> Steps[Table]:
            yield from self._fit(table)
            return (yield from self._transform(table))

        transformed: Table = table.lake.perform(steps(), "transform")
        return transformed

    def _choose(self, table: Table) -> tuple[str, ...]:
        raise NotImplementedError

    def _learn(self, table: Table, builder: Builder, name: str) -> list[Value]:
        """Numbers `(1,)` each, in units at scale 16."""
        raise NotImplementedError

    def _fit(self, table: Table) -> Steps[Self]:
        table.require_rows("learning from it")
        names = self._choose(table)
        builder = table.lake.builder(f"{type(self).__name__} of {table.name}")
        learned: list[Value] = []
        for name in names:
            with builder.scope(name):
                learned += self._learn(table, builder, name)
        handle = table.lake.handle(type(self).__name__)
        side_by_side(learned).store(handle)
        result = yield builder.plan()
        self.names_, self._learned = names, _Learned(table, (handle, result.stored[handle]))
        return self

    def _known(self, table: Table) -> _Learned:
        if self._learned is None:
            raise PlanError(f"this {type(self).__name__} has not learned anything yet; call fit(table) first")
        table.require_like(self._learned.table, self.names_, f"the {type(self).__name__} learned from")
        return self._learned

    def _transform(self, table: Table) -> Steps[Table]:
        raise NotImplementedError


def _number(learned: Value, place: int) -> Value:
    """One of the learned numbers, `(1,)`."""
    return learned.slice(place, place + 1)


@attrs.define(eq=False)
class MeanImputer(_Transformer):
    """Missing values become the mean of those that are there, in MPC, as scikit-learn's SimpleImputer.

    By default it fills all columns of a table that may have missing values. They become real, with the mean
    to the last place; integers that are stored exactly get it rounded. The columns that tell where values
    were missing stay, as features of their own. Discloses nothing where it fills the table that it learned
    from; for another one, a bit: whether the filled columns spread further than their scales allow.
    """

    def _choose(self, table: Table) -> tuple[str, ...]:
        some = [column.name for column in table.columns if column.schema.missing is not None]
        names = as_names(some if self.columns is None else self.columns)
        for name in names:
            if table.column(name).schema.missing is None:
                raise SchemaError(
                    f"table {table.name!r}, column {name!r} has no missing values to fill; leave it out of "
                    "columns="
                )
        if not names:
            raise SchemaError(
                f"table {table.name!r} has no column with missing values; there is nothing to fill"
            )
        return names

    def _learn(self, table: Table, builder: Builder, name: str) -> list[Value]:
        sample = Sample.of(table, builder, name, table.selected(builder))
        return [sample.mean(widest_variance(table, [name]))]

    def _transform(self, table: Table) -> Steps[Table]:
        known = self._known(table)
        lake, builder = table.lake, table.lake.builder(f"fill {table.name}")
        draft, learned = Draft(builder), known.input(builder)
        filled = []
        for place, name in enumerate(self.names_):
            beside = table.column(name).schema.missing
            values = table.features(builder, [name], like=known.table, filled=True).squeeze()
            if beside is not None:
                (flag,) = table.raw(builder, [beside])
                values = values + flag.squeeze() * (_number(learned, place) - values)
            values = values.bounded(2.0 ** (INTEGER_BITS - UNIT_BITS), "a mean of values")
            if table.keys.handle != known.table.keys.handle:
                draft.narrow(values, known.table.column(name).widest_spread)
            filled.append(values.reshape(1, table.rows))
        handle = lake.handle(f"{table.name}.filled")
        concatenate(filled).shifted(-UNIT_BITS).store(handle)
        failed, checked = draft.failed(), out_of_range(self.names_)
        if failed is not None:
            failed.reveal(checked, to=ANALYST)
        result = yield builder.plan()
        if failed is not None and result.revealed[checked][0] > 0.5:
            raise SchemaError(
                f"table {table.name!r}: with the means of {known.table.name!r}, columns "
                f"{', '.join(map(repr, self.names_))} spread further than their scales allow; fit the "
                "imputer on rows like these"
            )
        columns = {}
        for place, name in enumerate(self.names_):
            mine, source = table.column(name), known.table.column(name)
            scale = UNIT_BITS if source.schema.kind == "boolean" else source.schema.scale
            schema = ColumnSchema(
                name, "integer" if source.is_wide else "real", scale, range=source.schema.range
            )
            columns[name] = Column(schema, mine.owner, len(table.parts), place, mine.min_count)
        return with_part(table, Part(handle, result.stored[handle]), columns)


@attrs.define(eq=False)
class MinMaxScaler(_Transformer):
    """Columns to the range from 0 to 1, in MPC, as scikit-learn's MinMaxScaler with `clip=True`.

    The least value that was learned becomes 0, the largest 1, and what lies beyond them in another table is
    cut off, so that the range is sure. Booleans are left alone unless they are named in `columns`. A column
    that does not vary becomes 0. Learning discloses to the nodes a random order of shuffled rows.
    """

    def _choose(self, table: Table) -> tuple[str, ...]:
        numeric = [column.name for column in table.columns if column.schema.kind != "boolean"]
        names = as_names(numeric if self.columns is None else self.columns)
        if not names:
            raise SchemaError(f"table {table.name!r} has no numeric column to scale; name some in columns=")
        table.require_present(names)
        return names

    def _learn(self, table: Table, builder: Builder, name: str) -> list[Value]:
        ends, _ = quantiles(Sample.of(table, builder, name, table.selected(builder)), (0.0, 1.0), 1)
        return [_number(ends, 0), _number(ends, 1)]

    def _transform(self, table: Table) -> Steps[Table]:
        known = self._known(table)
        lake, builder = table.lake, table.lake.builder(f"scale {table.name}")
        learned, scale = known.input(builder), range_scale(0.0, 1.0, kind="real")
        low, high = WIDTH_POWERS
        scaled = []
        for place, name in enumerate(self.names_):
            least, most = _number(learned, 2 * place), _number(learned, 2 * place + 1)
            inverse = reciprocal(most - least, low=low, high=high, scale=INVERSE_BITS)
            x = table.features(builder, [name], like=known.table).squeeze()
            below, above = (side.is_negative().to_ring() for side in (x - least, most - x))
            inside = x - least + below * (least - x) + above * (most - x)
            part = inside.times(inverse, magnitude=1.0 + 2e-5).rescale(scale)
            scaled.append(part.reshape(1, table.rows))
        handle = lake.handle(f"{table.name}.scaled")
        concatenate(scaled).shifted(-scale).store(handle)
        result = yield builder.plan()
        columns = {}
        for place, name in enumerate(self.names_):
            mine = table.column(name)
            schema = ColumnSchema(name, "real", scale, range=(0.0, 1.0 + 2.0 ** (1 - SPREAD_BITS)))
            columns[name] = Column(schema, mine.owner, len(table.parts), place, mine.min_count)
        return with_part(table, Part(handle, result.stored[handle]), columns)
