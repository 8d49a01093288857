"""Tables of a lake: public schemas over columns that only the nodes hold, as shares.

A `Table` is a handle: names, kinds and scales of columns, a row count, and where the shares lie at the nodes.
Columns come in parts, one `(columns, rows)` matrix for each upload, so that a joined table is the gathered
parts of its sources side by side. Everything that computes is a generator of plans (`Steps`): it yields plans
and is sent what they gave. The lake drives it, with or without `await`, so one code serves scripts, notebooks
and trio programs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload
from typing import Protocol as Interface

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import selecting, views
from tercet.ml.computations import Calls, Data, called, computation, referred
from tercet.ml.expressions import Expression
from tercet.ml.faces import Async, F, Faced, Sync, computes
from tercet.ml.groups import Category, GroupBy, Groups
from tercet.ml.join_options import HOW, SHARE, SIZES, SUFFIXES, VALIDATE, How, Sizes, Validate
from tercet.ml.matches import warn_of_few_matches
from tercet.ml.meanings import refusal
from tercet.ml.schema import INTEGER_BITS, suggest
from tercet.ml.stored_columns import UNIT_BITS, Column, Part
from tercet.options import (
    CATEGORIES,
    COLUMN,
    COLUMNS,
    CONDITION,
    FLAG,
    KINDS,
    MAYBE_COLUMN,
    MAYBE_COLUMNS,
    RANDOM_STATE,
    RECEIVER,
    RENAMED,
    STATISTICS,
    TABLE,
    TEST_SIZE,
    takes,
)
from tercet.plans import Builder, Plan, Value, concatenate
from tercet.plans.results import RunResult
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.association import Correlations, Crosstab
    from tercet.ml.describe import Description

T = TypeVar("T")
Steps = Generator[Plan, RunResult, T]
"""A computation as a generator: yields plans, is sent their results, returns its own."""

ANALYST = "analyst"
"""Who receives what is revealed, unless someone else is named: the client that runs the plans."""
NEAR_SCALES = 8
"""Tables with scales of a column that differ by no more bits are taken to measure the same."""


class Workspace(Interface):
    """What tables need of a lake."""

    def perform(self, steps: Steps[Any] | Calls[Any], phase: str) -> Any:
        """Run the plans that `steps` yields, or the computations; the result, or an awaitable of it."""

    def submit(self, plan: Steps[Any]) -> Any:
        """Have the first plan of `plan` run, whoever waits; a job, or an awaitable of it."""

    def collect(self, steps: Steps[Any], job: Any) -> Any:
        """Finish a computation that was submitted; its result, or an awaitable of it."""

    def builder(self, name: str) -> Builder:
        """A builder for a plan that this lake can run."""

    def handle(self, hint: str) -> str:
        """A new name for a value at the nodes."""

    def temporary(self, hint: str) -> str:
        """A new name for values that later plans of a computation read, and that go when it ends.

        Those are all whose names begin with it.
        """

    def checkpoint_steps(self, cells: int) -> int | None:
        """After how many steps over so many cells of a table a fit has a checkpoint, None for never."""

    def keep_model(self, model: Any, name: str, readers: Sequence[str]) -> Any:
        """Keep a `SecretModel` under a name; nothing, or an awaitable of it."""


def as_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def _assigned(name: str, condition: str) -> str:
    """A condition on a column in its place, as an argument of `assign`."""
    made = f"table[{name!r}] {condition}"
    return f"{name}={made}" if name.isidentifier() else f"**{{{name!r}: {made}}}"


@short_tracebacks
@attrs.frozen(eq=False)
class Table(Faced[F]):
    """A virtual table: a public schema, a public row count, secret contents.

    On an `AsyncLake`, what computes (`join`, `split`, `reveal`) gives an awaitable of what is annotated here.
    `rows_of_sources` is the largest row count among the tables it came from: spreads are promised over those
    rows. `selection` are secret columns of zeros and ones, from `filter`: rows with a zero in one of them do
    not count, though nobody knows which those are. `min_count` is the strictest rule of the owners whose data
    made it: the least number of rows that a revealed figure may rest on. It is a rule of the table and not of
    columns, since which rows a table has is data too: those of a join tell who is in all of its tables.
    Unless keys are `unique`, several rows may have the same.
    """

    lake: Workspace = attrs.field(repr=False)
    name: str
    columns: tuple[Column, ...]
    rows: int
    parts: tuple[Part, ...] = attrs.field(repr=False)
    keys: Part = attrs.field(repr=False)
    key_names: tuple[str, ...]
    key_types: tuple[str, ...]
    rows_of_sources: int
    selection: tuple[Column, ...] = ()
    min_count: int = 1
    uploads: frozenset[str] = frozenset()
    """Keys of the uploads whose rows these are, by their handles."""
    key_holders: frozenset[str] = frozenset()
    """Owners whose own uploads have the keys of all these rows."""
    most_counted: int | None = None
    """How many of the rows count at most, where that is known to be fewer, as of matches and dummies."""
    unique: bool = True
    repeats: int | None = None
    """How many rows have a key that another row has before them, where that was counted."""
    origin: Data = attrs.field(default=None, repr=False)
    """What nodes know it by; see `tercet.ml.computations`."""

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> Table[Sync]: ...
        @property
        def _on_async(self) -> Table[Async]: ...

    __repr__, _repr_html_ = views.table_text, views.table_html

    def __len__(self) -> int:
        return self.rows

    @property
    def countable(self) -> int:
        """Of how many rows those that count are some or all, as everyone knows."""
        return self.rows if self.most_counted is None else min(self.rows, self.most_counted)

    @property
    def filtered_from(self) -> int | None:
        """The same where it is secret which of them count, else None."""
        return self.countable if self.selection else None

    @property
    def column_names(self) -> list[str]:
        """Names of all columns but the keys."""
        return [column.name for column in self.columns]

    @property
    def numeric_names(self) -> list[str]:
        """Names of the columns that hold numbers, booleans among them."""
        return [column.name for column in self.columns if column.schema.meaning is None]

    def column(self, name: str) -> Column:
        """A column by name. Raises SchemaError with the nearest names."""
        COLUMN.require(f"table {self.name!r}", "column", name)
        for column in self.columns:
            if column.name == name:
                return column
        if name in self.key_names:
            raise SchemaError(
                f"table {self.name!r}: column {name!r} is a key, which links rows and is not computed on; "
                "upload it as a second column if it means something"
            )
        raise SchemaError(f"table {self.name!r} has no column {name!r}. {suggest(name, self.column_names)}")

    @overload
    def __getitem__(self, name: str) -> Expression: ...
    @overload
    def __getitem__(self, name: list[str]) -> Table[F]: ...
    @overload
    def __getitem__(self, name: Expression) -> Any: ...
    def __getitem__(self, name: str | list[str] | Expression) -> Any:
        """A column, to compute with (`table["age"] * 2`), or a table of some columns (`table[["age"]]`).

        Or of the rows where a condition holds (`table[table["age"] > 60]`), as `filter` gives it.
        """
        if isinstance(name, Expression):
            rows: Any = self
            return rows.filter(name)
        if isinstance(name, list):
            chosen = [self.column(one) for one in name]
            beside = [self.column(one.schema.missing) for one in chosen if one.schema.missing is not None]
            origin = None if self.origin is None else {"$columns": [self.origin, list(name)]}
            return attrs.evolve(self, columns=tuple(dict.fromkeys([*chosen, *beside])), origin=origin)
        return Expression.of(self, name)

    @takes(columns=COLUMNS)
    def drop(self, columns: str | Sequence[str]) -> Table[F]:
        """The table without some columns; with one that may be missing goes the one that tells where.

        Nothing is computed or disclosed. Raises SchemaError for columns that there are not, and for what
        alone tells where a column that stays is missing.
        """
        return self[selecting.without(self, as_names(columns))]

    @takes(names=RENAMED)
    def rename(self, names: Mapping[str, str]) -> Table[F]:
        """The table with other names for some columns, `{"old": "new"}`, keys among them.

        Nothing is computed or disclosed. Raises SchemaError for columns that there are not, and for two of
        one name.
        """
        return selecting.renamed(self, names)

    @takes(include=KINDS, exclude=KINDS)
    def select_dtypes(
        self, include: str | Sequence[str] | None = None, exclude: str | Sequence[str] | None = None
    ) -> Table[F]:
        """The table of columns of some kinds, or of all but some.

        Kinds are real, integer, boolean, category, date and datetime; "number" is the first two of them.
        """
        return self[selecting.of_kinds(self, include, exclude)]

    def head(self, n: int = 5) -> NoReturn:
        """Refused: rows are secret."""
        raise SchemaError(
            f"table {self.name!r}: nobody sees its first {n} rows, for rows are secret; describe() and "
            "crosstab() tell what rests on many, and lake.rehearse() has made-up rows to look at"
        )

    # -- how nodes know it -----------------------------------------------------------------------------------

    def to_data(self, *, fresh: bool = False) -> Data:  # noqa: ARG002 - a table is what it is
        """How requests refer to it. Raises PlanError for one that nodes know no name of."""
        return referred(self.origin, what=f"table {self.name!r}")

    def from_computation(self, origin: Data) -> Table[F]:
        """The same, which a computation has given."""
        return attrs.evolve(self, origin=origin)

    # -- the sharings of columns in a plan -------------------------------------------------------------------

    def raw(self, builder: Builder, names: Sequence[str]) -> list[Value]:
        """The stored integers of each column, `(1, rows)` at scale 0."""
        values = []
        for name in names:
            column = self.column(name)
            part = self.parts[column.part]
            matrix = builder.input(part.handle, part.type)
            limit = 1 if column.schema.kind == "boolean" else 2.0**INTEGER_BITS
            values.append(matrix.select([column.place]).bounded(limit, "checked by the owner at upload"))
        return values

    def features(
        self, builder: Builder, names: Sequence[str], *, like: Table | None = None, filled: bool = False
    ) -> Value:
        """Columns in units, `(columns, rows)` at scale 16: of spread about one, whatever they measure.

        With `like`, in the units that another table stores them in; that rounds to the nearest where those
        are larger, in about 10 rounds. Raises SchemaError for columns with missing values, unless what fills
        them will do.
        """
        chosen = [self.column(name) for name in names]
        self.require_numbers(names)
        if not filled:
            self.require_present(names)
        target = self if like is None else like
        moves = [column.unit_exponent - target.column(column.name).unit_exponent for column in chosen]
        extra = max(0, -min(moves))
        blocks: list[Value] = []
        for part, run in itertools.groupby(zip(chosen, moves, strict=True), lambda pair: pair[0].part):
            columns, bits = zip(*run, strict=True)
            source = self.parts[part]
            matrix = builder.input(source.handle, source.type).bounded(
                2.0**INTEGER_BITS, "checked by the owner at upload"
            )
            block = matrix.select([column.place for column in columns])
            lift = [
                extra + move + (UNIT_BITS if column.schema.kind == "boolean" else 0)
                for column, move in zip(columns, bits, strict=True)
            ]
            if any(lift):
                raised = block * builder.constant(np.exp2(lift)[:, None])
                why = "booleans are small, and so is what has larger units elsewhere"
                block = raised.bounded(2.0 ** (INTEGER_BITS + extra), why)
            blocks.append(block)
        return concatenate(blocks).shifted(UNIT_BITS + extra).nearest(UNIT_BITS)

    def selected(self, builder: Builder) -> Value | None:
        """Ones for rows that count and zeros for others `(rows,)`; None if all do."""
        found: Value | None = None
        for column in self.selection:
            part = self.parts[column.part]
            flag = builder.input(part.handle, part.type).select([column.place]).squeeze()
            flag = flag.bounded(1.0, "a condition")
            found = flag if found is None else (found * flag).bounded(1.0, "a product of bits")
        return found

    def require_rows(self, purpose: str, least: int = 1) -> None:
        """Raise SchemaError if the table has too few rows for something."""
        if self.rows < least:
            raise SchemaError(
                f"table {self.name!r} has {self.rows} rows, {purpose} needs at least {least}; "
                + (
                    "no key occurs in all the tables that were joined: compare how they write it"
                    if not self.rows
                    else "add rows"
                )
            )

    def require_numbers(self, names: Sequence[str]) -> None:
        """Raise SchemaError if a column has labels or dates, with which nothing can be computed."""
        for schema in (self.column(name).schema for name in names):
            if schema.meaning is not None:
                raise refusal(
                    schema.meaning, f"table {self.name!r}, column {schema.name!r}", "not a column of numbers"
                )

    def require_present(self, names: Sequence[str]) -> None:
        """Raise SchemaError if values of a column may be missing."""
        for column in map(self.column, names):
            if column.schema.missing is not None:
                raise SchemaError(
                    f"table {self.name!r}, column {column.name!r} may have missing values: fill them with "
                    f"MeanImputer() or table[{column.name!r}].fillna(...), or leave such rows out with "
                    f"table.dropna([{column.name!r}])"
                )

    def require_boolean(self, name: str, purpose: str) -> None:
        """Raise SchemaError if a column is not 0/1, or may be missing."""
        self.require_present([name])
        kind = self.column(name).schema.kind
        if kind != "boolean":
            raise SchemaError(
                f"table {self.name!r}, {purpose} {name!r} is {kind}, not 0/1; say which code counts as 1, "
                f"2 as in table.assign({_assigned(name, '== 2')}), or have its owner upload zeros and ones"
            )

    def require_like(self, other: Table, names: Sequence[str], relation: str) -> None:
        """Raise SchemaError unless columns exist, at scales near those that they have in another table."""
        if self.lake is not other.lake:
            raise SchemaError(
                f"table {self.name!r} is in another lake than {other.name!r}, which {relation}; upload both "
                "to one"
            )
        pairs = [(self.column(name), other.column(name)) for name in names]
        far = [
            (mine, theirs)
            for mine, theirs in pairs
            if abs(mine.unit_exponent - theirs.unit_exponent) > NEAR_SCALES
        ]
        if far:
            mine, theirs = far[0]
            raise SchemaError(
                f"column {mine.name!r} has scale {mine.schema.scale} in table {self.name!r} and scale "
                f"{theirs.schema.scale} in {other.name!r}, which {relation}: it measures something else, or "
                "in another unit; convert it, or upload it with "
                f"scales={ {theirs.name: theirs.schema.scale for _, theirs in far} }"
            )

    # -- what users call -------------------------------------------------------------------------------------

    @computes
    @takes(on=COLUMNS, how=HOW, validate=VALIDATE, sizes=SIZES, suffixes=SUFFIXES, min_share=SHARE)
    def join(
        self,
        *others: Table[F],
        on: str | Sequence[str],
        how: How = "inner",
        validate: Validate = "1:1",
        sizes: Sizes = "exact",
        suffixes: Sequence[str] | None = None,
        min_share: float = 0.01,
    ) -> Table[F]:
        """Join on the key, with one or more other tables, as `pandas.merge` does.

        Tells the nodes how many rows match, or with `sizes="hidden"` nothing. Where that number is told, a
        FewMatchesWarning says so if it is zero, or less than `min_share` of the rows of the smallest table,
        and what the types of keys suggest. See `tercet.ml.join.join`.
        """
        tables = [self, *others]
        steps = called("join")(tables, on, how, validate, sizes, suffixes)
        look = functools.partial(warn_of_few_matches, tables, how=how, sizes=sizes, min_share=min_share)
        joined: Table = self.lake.perform(steps.then(look), "join")
        return joined

    @computes
    @takes(test_size=TEST_SIZE, stratify=MAYBE_COLUMN, random_state=RANDOM_STATE)
    def split(
        self, *, test_size: float = 0.25, stratify: str | None = None, random_state: int | None = None
    ) -> tuple[Table[F], Table[F]]:
        """Split into train and test rows, the same ones again for the same `random_state`.

        See `tercet.ml.splitting.split`.
        """
        steps = called("split")(self, test_size, stratify, random_state)
        parts: tuple[Table, Table] = self.lake.perform(steps, "split")
        return parts

    @computes
    def assign(self, /, **columns: Expression) -> Table[F]:
        """This table with new columns, or with others in the place of some.

        Discloses nothing where public bounds prove that they fit, else one bit, whether a value did not. See
        `tercet.ml.preparation.assign`.
        """
        assigned: Table = self.lake.perform(called("assign")(self, columns), "assign")
        return assigned

    @computes
    @takes(condition=CONDITION, compact=FLAG)
    def filter(self, condition: Expression, *, compact: bool = False) -> Table[F]:
        """Rows where a secret condition holds; others weigh nothing in what is computed from the table.

        Discloses nothing, or with `compact`, which drops the others, how many are kept, to the nodes. See
        `tercet.ml.preparation.keep`.
        """
        kept: Table = self.lake.perform(called("filter")(self, condition, compact=compact), "filter")
        return kept

    @computes
    @takes(columns=MAYBE_COLUMNS, compact=FLAG)
    def dropna(self, columns: str | Sequence[str] | None = None, *, compact: bool = False) -> Table[F]:
        """Rows in which no value of some columns (default: all) is missing.

        Discloses what `filter` does. See `tercet.ml.preparation.drop_missing`.
        """
        kept: Table = self.lake.perform(called("dropna")(self, columns, compact=compact), "filter")
        return kept

    @computes
    @takes(columns=MAYBE_COLUMNS, statistics=STATISTICS, to=RECEIVER)
    def describe(
        self,
        columns: str | Sequence[str] | None = None,
        *,
        statistics: Sequence[str] = ("mean", "std", "min", "25%", "50%", "75%", "max"),
        to: str = ANALYST,
    ) -> Description:
        """Counts, means, deviations and quantiles of columns, as pandas' describe.

        Discloses them, as far as owners' minimum counts allow, to one receiver; and for quantiles a random
        order to the nodes. See `tercet.ml.describe.describe`.
        """
        described: Description = self.lake.perform(
            called("describe")(self, columns, statistics, to), "describe"
        )
        return described

    @computes
    @takes(rows=COLUMN, columns=COLUMN, categories=CATEGORIES, statistics=STATISTICS, to=RECEIVER)
    def crosstab(
        self,
        rows: str,
        columns: str,
        *,
        categories: Mapping[str, Sequence[float | str]] | None = None,
        statistics: Sequence[str] = ("counts", "chi2"),
        to: str = ANALYST,
    ) -> Crosstab:
        """Counts of rows by two columns with public categories, and a chi-square test.

        Discloses them, as far as owners' minimum counts allow, to one receiver; a test that is asked for by
        itself, without the counts. See `tercet.ml.association.crosstab`.
        """
        steps = called("crosstab")(self, (rows, columns), categories or {}, statistics, to)
        counted: Crosstab = self.lake.perform(steps, "crosstab")
        return counted

    @takes(by=COLUMNS, categories=CATEGORIES)
    def groupby(
        self, by: str | Sequence[str], *, categories: Mapping[str, Sequence[Category]] | None = None
    ) -> GroupBy[F]:
        """The rows by columns with public categories, as in `groupby("grade").agg(...)`, or by the key.

        Figures by category are revealed; those by key make a table, `groupby("patient").to_table(...)`.
        """
        names = as_names(by)
        for name in names if {*names} != {*self.key_names} else ():
            self.column(name)
        return GroupBy(self, names, categories or {})

    @computes
    @takes(column=COLUMN, categories=CATEGORIES, to=RECEIVER)
    def value_counts(
        self, column: str, *, categories: Mapping[str, Sequence[Category]] | None = None, to: str = ANALYST
    ) -> Groups:
        """How many rows have each public category of a column. Discloses what `GroupBy.size` does."""
        counted: Groups = self.lake.perform(called("groupby")(self, column, categories, {}, to), "groupby")
        return counted

    @computes
    @takes(columns=MAYBE_COLUMNS, to=RECEIVER)
    def corr(self, columns: Sequence[str] | None = None, *, to: str = ANALYST) -> Correlations:
        """Pearson's correlations of columns.

        Discloses them, if owners' minimum counts allow, to one receiver. See
        `tercet.ml.association.correlate`.
        """
        correlations: Correlations = self.lake.perform(called("corr")(self, columns, to), "corr")
        return correlations

    @computes
    @takes(columns=MAYBE_COLUMNS, to=RECEIVER)
    def reveal(
        self, columns: str | Sequence[str] | None = None, *, to: str = ANALYST
    ) -> dict[str, npt.NDArray[Any]]:
        """Every row of some columns in the clear, to one receiver. Discloses them, row by row.

        Categories come as arrays of their labels, dates and times as datetime64.
        Of a filtered table, also rows that do not count. Raises SchemaError for a table of which an owner set
        a minimum count.
        """
        revealed: dict[str, npt.NDArray[Any]] = self.lake.perform(
            self._reveal(self.column_names if columns is None else as_names(columns), to), "reveal"
        )
        return revealed

    @computation("reveal_rows", group="rows", self=TABLE, names=COLUMNS, to=RECEIVER)
    def _reveal(self, names: Sequence[str], to: str) -> Steps[dict[str, npt.NDArray[Any]]]:
        if self.min_count > 1:
            raise SchemaError(
                f"table {self.name!r}: its owners allow figures that rest on at least {self.min_count} rows, "
                "not single rows; use describe or a model"
            )
        builder = self.lake.builder(f"reveal {self.name}")
        for name, value in zip(names, self.raw(builder, names), strict=True):
            value.squeeze().reveal(f"column {name!r} of {self.name!r}, row by row", to=to, kind="rows")
        result = yield builder.plan()
        found: dict[str, npt.NDArray[Any]] = {}
        for name in names:
            column = self.column(name)
            numbers = result.revealed[f"column {name!r} of {self.name!r}, row by row"]
            decoded = np.ldexp(numbers, -column.schema.scale)
            kinds = {"boolean": bool, "real": np.float64}
            found[name] = decoded.astype(kinds.get(column.schema.kind, np.int64))
            if column.schema.meaning is not None:
                found[name] = column.schema.meaning.decoded(found[name])
        return found

    def __str__(self) -> str:
        columns = ", ".join(f"{column.name} ({column.schema.kind})" for column in self.columns)
        return f"{self.name}: {self.rows} secret rows by key {', '.join(self.key_names)}; {columns}"
