"""Preparing tables in MPC: new columns from old ones, and filters on secret conditions.

A prepared table is one more virtual table: it shares the parts of the one that it was made of and adds a
part. Nothing is disclosed but what is said below: a check bit where public bounds do not prove that new
columns fit, and the row count of a filter that compacts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.bounds import half_unit
from tercet.ml.computations import computation
from tercet.ml.disclosure import inverted, kept_where, tellable
from tercet.ml.draft import Draft
from tercet.ml.expressions import Expression
from tercet.ml.recorded import listed
from tercet.ml.schema import INTEGER_BITS, ColumnSchema, check_column_name
from tercet.ml.stored_columns import Column, Part, recipe_of
from tercet.ml.table import ANALYST, Steps, Table, as_names
from tercet.options import CONDITION, FLAG, MAYBE_COLUMNS, TABLE
from tercet.plans import Value, concatenate

NEW_OUT_OF_RANGE = "whether a value of a new column left its range"
"""The check bit of new columns where its name is declared before they are known."""
TOO_FEW = "whether a filter keeps or drops fewer rows than owners allow to tell"


def out_of_range(names: Sequence[str]) -> str:
    """How the check bit of new columns is declared."""
    return f"whether a value of {', '.join(map(repr, names))} left its range"


def _require_rows_of(table: Table, expression: Expression, what: str) -> None:
    if not isinstance(expression, Expression):
        raise SchemaError(
            f"{what} of table {table.name!r} is {expression!r}, not an expression of its columns such as "
            f"table[{next(iter(table.column_names), 'name')!r}] * 2"
        )
    if expression.table.keys.handle != table.keys.handle:
        raise SchemaError(
            f"{what}, {expression.text}, is of table {expression.table.name!r}, whose rows are not those of "
            f"{table.name!r}; use columns of {table.name!r} itself"
        )


@computation("assign", group="tables", table=TABLE)
def assign(table: Table, expressions: Mapping[str, Expression]) -> Steps[Table]:
    """A table with new columns, or with others in the place of old ones, in the same order of rows.

    Discloses nothing, unless products or choices have factors without declared ranges: then one bit, whether
    a value of the new columns left its range. Raises SchemaError if one did, for expressions of other
    tables, and for names that cannot be ones.
    """
    return (yield from with_columns(table, expressions, out_of_range(list(expressions))))


def with_columns(table: Table, expressions: Mapping[str, Expression], checked: str) -> Steps[Table]:
    """The plan of `assign`, whose check bit has a name."""
    if not expressions:
        raise SchemaError(f"table {table.name!r}: name at least one new column, as in assign(double=...)")
    for name, expression in expressions.items():
        check_column_name(name, f"A new column of table {table.name!r}")
        if name in table.key_names:
            raise SchemaError(f"table {table.name!r}: {name!r} is its key; give the new column another name")
        _require_rows_of(table, expression, f"the new column {name!r}")
    table.require_rows("new columns")
    expressions = _with_missing(expressions)
    builder = table.lake.builder(f"{', '.join(expressions)} of {table.name}")
    draft = Draft(builder)
    values = [_column(draft, name, expression) for name, expression in expressions.items()]
    handle = table.lake.handle(table.name)
    concatenate(values).store(handle)
    failed = draft.failed()
    if failed is not None:
        failed.reveal(checked, to=ANALYST, kind="check")
    result = yield builder.plan()
    if failed is not None and result.revealed[checked][0] > 0.5:
        texts = ", ".join(f"{name} = {one.text}" for name, one in expressions.items() if one.public.checked)
        raise SchemaError(
            f"table {table.name!r}, {texts or ', '.join(expressions)}: a value is far larger than the scales "
            "of its columns suggest, so it does not fit fixed point; clip them to public ranges, as in "
            "table['age'].clip(0, 120), or have their owners declare such with ranges= at upload"
        )
    columns = {
        name: _described(draft, name, one, len(table.parts), place)
        for place, (name, one) in enumerate(expressions.items())
    }
    return with_part(table, Part(handle, result.stored[handle]), columns)


def _with_missing(expressions: Mapping[str, Expression]) -> dict[str, Expression]:
    """New columns, and beside each that may be missing one that tells where it is.

    Raises SchemaError if that has the name of another column.
    """
    found: dict[str, Expression] = {}
    for name, expression in expressions.items():
        found[name] = expression
        if not expression.missing:
            continue
        beside, table = f"{name}_missing", expression.table
        mine = name in table.column_names and table.column(name).schema.missing == beside
        if beside in expressions or (beside in (*table.column_names, *table.key_names) and not mine):
            raise SchemaError(
                f"table {table.name!r}: the new column {name!r} may be missing, and {beside!r} would tell "
                "where, but there is a column of that name; give one of them another name"
            )
        found[beside] = expression.isna()
    return found


def _column(draft: Draft, name: str, expression: Expression) -> Value:
    """The stored integers of a new column, `(1, rows)` at scale 0."""
    public = expression.public
    with draft.builder.scope(name):
        value = draft.settled(expression)
        if public.checked:
            draft.narrow(value, public.spread)
        stored = value.shifted(-value.scale).reshape(1, expression.table.rows)
        return stored.bounded(2.0**INTEGER_BITS, "the scale follows from the bounds")


def _described(draft: Draft, name: str, expression: Expression, part: int, place: int) -> Column:
    """What everyone knows of a new column, stored at a place of a part."""
    public, sources = expression.public, [expression.table.column(one) for one in expression.sources]
    meaning = expression.meaning
    bounded = expression.kind not in ("boolean", "category") and not public.checked
    schema = ColumnSchema(
        name,
        expression.kind,
        public.scale,
        range=(public.low, public.high) if bounded else None,
        missing=f"{name}_missing" if expression.missing else None,
        labels=meaning.labels if meaning is not None and meaning.kind == "category" else None,
    )
    finer = draft.value(expression).scale > public.scale  # then it was rounded once more to be stored
    grain = public.grain + half_unit(public.scale) * finer if public.kind == "real" else 0.0
    read = {
        one: expression.table.column(one).recipe for one in sorted(expression.sources | expression.missing)
    }
    recipe = recipe_of(listed(expression), read)
    return Column(schema, owners(sources), part, place, grain, made_of(sources), recipe)


def owners(columns: Iterable[Column]) -> str:
    """Whose data some columns are."""
    return "+".join(sorted({column.owner for column in columns}))


def made_of(columns: Iterable[Column]) -> frozenset[tuple[str, str]]:
    """Which columns of which uploads some columns were made of."""
    return frozenset[tuple[str, str]]().union(*(column.sources for column in columns))


def with_part(table: Table, part: Part, columns: Mapping[str, Column]) -> Table:
    """The table with one more part, whose columns replace those of the same name or come last."""
    left = dict(columns)
    kept = [left.pop(column.name, column) for column in table.columns]
    return attrs.evolve(table, columns=(*kept, *left.values()), parts=(*table.parts, part))


@computation("filter", group="tables", table=TABLE, condition=CONDITION, compact=FLAG)
def keep(table: Table, condition: Expression, *, compact: bool) -> Steps[Table]:
    """Rows where a condition holds.

    By default all rows stay, and those where the condition fails or is missing weigh nothing in what is
    computed from the table: it discloses nothing, and how many rows count stays secret. With `compact`, rows
    are shuffled, one flag a row is opened to the nodes, and the others are dropped: that discloses how many
    rows are kept, and nothing on which; where owners set a minimum count, first one bit, whether fewer are
    kept or dropped, and then nothing more. Raises SchemaError in that case, and for what is not a condition.
    """
    _require_rows_of(table, condition, "the filter")
    if condition.public.kind != "boolean":
        raise SchemaError(
            f"the filter of table {table.name!r}, {condition.text}, is {condition.public.kind}, not a "
            "condition; compare it with something"
        )
    table.require_rows("a filter")
    lake = table.lake
    builder = lake.builder(f"filter {table.name}")
    draft = Draft(builder)
    there = condition & ~condition.isna() if condition.missing else condition
    flag, handle = draft.settled(there).reshape(1, table.rows), lake.handle(f"{table.name}.filter")
    flag.store(handle)
    failed = draft.failed()
    if failed is not None:
        failed.reveal(out_of_range([condition.text]), to=ANALYST, kind="check")
    result = yield builder.plan()
    if failed is not None and result.revealed[out_of_range([condition.text])][0] > 0.5:
        raise SchemaError(
            f"the filter of table {table.name!r}, {condition.text}: a product in it does not fit fixed "
            "point; clip its factors to public ranges, as in table['age'].clip(0, 120)"
        )
    sources = [condition.table.column(one) for one in condition.sources]
    flags = Column(
        ColumnSchema("filter", "boolean"), owners(sources), len(table.parts), 0, sources=made_of(sources)
    )
    kept = attrs.evolve(
        table,
        name=f"{table.name}.filtered",
        parts=(*table.parts, Part(handle, result.stored[handle])),
        selection=(*table.selection, flags),
    )
    return (yield from compacted(kept)) if compact else kept


@computation("dropna", group="tables", table=TABLE, columns=MAYBE_COLUMNS, compact=FLAG)
def drop_missing(table: Table, columns: str | Sequence[str] | None, *, compact: bool) -> Steps[Table]:
    """Rows in which no value of some columns (default: all) is missing; discloses what a filter does."""
    names = as_names(table.column_names if columns is None else columns)
    flags = [table[name].isna() for name in names if table.column(name).schema.missing is not None]
    if not flags:
        return table
    kept = yield from keep(table, ~functools.reduce(operator.or_, flags), compact=compact)
    whole = [
        attrs.evolve(column, schema=attrs.evolve(column.schema, missing=None))
        if column.name in names
        else column
        for column in kept.columns
    ]
    return attrs.evolve(kept, columns=tuple(whole))


def compacted(
    table: Table, what: str = "the filter keeps or drops", mend: str = "filter without compact=True"
) -> Steps[Table]:
    """Drop the rows that do not count. Raises SchemaError, of what so few are, if that may not be told."""
    lake, least, counted = table.lake, table.min_count, None
    if least > 1:
        builder = lake.builder(f"count {table.name}")
        flags = table.selected(builder)
        if flags is not None:
            told = tellable(flags.sum().reshape(1), table.countable, least)
            inverted(told).reveal(TOO_FEW, to=ANALYST, kind="check")
            counted = lake.temporary(f"{table.name}.filter")
            kept_where(told, flags).store(counted)
        result = yield builder.plan()
        if result.revealed[TOO_FEW][0] > 0.5:
            raise SchemaError(
                f"table {table.name!r}: {what} fewer than {least} rows, and their owners do not allow so "
                f"small a count to be told; {mend}, or differently"
            )
    builder = lake.builder(f"compact {table.name}")
    # Where it may not be told how many are kept, none is.
    flags = table.selected(builder) if counted is None else builder.input(counted, result.stored[counted])
    if flags is None:
        return table
    sources = [*table.parts, table.keys]
    values = [builder.input(part.handle, part.type) for part in sources]
    bits = (flags * -1).is_negative().to_ring()  # a comparison gives a bit, whatever was stored
    moved = builder.apply_all("shuffle", bits, *values)
    opened = moved[0].open("which of the shuffled rows a filter keeps")
    kept = builder.apply("ones", opened, rows="filter.rows")
    handles = [lake.handle(table.name) for _ in sources]
    for handle, value in zip(handles, moved[1:], strict=True):
        builder.apply("take", value, kept, table=0).store(handle)
    result = yield builder.plan()
    parts = [Part(handle, result.stored[handle]) for handle in handles]
    keys = parts.pop()
    rows = result.symbols["filter.rows"]
    return attrs.evolve(table, rows=rows, parts=tuple(parts), keys=keys, selection=())
