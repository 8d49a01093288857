"""What a join makes of a table whose rows may be missing from the result.

Where there is no row of a table, its cells are missing as they are in an upload with missing="indicator": a
secret boolean column tells where, and what is stored there keeps the promises of the column, so that spreads
and ranges hold. It is the middle of a declared range, zero for booleans, and else the mean of the column,
which stays secret. Columns are moved less that number, so that what is not there is zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

import attrs
import numpy as np

from tercet.errors import SchemaError
from tercet.ml.bounds import half_unit
from tercet.ml.linalg import mean, settled
from tercet.ml.schema import INTEGER_BITS, ColumnSchema
from tercet.ml.stored_columns import UNIT_BITS, Column, recipe_of
from tercet.ml.table import Table
from tercet.plans import Builder, Value, concatenate

LIMIT = 2.0**INTEGER_BITS
ROOM = 2 * LIMIT + 2
"""A bound on stored numbers less their mean."""


@attrs.frozen(eq=False)
class Side:
    """A table in a plan that joins it: its columns `(d, rows)` at scale 0, in the order of the table.

    `fill` `(d, 1)` is what stands where a row is missing, `selected` `(rows,)` tells which rows count, None
    if all do.
    """

    table: Table
    values: Value
    fill: Value
    selected: Value | None

    @classmethod
    def of(cls, builder: Builder, table: Table, *, anew: bool, cuts: Sequence[int] = ()) -> Side | None:
        """A side of a table; None if it has no columns. Zeros and ones are told `anew` by comparison.

        `cuts` are the bits that columns were stored with and no longer have, see `coarser`. About 12 rounds
        if there are some.
        """
        if not table.columns:
            return None
        blocks = []
        for part, run in itertools.groupby(table.columns, lambda column: column.part):
            matrix = builder.input(table.parts[part].handle, table.parts[part].type)
            blocks.append(matrix.select([column.place for column in run]))
        values = concatenate(blocks).bounded(LIMIT, "checked by the owner at upload")
        if any(cuts):
            rows = [values.select([place]) for place in range(len(cuts))]
            each = zip(rows, cuts, strict=True)
            shorter = [row.shifted(cut).nearest(0) if cut else row for row, cut in each]
            values = concatenate(shorter)
        bits = {place for place, column in enumerate(table.columns) if column.schema.kind == "boolean"}
        if anew and bits:
            values = told_anew(values, bits)
        return cls(table, values, _fill(builder, table, values), selected(builder, table, anew=anew))

    @property
    def centred(self) -> Value:
        """The columns less what stands where a row is missing, `(d, rows)`."""
        return (self.values - self.fill).bounded(ROOM, "stored numbers, and what stands for some")

    def told(self, moved: Value, gone: Value) -> Value:
        """Columns of the result as they are stored, those that tell where others are missing among them.

        `moved` `(d, m)` are centred columns with zeros where rows are missing, `gone` `(m,)` is one there. 1
        round if some rows of the table do not count, else local.
        """
        filled, tells = self.filled(moved), self._tells()
        if not tells:
            return filled
        flags = filled.select(tells).bounded(1.0, "booleans")
        spread = gone.reshape(1, *gone.shape)
        either = flags + spread
        if self.selected is not None:  # else there is nothing where rows are missing
            either = either - flags * spread
        either = settled(either.bounded(1.0, "a bit"))
        rows = [
            either.select([tells.index(place)]) if place in tells else filled.select([place])
            for place in range(len(self.table.columns))
        ]
        return concatenate(rows)

    def _tells(self) -> list[int]:
        """Places of the columns that tell where others are missing."""
        names = {column.schema.missing for column in self.table.columns}
        return [place for place, column in enumerate(self.table.columns) if column.name in names]

    def filled(self, moved: Value) -> Value:
        """Centred columns with zeros where rows are missing, as they are stored."""
        return (moved + self.fill).bounded(LIMIT, "stored numbers, or what stands for them")


def coarser(table: Table) -> tuple[Table, list[int]]:
    """The table with scales at which columns spread no further than they may, over whatever rows of it.

    And by how many bits these are coarser. A row that is linked with many counts as many; what lies in a
    public range deviates by half of it at most (Popoviciu 1935). Codes of labels and dates stay as they are.
    Raises SchemaError for columns of numbers without a range.
    """
    columns, cuts = [], []
    for column in table.columns:
        schema, cut = column.schema, 0
        if schema.kind != "boolean" and schema.meaning is None:
            if schema.range is None:
                name = column.name
                raise SchemaError(
                    f"table {table.name!r}, column {name!r}: many rows may be linked with one of its own, so "
                    f"it needs a public range; clip it, as in assign({name}=table[{name!r}].clip(0, 100)), "
                    "have its owner declare one with ranges= at upload, or leave it out"
                )
            half = math.ldexp((schema.range[1] - schema.range[0]) / 2, schema.scale)
            if half > column.widest_spread * 2.0**UNIT_BITS:
                cut = math.ceil(math.log2(half)) - UNIT_BITS
        cuts.append(cut)
        columns.append(_cut(column, cut) if cut else column)
    return attrs.evolve(table, columns=tuple(columns)), cuts


def _cut(column: Column, bits: int) -> Column:
    """A column with fewer fractional bits, by rounding."""
    schema = attrs.evolve(column.schema, kind="real", scale=column.schema.scale - bits)
    once = half_unit(column.schema.scale) if column.schema.kind == "real" else 0.0
    grain = (once if column.grain is None else column.grain) + half_unit(schema.scale)
    return attrs.evolve(column, schema=schema, grain=grain, recipe=recipe_of("coarser", bits, column.recipe))


def _fill(builder: Builder, table: Table, values: Value) -> Value:
    """What stands for missing cells `(d, 1)`. 2 or 4 rounds if some columns have no declared range."""
    public = np.zeros(len(table.columns))
    places: dict[int, list[int]] = {}
    for place, column in enumerate(table.columns):
        schema = column.schema
        if schema.range is not None:
            middle = sum(schema.range) / 2
            whole = np.floor(middle) if schema.kind == "integer" else middle
            public[place] = np.rint(np.ldexp(whole, schema.scale))
        elif schema.kind != "boolean" and table.rows:
            places.setdefault(schema.scale if schema.kind == "integer" else 0, []).append(place)
    zero = (values.select([0]) * 0).sum().reshape(1, 1)
    fill = zero + builder.constant(public[:, None])
    for bits, some in places.items():
        # Integers that are stored with fractional bits are whole numbers there.
        means = mean(values.select(some).sum().shifted(bits), table.rows, scale=0) * 2.0**bits
        order = {place: number for number, place in enumerate(some, 1)}
        fill = fill + concatenate([zero, means.column()]).select(
            [order.get(i, 0) for i in range(len(public))]
        )
    return fill.bounded(LIMIT, "a mean of stored numbers")


def described(
    table: Table,
    part: int,
    gone: int,
    *,
    links: str,
    taken: Collection[str],
) -> tuple[Column, ...]:
    """Columns of a side whose rows may be missing, stored in the order of the table in a part of the result.

    Each that did not have one gets a column that tells where it is missing, at place `gone`, which all share;
    `links` stands for the keys that say where that is. Raises SchemaError if such a name is `taken`.
    """
    found: list[Column] = []
    tells = {column.schema.missing for column in table.columns}
    for place, column in enumerate(table.columns):
        name = column.name
        moved = attrs.evolve(column, part=part, place=place)
        if name in tells or column.schema.missing is not None:
            found.append(moved)
            continue
        beside = f"{name}_missing"
        if beside in taken or beside in table.column_names:
            raise SchemaError(
                f"table {table.name!r}: {beside!r} would tell where {name!r} is missing in the joined table, "
                "but there is a column of that name; rename it, or give suffixes="
            )
        found.append(attrs.evolve(moved, schema=attrs.evolve(column.schema, missing=beside)))
        found.append(
            Column(
                ColumnSchema(beside, "boolean"),
                column.owner,
                part,
                gone,
                sources=column.sources,
                recipe=recipe_of("unmatched", links, column.recipe),
            )
        )
    return tuple(found)


def renamed(column: Column, names: Mapping[str, str]) -> Column:
    """A column under its new name, which refers to others by theirs."""
    schema = column.schema
    missing = None if schema.missing is None else names.get(schema.missing, schema.missing)
    return attrs.evolve(
        column, schema=attrs.evolve(schema, name=names.get(schema.name, schema.name), missing=missing)
    )


def links_of(left: Table, right: Table) -> str:
    """What stands for the keys that say which rows of two tables are linked."""
    return recipe_of(left.keys.handle, right.keys.handle)


# -- zeros and ones of several owners ------------------------------------------------------------------------


def several(tables: Sequence[Table]) -> bool:
    """Whether columns, or flags of rows that count, are of several owners; unless each has some, yes."""
    owners = [{one.owner for one in (*table.columns, *table.selection)} for table in tables]
    return not all(owners) or len(set[str]().union(*owners)) > 1


def bits_of(table: Table, part: int) -> set[int]:
    """Places in a part of a table of what should be zeros and ones."""
    columns = (*table.columns, *table.selection)
    return {one.place for one in columns if one.part == part and one.schema.kind == "boolean"}


def told_anew(values: Value, bits: set[int]) -> Value:
    """Columns `(d, n)` in which those at some places are compared with zero, and so are zeros and ones.

    A number beyond that, from a false upload, would count as so many rows of the other owners.
    """
    rows = []
    for place in range(int(values.shape[0])):
        row = values.select([place])
        if place in bits:
            flag = row.squeeze().bounded(1.0, "a condition")
            row = (flag * -1).is_negative().to_ring().reshape(1, *flag.shape)
        rows.append(row)
    return concatenate(rows)


def selected(builder: Builder, table: Table, *, anew: bool) -> Value | None:
    """Ones for rows that count and zeros for others `(rows,)`, None if all do; told `anew` by comparison."""
    flags = table.selected(builder)
    if flags is None or not anew:
        return flags
    return told_anew(flags.reshape(1, *flags.shape), {0}).squeeze()
