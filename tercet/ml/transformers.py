"""Transformers in MPC with scikit-learn's manner: standardising, scaling by extremes, imputing by means.

Each learns secret numbers from one table and applies them to that one or another; what it has learned stays
at the nodes, and owners' minimum counts go along with it. Rows that are equal stay equal: what is made of
them is rounded by its value alone. Numbers of one table say nothing on the rows of
another, so what they make of these is checked wherever public bounds are no proof that it fits.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml.computations import Calls, Data, computation
from tercet.ml.describe import quantiles, require_enough
from tercet.ml.disclosure import all_at_least, inverted, kept_where, side_by_side
from tercet.ml.draft import Draft
from tercet.ml.estimator import Estimator
from tercet.ml.faces import Async, Faced, M, Sync, computes, fits, makes_on_table
from tercet.ml.linalg import halvings, inverse_sqrt, reciprocal
from tercet.ml.preparation import made_of, out_of_range, owners, with_part
from tercet.ml.sample import Sample, weights_of
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, ColumnSchema, Kind, range_scale
from tercet.ml.spreads import LOW_POWER, ROOT_SCALE, centre, high_power, squares, widest_variance
from tercet.ml.stored_columns import UNIT_BITS, Column, Part, recipe_of
from tercet.ml.table import ANALYST, Steps, Table, as_names
from tercet.options import MAYBE_COLUMNS, RECEIVER, TABLE, Made, takes
from tercet.plans import Builder, Type, Value, concatenate
from tercet.tracebacks import short_tracebacks

WIDTH_POWERS = (-8, 16)
"""Ranges of columns in units are told apart between these powers of two; narrower ones count as constant."""
INVERSE_BITS = 30
WIDEST_COLUMN = 2.0 ** (INTEGER_BITS - UNIT_BITS)
"""No value of a column is larger, in units."""
WIDEST_SCALED = 2.0**24
"""A value less a mean, below 2^15 units, times the largest inverse deviation, 2^9."""
OTHER_SPREAD_BITS = 2
"""Standardised by another table, a column may spread over 2^2 deviations; it is stored that much coarser."""
TOO_FEW = "whether a transformer learned from fewer rows than owners allow"
NONE_LEFT = "whether a transformer learned from no row at all"
TRANSFORMER = Made(of="Transformer", what="a transformer")
SCALER = Made(of="StandardScaler", what="a StandardScaler")
MEANS, ROOTS, ENDS = "means of columns", "inverse standard deviations of columns", "ends of columns"


@attrs.frozen(eq=False)
class _Learned:
    """What a transformer has learned: from which table, and where the numbers are, by name."""

    table: Table
    stored: Mapping[str, tuple[str, Type]]

    def input(self, builder: Builder, name: str) -> Value:
        """Some of the numbers `(k,)` in a plan."""
        return builder.input(*self.stored[name])

    def covers(self, table: Table, names: Sequence[str]) -> bool:
        """Whether it was learned from these very columns, and from all of their rows that count."""

        def places(of: Table, columns: Iterable[Column]) -> set[tuple[str, int]]:
            return {(of.parts[column.part].handle, column.place) for column in columns}

        mine, theirs = (places(one, map(one.column, names)) for one in (self.table, table))
        return mine == theirs and places(self.table, self.table.selection) <= places(table, table.selection)


@short_tracebacks
@attrs.define(eq=False, repr=False)
class Transformer(Estimator, Faced[M], abc.ABC):
    """Columns of a table made into others, by secret numbers that were learned before.

    `columns` names those to transform; by default it is all that it makes sense for. Learning discloses
    nothing to receivers but, if a filter or missing values leave a secret number of rows, one bit: whether
    that is none, or fewer than the minimum count of an owner, and then it learns zeros. Transforming
    another table than the one learned from may disclose one bit: whether a new value left its range. On an
    `AsyncLake`, every method gives an awaitable of what is annotated here.
    """

    columns: str | Sequence[str] | None = attrs.field(default=None, validator=MAYBE_COLUMNS)
    names_: tuple[str, ...] = attrs.field(default=(), init=False)
    _learned: _Learned | None = attrs.field(default=None, init=False, repr=False)
    _origin: Data = attrs.field(default=None, init=False, repr=False)

    @fits
    @takes(table=TABLE)
    def fit(self, table: Table) -> Self:
        """Learn from a table. Raises SchemaError for columns that it makes no sense for, and too few rows."""
        fitted: Self = table.lake.perform(self._fit(table), "fit")
        return fitted

    @makes_on_table
    @takes(table=TABLE)
    def transform(self, table: Table) -> Table:
        """The table with the learned columns transformed. Raises SchemaError where they do not fit."""
        transformed: Table = table.lake.perform(self._transform(table), "transform")
        return transformed

    @makes_on_table
    @takes(table=TABLE)
    def fit_transform(self, table: Table) -> Table:
        """`fit` and `transform` of one table."""

        def calls() -> Calls[Table]:
            yield self._fit(table)
            made: Table = yield self._transform(table)
            return made

        transformed: Table = table.lake.perform(calls(), "transform")
        return transformed

    # -- how nodes know it -----------------------------------------------------------------------------------

    def from_computation(self, origin: Data) -> Self:
        """The same, which a computation has given."""
        self._origin = origin
        return self

    # -- what each of them says ------------------------------------------------------------------------------

    def _choose(self, table: Table) -> tuple[str, ...]:
        """Names of the columns to transform: by default the numeric ones."""
        numeric = [column.name for column in table.columns if column.schema.kind in ("real", "integer")]
        names = as_names(numeric if self.columns is None else self.columns)
        if not names:
            raise SchemaError(f"table {table.name!r} has no numeric column to scale; name some in columns=")
        table.require_present(names)
        return names

    def _least(self, table: Table) -> int:
        """How many rows have to count, for each column: what owners ask for, and one."""
        return max(1, table.min_count)

    @abc.abstractmethod
    def _learn(self, builder: Builder, table: Table, names: Sequence[str]) -> Mapping[str, Value]:
        """Vectors of numbers to keep, by name."""

    @abc.abstractmethod
    def _write(self, draft: Draft, table: Table, known: _Learned) -> list[tuple[Value, ColumnSchema]]:
        """The transformed columns `(rows,)` at the scales of their schemas, in the order of `names_`."""

    # -- what they have in common ----------------------------------------------------------------------------

    @computation("learn", group="tables", fresh=["self"], self=TRANSFORMER, table=TABLE)
    def _fit(self, table: Table) -> Steps[Self]:
        guarded, least = table.min_count > 1, self._least(table)
        require_enough(table, least, "learning from it")
        names = self._choose(table)
        self._learned, builder = None, table.lake.builder(f"{type(self).__name__} of {table.name}")
        selected = table.selected(builder)
        weights = [weights_of(table, builder, [name], selected) for name in names]
        counts = [each.sum().reshape(1) for each in weights if each is not None]
        enough = all_at_least(counts, least) if counts else None
        handles = {}
        for name, value in self._learn(builder, table, names).items():
            handles[name] = table.lake.handle(type(self).__name__)
            (value if enough is None else kept_where(enough, value)).store(handles[name])
        if enough is not None:
            inverted(enough).reveal(TOO_FEW if guarded else NONE_LEFT, to=ANALYST, kind="check")
        result = yield builder.plan()
        if result.revealed.get(NONE_LEFT, 0.0) > 0.5:
            raise SchemaError(
                f"table {table.name!r}: {type(self).__name__} would learn from no value at all of some "
                f"column among {', '.join(map(repr, names))}, since a filter or missing values leave none; "
                "filter by a wider condition, or leave that column out"
            )
        if result.revealed.get(TOO_FEW, 0.0) > 0.5:
            raise SchemaError(
                f"table {table.name!r}: {type(self).__name__} would learn from fewer than {least} "
                "rows, and their owners do not allow figures that rest on so few; filter by a wider condition"
            )
        stored = {name: (handle, result.stored[handle]) for name, handle in handles.items()}
        self.names_, self._learned = names, _Learned(table, stored)
        return self

    @property
    def learned_from(self) -> Table | None:
        """The table that it has learned from, if it has."""
        return None if self._learned is None else self._learned.table

    def _known(self) -> _Learned:
        if self._learned is None:
            raise PlanError(f"this {type(self).__name__} has not learned anything yet; call fit(table) first")
        return self._learned

    @computation("transform", group="tables", self=TRANSFORMER, table=TABLE)
    def _transform(self, table: Table) -> Steps[Table]:
        known = self._known()
        table.require_like(known.table, self.names_, f"the {type(self).__name__} learned from")
        draft = Draft(table.lake.builder(f"{type(self).__name__} on {table.name}"))
        handle, checked = table.lake.handle(table.name), out_of_range(self.names_)
        made = self._write(draft, table, known)
        stored = [value.shifted(-schema.scale).reshape(1, table.rows) for value, schema in made]
        concatenate(stored).store(handle)
        failed = draft.failed()
        if failed is not None:
            failed.reveal(checked, to=ANALYST, kind="check")
        result = yield draft.builder.plan()
        if failed is not None and result.revealed[checked] > 0.5:
            raise SchemaError(
                f"table {table.name!r}: by what {type(self).__name__} learned from {known.table.name!r}, "
                f"columns {', '.join(map(repr, self.names_))} spread further than their scales allow; fit it "
                "on rows like these"
            )
        columns = {}
        for place, (_, schema) in enumerate(made):
            sources = table.column(schema.name), known.table.column(schema.name)
            learned = [handle for handle, _ in known.stored.values()]
            columns[schema.name] = Column(
                schema,
                owners(sources),
                len(table.parts),
                place,
                sources=made_of(sources),
                recipe=recipe_of(learned, place, sources[0].recipe),
            )
        kept = attrs.evolve(table, min_count=max(table.min_count, known.table.min_count))
        return with_part(kept, Part(handle, result.stored[handle]), columns)


def _number(learned: Value, place: int) -> Value:
    """One of the learned numbers, `(1,)`."""
    return learned.slice(place, place + 1)


@attrs.define(eq=False, repr=False)
class StandardScaler(Transformer[M]):
    """Columns to mean zero and variance one, in MPC, as scikit-learn's; secret until `reveal`.

    The variance divides by the number of rows; those that a filter dropped do not count, and become zero
    where the filter is the one that the scaler learned by. A column that does not vary where it was learned,
    or by less than a millionth of its mean, becomes zero. Booleans are left alone unless they are named in
    `columns`. Transforming discloses nothing where it scales the table that it learned from; for another one,
    a bit: whether a column spreads over more than four of the learned deviations there.
    """

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> StandardScaler[Sync]: ...
        @property
        def _on_async(self) -> StandardScaler[Async]: ...

    def _learn(self, builder: Builder, table: Table, names: Sequence[str]) -> Mapping[str, Value]:
        table.require_rows("standardising", least=2)
        widest, selected = widest_variance(table, names), table.selected(builder)
        if selected is None:
            centred, means = centre(table.features(builder, names), table.rows)
            spread, part = squares(centred, table.rows, widest), table.rows / 2.0 ** halvings(table.rows)
            roots = inverse_sqrt(
                spread, low=LOW_POWER, high=high_power(widest), scale=ROOT_SCALE, factor=math.sqrt(part)
            )
            return {MEANS: means, ROOTS: roots}
        # Few rows may count: samples divide by what is not tiny.
        samples = [Sample.of(table, builder, name, selected) for name in names]
        means = side_by_side(sample.mean(widest) for sample in samples)
        return {MEANS: means, ROOTS: side_by_side(sample.inverse_deviation(widest) for sample in samples)}

    def _write(self, draft: Draft, table: Table, known: _Learned) -> list[tuple[Value, ColumnSchema]]:
        means, roots = (known.input(draft.builder, name) for name in (MEANS, ROOTS))
        features = table.features(draft.builder, self.names_, like=known.table)
        proved = known.covers(table, self.names_)
        scale = UNIT_BITS if proved else UNIT_BITS - OTHER_SPREAD_BITS
        scaled = (features - means.column()).times(roots.column(), magnitude=WIDEST_SCALED).nearest(scale)
        if proved and known.table.selection:
            selected = table.selected(draft.builder)
            scaled = scaled if selected is None else scaled * selected
        made = []
        for place, name in enumerate(self.names_):
            values = scaled.select([place]).squeeze()
            if not proved:
                draft.narrow(values, 2.0**OTHER_SPREAD_BITS)
            values = values.bounded(2.0 ** (INTEGER_BITS - scale), "spreads are proved, or checked")
            made.append((values, ColumnSchema(name, "real", scale)))
        return made

    @computes
    @takes(to=RECEIVER)
    def reveal(self, *, to: str = ANALYST) -> RevealedScaler:
        """Means and deviations in the columns' own units, to one receiver. Discloses them.

        Raises SchemaError for booleans of owners who set a minimum count: their means are counts, of which
        `describe` suppresses those that are small.
        """
        revealed: RevealedScaler = self._known().table.lake.perform(self._reveal(to), "reveal")
        return revealed

    @computation("reveal_scaler", group="statistics", self=SCALER, to=RECEIVER)
    def _reveal(self, to: str) -> Steps[RevealedScaler]:
        known = self._known()
        for name in self.names_:
            if known.table.min_count > 1 and known.table.column(name).schema.kind == "boolean":
                raise SchemaError(
                    f"table {known.table.name!r}, column {name!r} is boolean, so its mean tells how many "
                    "rows are 1, and its owners set a minimum count; use describe, which suppresses small "
                    "counts"
                )
        builder = known.table.lake.builder("reveal scaler")
        for name in (MEANS, ROOTS):
            known.input(builder, name).reveal(name, to=to, kind="figure")
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


@attrs.define(eq=False, repr=False)
class MinMaxScaler(Transformer[M]):
    """Columns to the range from 0 to 1, in MPC, as scikit-learn's MinMaxScaler with `clip=True`.

    The least value that was learned becomes 0, the largest 1, and what lies beyond them is cut off, so that
    the range is sure. Extremes are values of single rows: where owners set a minimum count k, it is the k-th
    least and the k-th largest value instead, which takes 2 k - 1 rows. Booleans are left alone unless they
    are named in `columns`. A column that does not vary becomes 0. Learning discloses to the nodes a random
    order of shuffled rows.
    """

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> MinMaxScaler[Sync]: ...
        @property
        def _on_async(self) -> MinMaxScaler[Async]: ...

    def _least(self, table: Table) -> int:
        """Each end lies among as many rows on either side as owners ask for."""
        return max(1, 2 * table.min_count - 1)

    def _learn(self, builder: Builder, table: Table, names: Sequence[str]) -> Mapping[str, Value]:
        ends = []
        for name in names:
            with builder.scope(name):
                sample = Sample.of(table, builder, name, table.selected(builder))
                found, _ = quantiles(sample, (0.0, 1.0), 1, inset=table.min_count - 1)
                ends += [_number(found, 0), _number(found, 1)]
        return {ENDS: side_by_side(ends)}

    def _write(self, draft: Draft, table: Table, known: _Learned) -> list[tuple[Value, ColumnSchema]]:
        learned, scale = known.input(draft.builder, ENDS), range_scale(0.0, 1.0, kind="real")
        low, high = WIDTH_POWERS
        made = []
        for place, name in enumerate(self.names_):
            least, most = _number(learned, 2 * place), _number(learned, 2 * place + 1)
            inverse = reciprocal(most - least, low=low, high=high, scale=INVERSE_BITS)
            x = table.features(draft.builder, [name], like=known.table).squeeze()
            below, above = (side.is_negative().to_ring() for side in (x - least, most - x))
            inside = x - least + below * (least - x) + above * (most - x)
            part = inside.times(inverse, magnitude=1.0 + 2e-5).nearest(scale)
            schema = ColumnSchema(name, "real", scale, range=(0.0, 1.0 + 2.0 ** (1 - SPREAD_BITS)))
            made.append((part, schema))
        return made


@attrs.define(eq=False, repr=False)
class MeanImputer(Transformer[M]):
    """Missing values become the mean of those that are there, in MPC, as scikit-learn's SimpleImputer.

    By default it fills all columns of a table that may have missing values. They become real, with the mean
    to the last place; integers that are stored exactly get it rounded. The columns that tell where values
    were missing stay, as features of their own. Transforming discloses nothing where it fills the table that
    it learned from; for another one, a bit: whether the filled columns spread further than their scales
    allow.
    """

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> MeanImputer[Sync]: ...
        @property
        def _on_async(self) -> MeanImputer[Async]: ...

    def _choose(self, table: Table) -> tuple[str, ...]:
        some = [
            column.name
            for column in table.columns
            if column.schema.missing is not None and column.schema.meaning is None
        ]
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

    def _learn(self, builder: Builder, table: Table, names: Sequence[str]) -> Mapping[str, Value]:
        means, selected = [], table.selected(builder)
        for name in names:
            with builder.scope(name):
                sample = Sample.of(table, builder, name, selected)
                means.append(sample.mean(widest_variance(table, [name])))
        return {MEANS: side_by_side(means)}

    def _write(self, draft: Draft, table: Table, known: _Learned) -> list[tuple[Value, ColumnSchema]]:
        learned, proved, made = known.input(draft.builder, MEANS), known.covers(table, self.names_), []
        for place, name in enumerate(self.names_):
            mine, source = table.column(name).schema, known.table.column(name)
            values = table.features(draft.builder, [name], like=known.table, filled=True).squeeze()
            if mine.missing is not None:
                (flag,) = table.raw(draft.builder, [mine.missing])
                values = values + flag.squeeze() * (_number(learned, place) - values)
            values = values.bounded(WIDEST_COLUMN, "a mean of values")
            if not proved:
                parts = max(1.0, table.rows_of_sources / table.rows)  # a sample may spread further by chance
                draft.narrow(values, source.widest_spread * math.sqrt(parts))
            scale = UNIT_BITS if source.schema.kind == "boolean" else source.schema.scale
            kind: Kind = "integer" if source.is_wide else "real"
            schema = ColumnSchema(name, kind, scale, range=_hull(mine.range, source.schema.range))
            made.append((values.shifted(scale - UNIT_BITS), schema))
        return made


def _hull(x: tuple[float, float] | None, y: tuple[float, float] | None) -> tuple[float, float] | None:
    """The least range that holds two; none where one of them is not known."""
    return None if x is None or y is None else (min(x[0], y[0]), max(x[1], y[1]))
