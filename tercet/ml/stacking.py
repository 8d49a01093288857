"""Tables with the same columns made into one, in MPC: the function of pandas' concat.

So several owners have one table, as the centres of a study do: data that is partitioned by rows. Rows go one
below the other and are shuffled, unless everyone may know which table each came from. What differs between
tables is brought together by what is public of them: columns are found by name, and scales become one that
fits all. Owners have checked how far their own columns spread; over the rows of all that is checked here,
where declared ranges do not prove it. Keys that occur twice are counted, by pseudonyms under a fresh key, or
left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, overload

import attrs

from tercet.errors import SchemaError
from tercet.ml.bounds import half_unit
from tercet.ml.computations import called, computation
from tercet.ml.draft import Draft
from tercet.ml.faces import Async, Sync
from tercet.ml.preparation import made_of, out_of_range, owners
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, ColumnSchema, Kind, check_column_name, range_scale
from tercet.ml.stored_columns import WIDE_SPREAD, Column, Part, recipe_of
from tercet.ml.table import ANALYST, Steps, Table
from tercet.options import DUPLICATES, NEW_COLUMN, SITE, TABLES, takes
from tercet.plans import Builder, Value, concatenate, stack
from tercet.tracebacks import short

ROOM_BITS = 1
"""Where no ranges are declared, columns of several tables have so many fractional bits fewer than any of
them: room for means that lie up to 3.4 deviations apart. Those of different units are further apart."""
FLAG = "filter"


@overload
def concat(
    tables: Sequence[Table[Sync]],
    *,
    site: str | None = None,
    duplicates: str = "refuse",
    site_column: str = "site",
) -> Table[Sync]: ...
@overload
def concat(
    tables: Sequence[Table[Async]],
    *,
    site: str | None = None,
    duplicates: str = "refuse",
    site_column: str = "site",
) -> Awaitable[Table[Async]]: ...
@short
@takes(tables=TABLES, site=SITE, duplicates=DUPLICATES, site_column=NEW_COLUMN)
def concat(
    tables: Sequence[Table],
    *,
    site: str | None = None,
    duplicates: str = "refuse",
    site_column: str = "site",
) -> Any:
    """Tables with the same columns and keys as one, as pandas' concat; columns are in the first's order.

    `site` adds a column, called `site_column`, with the number of the table that a row came from, 0 for the
    first: "secret", or "public" if everyone may know which rows of the result came from which table.
    `duplicates` says what becomes of keys that occur more than once: "refuse" raises SchemaError, "count"
    keeps their rows and tells how many have a key that another has before them (`Table.repeats`), "keep"
    keeps them and tells nothing. See `tercet.ml.stacking.stack_tables`.
    """
    steps = called("concat")(list(tables), site, duplicates, site_column)
    return tables[0].lake.perform(steps, "concat")


@computation(
    "concat", group="tables", tables=TABLES, site=SITE, duplicates=DUPLICATES, site_column=NEW_COLUMN
)
def stack_tables(
    tables: Sequence[Table], site: str | None, duplicates: str, site_column: str
) -> Steps[Table]:
    """One table of all rows of several: in random order, or with `site="public"` table by table.

    A column has one scale: that of its range if all tables declare one, or the smallest among the tables less
    a bit; this rounds real numbers to the nearest multiple of 2^-scale, and leaves integers exact. A column
    that may be missing in one table may be in the result. Rows that a filter drops go along.

    Discloses one bit, where declared ranges do not prove it, whether values of a column lie too far apart
    over all rows; and, unless `duplicates` is "keep", to the nodes how many keys occur how often. The
    strictest minimum count goes on to hold, for the rows of all tables together: an owner knows the own
    ones. 17 rounds for keys, up to 30 for columns that are rounded and checked, 3 for the shuffle.

    Raises SchemaError for columns or keys that differ, for units that seem to, for repeated keys that are
    refused, and where they are not, for tables under a minimum count that share rows, of which one would
    count as two.
    """
    _check(tables, duplicates)
    lake, name = tables[0].lake, "|".join(table.name for table in tables)
    rows, columns = sum(table.rows for table in tables), _stacked(tables, site, site_column)
    builder = lake.builder(f"concat {name}")
    draft = Draft(builder)
    values = [concatenate([one.write(draft, tables) for one in columns])] if columns else []
    keys = stack([builder.input(table.keys.handle, table.keys.type) for table in tables])
    if duplicates != "keep":
        pseudonyms = builder.apply("shuffle", builder.apply("prf", builder.random_words(2), keys))
        builder.apply("distinct", pseudonyms.open("pseudonyms of shuffled keys, random words"), rows="keys")
    values.append(keys)
    if site != "public":
        values = builder.apply_all("shuffle", *values)
    handles = [lake.handle(name) for _ in values]
    for handle, value in zip(handles, values, strict=True):
        value.store(handle)
    failed, checked = draft.failed(), [one.schema.name for one in columns if one.checked]
    if failed is not None:
        failed.reveal(out_of_range(checked), to=ANALYST, kind="check")
    result = yield builder.plan()
    if failed is not None and result.revealed[out_of_range(checked)][0] > 0.5:
        raise SchemaError(
            f"tables {_named(tables)}: values of {', '.join(map(repr, checked))} lie too far apart in all "
            "tables together; convert what is in different units, or have all owners declare bounds with "
            "ranges= at upload"
        )
    repeats = None if duplicates == "keep" else rows - result.symbols["keys"]
    if repeats and duplicates == "refuse":
        raise SchemaError(
            f"tables {_named(tables)}: {repeats} rows have a key that another row has; leave them out, or "
            "let each count as a row with duplicates='count' or 'keep'"
        )
    *parts, keys_part = (Part(handle, result.stored[handle]) for handle in handles)
    described = [one.described(place, tables) for place, one in enumerate(columns)]
    return attrs.evolve(
        tables[0],
        name=name,
        columns=tuple(one for one, of in zip(described, columns, strict=True) if not of.selects),
        rows=rows,
        parts=tuple(parts),
        keys=keys_part,
        rows_of_sources=rows,
        selection=tuple(one for one, of in zip(described, columns, strict=True) if of.selects),
        min_count=max(table.min_count for table in tables),
        uploads=frozenset[str]().union(*(table.uploads for table in tables)),
        most_counted=sum(table.countable for table in tables),
        key_holders=frozenset.intersection(*(table.key_holders for table in tables)),
        unique=repeats == 0,
        repeats=repeats,
    )


def _named(tables: Sequence[Table]) -> str:
    return ", ".join(repr(table.name) for table in tables)


# -- columns of the result -----------------------------------------------------------------------------------


@attrs.frozen
class _Stacked:
    """A column of the result, and what it is made of: a column of each table, or else a number for it.

    If `checked`, its spread over all rows is; if it `selects`, it is the flag of the rows that count.
    """

    schema: ColumnSchema
    columns: tuple[Column | None, ...]
    numbers: tuple[float, ...] = ()
    checked: bool = False
    selects: bool = False

    def write(self, draft: Draft, tables: Sequence[Table]) -> Value:
        """The stored integers `(1, rows)` at scale 0."""
        builder, schema = draft.builder, self.schema
        with builder.scope(schema.name):
            pieces = []
            for place, (table, column) in enumerate(zip(tables, self.columns, strict=True)):
                if self.selects:
                    selected = table.selected(builder)
                    flags = _nothing(builder, table) + 1 if selected is None else selected
                    pieces.append(flags.reshape(1, table.rows))
                elif column is None:
                    pieces.append(_nothing(builder, table) + self.numbers[place] * 2.0**schema.scale)
                else:
                    stored = table.raw(builder, [column.name])[0].shifted(column.schema.scale)
                    pieces.append(stored.nearest(schema.scale).shifted(-schema.scale))
            made = stack(pieces).bounded(2.0**INTEGER_BITS, "scales are no larger than those of the tables")
            if self.checked and made.type.rows:
                widest = WIDE_SPREAD if schema.kind == "integer" and schema.scale == 0 else 1.0
                draft.narrow(made.squeeze(), widest * 2.0**SPREAD_BITS)
            if self.selects or (schema.kind == "boolean" and len({one.owner for one in self._given}) > 1):
                # A number beyond that, from a false upload, would count as so many rows of the others.
                flags = made.squeeze().bounded(1.0, "a condition")
                made = (flags * -1).is_negative().to_ring().reshape(1, *flags.shape)
            return made

    @property
    def _given(self) -> list[Column]:
        return [column for column in self.columns if column is not None]

    def described(self, place: int, tables: Sequence[Table]) -> Column:
        """What everyone knows of it, stored at a place of the only part."""
        given = self._given or [column for table in tables for column in table.selection * self.selects]
        grain, scale = None, self.schema.scale
        if self.schema.kind == "real" and any(
            one.grain is not None or one.schema.scale != scale for one in given
        ):
            grain = max(_grain(one) + half_unit(scale) * (one.schema.scale > scale) for one in given)
        recipe = recipe_of(
            "concat", scale, self.numbers, *(one and one.recipe for one in self.columns),
            *(sorted(table.uploads) for table in tables if not given),
        )  # fmt: skip
        whose = given or [column for table in tables for column in table.columns]
        return Column(self.schema, owners(whose), 0, place, grain, made_of(given), recipe)


def _grain(column: Column) -> float:
    """How far a stored number may be from the one that is meant."""
    if column.schema.kind != "real":
        return 0.0
    return half_unit(column.schema.scale) if column.grain is None else column.grain


def _nothing(builder: Builder, table: Table) -> Value:
    """Zeros, one for each row of a table `(1, rows)`."""
    if not table.columns:
        raise SchemaError(f"table {table.name!r} has no columns, so nothing tells its rows from others")
    return table.raw(builder, table.column_names[:1])[0] * 0


def _stacked(tables: Sequence[Table], site: str | None, site_column: str) -> list[_Stacked]:
    """Columns of the result, each before the one that tells where it is missing; then site and filter."""
    beside = {column.schema.missing for table in tables for column in table.columns} - {None}
    names = [name for name in tables[0].column_names if name not in beside]
    made: list[_Stacked] = []
    for name in names:
        columns = [table.column(name) for table in tables]
        schema, checked = _common(tables, columns)
        made.append(_Stacked(schema, tuple(columns), checked=checked))
        if schema.missing is not None:
            flags = [
                None if column.schema.missing is None else table.column(column.schema.missing)
                for table, column in zip(tables, columns, strict=True)
            ]
            made.append(_Stacked(ColumnSchema(schema.missing, "boolean"), tuple(flags), (0.0,) * len(tables)))
    nothing = (None,) * len(tables)
    if site is not None:
        check_column_name(site_column, "The column of the site")
        if site_column in (*(one.schema.name for one in made), *tables[0].key_names):
            raise SchemaError(
                f"tables {_named(tables)} have a column {site_column!r}; give that of the site another name "
                "with site_column="
            )
        last = float(len(tables) - 1)
        schema = ColumnSchema(site_column, "boolean")
        if last > 1:
            scale = range_scale(0.0, last, kind="integer")
            schema = ColumnSchema(site_column, "integer", scale, range=(0.0, last))
        made.append(_Stacked(schema, nothing, tuple(map(float, range(len(tables))))))
    if any(table.selection for table in tables):
        made.append(_Stacked(ColumnSchema(FLAG, "boolean"), nothing, selects=True))
    return made


def _common(tables: Sequence[Table], columns: Sequence[Column]) -> tuple[ColumnSchema, bool]:
    """The schema of columns of one name put together, and whether their spread has to be checked."""
    schemas = [column.schema for column in columns]
    name, missing = schemas[0].name, next((one.missing for one in schemas if one.missing is not None), None)
    if all(one.kind == "boolean" for one in schemas):
        return ColumnSchema(name, "boolean", missing=missing), False
    if any(one.meaning is not None for one in schemas):
        return _category(tables, schemas, missing), False
    kind: Kind = "real" if any(one.kind == "real" for one in schemas) else "integer"
    for table in tables[1:]:
        if {tables[0].column(name).schema.kind, table.column(name).schema.kind} == {"real"}:
            tables[0].require_like(table, [name], "it is put together with")
    scale = min(SPREAD_BITS if one.kind == "boolean" else one.scale for one in schemas)
    ranges = [(0.0, 1.0) if one.kind == "boolean" else one.range for one in schemas]
    ends = [one for one in ranges if one is not None]
    if len(ends) == len(schemas):
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        scale = min(scale, range_scale(low, high, kind=kind))
        return ColumnSchema(name, kind, scale, range=(low, high), missing=missing), False
    scale = max(scale - ROOM_BITS, 0) if kind == "integer" else scale - ROOM_BITS
    return ColumnSchema(name, kind, scale, missing=missing), True


def _category(tables: Sequence[Table], schemas: Sequence[ColumnSchema], missing: str | None) -> ColumnSchema:
    """That of categories with the same labels, whose codes then are the same."""
    name, first = schemas[0].name, schemas[0]
    if any(one.kind in ("date", "datetime") for one in schemas):
        raise SchemaError(
            f"tables {_named(tables)}: {name!r} has dates or times, which are put together as numbers, such "
            f"as table[{name!r}].dt.year or the days since a date"
        )
    if any(one.labels != first.labels for one in schemas):
        raise SchemaError(
            f"tables {_named(tables)}: {name!r} has not the same labels in all of them, in one order; upload "
            f"them with categories={{{name!r}: [...]}}, with the labels of all"
        )
    return ColumnSchema(name, "category", labels=first.labels, missing=missing)


# -- what goes together --------------------------------------------------------------------------------------


def _check(tables: Sequence[Table], duplicates: str) -> None:
    """Raise SchemaError for tables that are not of one lake, with the same keys and columns."""
    first = tables[0]
    if len(tables) < 2:
        raise SchemaError(f"table {first.name!r} is alone; name the tables to put below it too")
    beside = {column.schema.missing for table in tables for column in table.columns}
    for table in tables[1:]:
        both = f"tables {first.name!r} and {table.name!r}"
        if table.lake is not first.lake:
            raise SchemaError(f"{both} are in different lakes; upload both to one")
        if table.key_names != first.key_names:
            raise SchemaError(
                f"{both} have keys {', '.join(first.key_names)} and {', '.join(table.key_names)}; upload "
                "both with the same, in the same order"
            )
        for key, ours, theirs in zip(first.key_names, first.key_types, table.key_types, strict=True):
            if ours != theirs:
                raise SchemaError(
                    f"key {key!r} is {ours} in table {first.name!r} and {theirs} in table {table.name!r}, so "
                    f"the same one would be two; upload one of them with types={{{key!r}: 'string'}}"
                )
        odd = sorted({*first.column_names} ^ {*table.column_names} - beside)
        if odd := [name for name in odd if name not in beside]:
            where = first if odd[0] in first.column_names else table
            raise SchemaError(
                f"{both} have different columns: {odd[0]!r} is in {where.name!r} only; choose those that "
                "both have, as in table[['age', 'bmi']]"
            )
    for table in tables:
        own = {column.schema.missing for column in table.columns}
        if taken := sorted(name for name in table.column_names if name in beside - own):
            raise SchemaError(
                f"column {taken[0]!r} of table {table.name!r} has a name that tells where values are missing "
                "in another one; drop or rename it"
            )
    uploads = [upload for table in tables for upload in table.uploads]
    shared = len(set(uploads)) < len(uploads)
    if shared and duplicates != "refuse" and any(table.min_count > 1 for table in tables):
        raise SchemaError(
            f"tables {_named(tables)} have rows of one upload, and with duplicates={duplicates!r} a row "
            "could count as two, where owners ask for a number of rows; refuse duplicates"
        )
