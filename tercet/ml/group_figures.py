"""Figures of groups: which ones a call asks for, and what everyone knows of each as a column.

A figure is a statistic of a column. Some are made of others, which are summed up beside them and not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import half_unit
from tercet.ml.schema import INTEGER_BITS, SCALES, SPREAD_BITS, ColumnSchema, check_column_name, range_scale
from tercet.ml.stored_columns import Column, recipe_of
from tercet.ml.table import Table, as_names

STATISTICS = ("count", "sum", "mean", "var", "min", "max", "first")
MADE_OF = {"mean": ("sum", "count"), "var": ("count", "squares", "offs")}
"""What is summed up for those that are no sums; "squares" and "offs" as in `group_variances`."""
SCALED = ("count", "sum", "var")
"""Those whose scales may be said."""
ROOM_BITS = 5
"""Sums of a column are stored with so many fractional bits fewer than it: room for groups of some dozens."""
COUNT_SCALE = SPREAD_BITS - ROOM_BITS
MEAN_BITS = 16
"""Means of integers have at most so many fractional bits more."""
VARIANCE_BITS = 13
"""Variances have so many fractional bits where that of the whole column is one."""
MOST_OCTAVES = 14
"""Means and variances are of groups of fewer than 2^14 rows."""
MOST_FIGURES = 64
MOST_SCALE = 62
"""Fractional bits of a figure more than its column has, or of real numbers fewer, at most."""


@attrs.frozen
class Figure:
    """A column of the result: a statistic of a column, and the fractional bits that it is stored with.

    Those that were not `asked` for are what means are made of.
    """

    column: Column
    statistic: str
    scale: int
    asked: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number: a count, or a sum of such."""
        return self.statistic == "count" or (self.statistic == "sum" and self.column.schema.kind != "real")

    @property
    def name(self) -> str:
        """What it is called in the result."""
        return self.other(self.statistic)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the result that it makes."""
        beside = (f"{self.name}_missing",) if self.statistic == "var" else ()
        return (self.name, *beside) if self.asked else ()

    @property
    def scales(self) -> tuple[int, int]:
        """The fewest and the most fractional bits that it can have."""
        if self.statistic == "var":
            return -20 - 2 * self.column.unit_exponent, 30 - 2 * self.column.unit_exponent
        own = 0 if self.is_whole else self.column.schema.scale
        return own - MOST_SCALE * (not self.is_whole), own + MOST_SCALE

    @property
    def unit_scale(self) -> int:
        """Fractional bits of a variance in units squared of its column."""
        return self.scale + 2 * self.column.unit_exponent

    def other(self, statistic: str) -> str:
        """What another statistic of the same column is called."""
        return f"{self.column.name}_{statistic}"


def figures_of(
    table: Table, aggregates: Mapping[str, str | Sequence[str]], scales: Mapping[str, int]
) -> list[Figure]:
    """All columns of the result, sums and counts for means among them. Raises SchemaError or PlanError."""
    made: dict[tuple[str, str], Figure] = {}
    for name, given in aggregates.items():
        column, statistics = table.column(name), as_names(given)
        if odd := [one for one in statistics if one not in STATISTICS]:
            raise PlanError(f"there is no statistic {odd[0]!r} of keys; known are {', '.join(STATISTICS)}")
        if not {"mean", "min", "max", "first"}.isdisjoint(statistics):
            table.require_present([name])
        if not {"sum", "mean", "var"}.isdisjoint(statistics):
            table.require_numbers([name])
        parts = [part for one in statistics for part in MADE_OF.get(one, ())]
        for one in dict.fromkeys([*statistics, *parts]):
            figure = Figure(column, one, _scale(column, one), asked=one in statistics)
            made[name, one] = figure = attrs.evolve(figure, scale=scales.get(figure.name, figure.scale))
            least, most = figure.scales
            if not least <= figure.scale <= most:
                raise SchemaError(
                    f"table {table.name!r}: {figure.name!r} with {figure.scale} fractional bits; it can have "
                    f"{least} to {most}"
                )
    for figure in made.values():
        if figure.statistic == "var" and not SCALES[0] <= figure.scale <= SCALES[1]:
            raise SchemaError(
                f"table {table.name!r}: {figure.name!r} would be squares beyond what numbers can be; upload "
                f"{figure.column.name!r} in another unit"
            )
    if not made or len(made) > MOST_FIGURES:
        raise SchemaError(
            f"table {table.name!r}: aggregates= has 1 to {MOST_FIGURES} figures, as in {{'cost': ['sum']}}, "
            f"and {len(made)} were named"
        )
    names = [name for one in made.values() for name in one.columns]
    for name in names:
        check_column_name(name, f"A figure of groups of table {table.name!r}")
    if taken := sorted({*names} & {*table.key_names}):
        raise SchemaError(f"table {table.name!r}: a figure would be called {taken[0]!r}, as the key is")
    if odd := sorted({*scales} - {one.name for one in made.values() if one.statistic in SCALED}):
        raise SchemaError(
            f"table {table.name!r}: scales= names {odd[0]!r}, and only sums, counts and variances of the "
            "result have scales to say"
        )
    return list(made.values())


def _scale(column: Column, statistic: str) -> int:
    """The fractional bits of a figure, unless others are named."""
    kind, scale = column.schema.kind, column.schema.scale
    if statistic == "count" or (statistic == "sum" and kind == "boolean"):
        return COUNT_SCALE
    if statistic == "mean":
        return _scale_of_means(column)
    if statistic == "var":
        ends = ends_of_variances(column)
        return VARIANCE_BITS - 2 * column.unit_exponent if ends is None else range_scale(*ends, kind="real")
    if statistic != "sum":
        return scale
    return max(scale - ROOM_BITS, 0) if kind == "integer" else scale - ROOM_BITS


def _scale_of_means(column: Column) -> int:
    """That of the column's range, if it has one, or a bit less than its own: means may spread further."""
    schema = column.schema
    ends = (0.0, 1.0) if schema.kind == "boolean" else schema.range
    if ends is not None:
        return min(schema.scale + MEAN_BITS, range_scale(*ends, kind="real"))
    return schema.scale - (4 if column.is_wide else 1)


def ends_of_variances(column: Column) -> tuple[float, float] | None:
    """Public ends of what variances can be: of two rows at the ends of a range, half of its square."""
    ends = (0.0, 1.0) if column.schema.kind == "boolean" else column.schema.range
    return None if ends is None or ends[0] == ends[1] else (0.0, (ends[1] - ends[0]) ** 2 / 2)


def schema_of(table: Table, figure: Figure) -> ColumnSchema:
    """What everyone knows of a figure's numbers."""
    source = figure.column.schema
    match figure.statistic:
        case "count":
            least = float(source.missing is None)
            most = min(float(table.rows), 2.0 ** (INTEGER_BITS - figure.scale))
            return ColumnSchema(figure.name, "integer", figure.scale, range=(min(least, most), most))
        case "sum":
            return ColumnSchema(figure.name, "real" if source.kind == "real" else "integer", figure.scale)
        case "mean":
            ends = (0.0, 1.0) if source.kind == "boolean" else source.range
            return ColumnSchema(figure.name, "real", figure.scale, range=ends)
        case "var":
            ends, beside = ends_of_variances(figure.column), figure.columns[1:]
            missing = beside[0] if beside else None
            return ColumnSchema(figure.name, "real", figure.scale, range=ends, missing=missing)
    return attrs.evolve(source, name=figure.name)


def described(figure: Figure, schema: ColumnSchema, place: int) -> Column:
    """A figure as a column, stored at a place of the first part."""
    source, grain = figure.column, figure.column.grain
    once = half_unit(source.schema.scale) if source.schema.kind == "real" and grain is None else grain or 0.0
    match figure.statistic:
        case "count":
            grain = 0.0
        case "sum":
            grain = 2.0**ROOM_BITS * once + half_unit(schema.scale) if schema.kind == "real" else 0.0
        case "mean":
            grain = once + 5 * 2.0**-schema.scale
        case "var":  # rounded values move the variance of rows that spread as their column does by so much
            grain = 6 * math.ldexp(once, figure.column.unit_exponent) + 2 * 2.0**-schema.scale
            grain = 0.0 if schema.kind == "boolean" else grain
    recipe = recipe_of("group", figure.statistic, schema.scale, source.recipe)
    return Column(schema, source.owner, 0, place, grain, source.sources, recipe)
