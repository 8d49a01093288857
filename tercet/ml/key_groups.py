"""Rows with the same secret key made into one, in MPC: the function of SQL's GROUP BY on the key of a table.

Rows are sorted by pseudonyms of their keys under a fresh key, so that rows of one key are neighbours, and
nobody learns which or how many those are: that two neighbours are equal is a secret bit. Figures of a group
are running sums over its rows (`tercet.ml.segments`), which are complete in the last one. For least and
largest values rows are sorted by these first, since equal pseudonyms stay in their order. Then the last row
of each group is what is left: the others do not count, or are dropped, which tells how many groups there are,
or with noise (`tercet.ml.noise`) how many of these and of dummy groups there are, which do not count either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import Public
from tercet.ml.computations import computation
from tercet.ml.disclosure import at_least, both, inverted, kept_where, tellable
from tercet.ml.draft import Draft
from tercet.ml.group_figures import (
    COUNT_SCALE,
    MADE_OF,
    MOST_OCTAVES,
    Figure,
    described,
    ends_of_variances,
    figures_of,
    schema_of,
)
from tercet.ml.group_variances import Bounds, centred, deviations, variance
from tercet.ml.join_options import SIZES, Sizes
from tercet.ml.linalg import quotient, settled
from tercet.ml.noise import COINS, WITH_NOISE, tossed
from tercet.ml.preparation import compacted, made_of, out_of_range, owners
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, ColumnSchema
from tercet.ml.segments import copied, ends, running
from tercet.ml.sides import Side
from tercet.ml.stored_columns import UNIT_BITS, WIDE_SPREAD, Column, Part
from tercet.ml.table import ANALYST, Steps, Table
from tercet.options import AGGREGATES, SCALES, TABLE
from tercet.plans import Builder, Value, concatenate, stack

FLAG = "group"


@computation("group_rows", group="tables", table=TABLE, aggregates=AGGREGATES, sizes=SIZES, scales=SCALES)
def group_rows(
    table: Table,
    aggregates: Mapping[str, str | Sequence[str]],
    sizes: Sizes,
    scales: Mapping[str, int] | None,
) -> Steps[Table]:
    """A table with one row for each key, and columns such as `cost_sum` over the rows that have it.

    Statistics are "count", "sum", "mean", "var", "min", "max", and "first" of the rows in their order. With
    `sizes` "exact" the table has as many rows as there are groups, in random order; with "noisy" also one for
    each of 512 secret coins that has come up, of a dummy group of one row in the middle of all; with "hidden"
    it has as many as before, of which all but one for each group do not count. Neither do dummies: as after a
    filter, and they have keys that match none. Missing values do not count; columns that may be missing have
    counts, sums and variances only. Rows that a filter drops do not count, nor groups that have no others.
    Variances divide by one row less than there are, as in pandas; those of fewer than two rows are missing,
    and `cost_var_missing` tells that.

    Sums are stored with five fractional bits fewer than their column, and counts with 11, unless `scales`
    names others for one of them; real numbers are rounded to the nearest multiple of 2^-scale, integers stay
    exact. Means err by at most 5 units of their scale. Variances are stored with 19 fractional bits fewer
    than twice those of their column, or by its declared range, or as `scales` says, and err by at most 2
    units of that, however far groups lie apart. Discloses one bit, whether a sum, count or variance does not
    fit that or left the usual spread, and a random order to the nodes; with "exact" to the nodes how many
    groups there are, and where owners set a minimum count first one bit, whether as few groups or fewer rows
    more, and then nothing else; with "noisy" to the nodes that number and how many coins have come up, which
    is (0.5, 1e-9)-differentially private for a row, and where as few groups or fewer rows more may not be
    told, no group counts. About 1.1 n log2(n) comparisons of up to 128 bits for n rows, again for each column
    that has "min" or "max".

    Raises SchemaError in these cases, for columns that may be missing, for new columns whose names are taken,
    and PlanError for statistics that do not exist.
    """
    figures = figures_of(table, aggregates, scales or {})
    table.require_rows("groups")
    lake = table.lake
    builder = lake.builder(f"groups of {table.name}")
    found = _sorted_groups(table, builder, figures)
    if sizes == "hidden":
        found = _shuffled(table, builder, figures, *found)
    elif sizes == "noisy":
        found = _among_dummies(table, builder, figures, *found)
    handles = [lake.temporary(f"{table.name}.groups"), *(_handle(table, sizes) for _ in found[1:])]
    for handle, value in zip(handles, found, strict=True):
        value.store(handle)
    result = yield builder.plan()
    raw, flags, keys = (Part(handle, result.stored[handle]) for handle in handles)
    counted = Column(
        ColumnSchema(FLAG, "boolean"),
        owners([*table.selection, figures[0].column]),
        1,
        0,
        sources=made_of(table.selection),
    )
    grouped = attrs.evolve(
        table,
        columns=(),
        parts=(raw, flags),
        keys=keys,
        rows=result.symbols.get(NOISY_ROWS, table.rows),
        selection=(counted,),
        unique=True,
        repeats=None,
        name=f"{table.name}.groups",
        key_holders=table.key_holders if sizes == "exact" else frozenset(),  # else some keys are random
    )
    if sizes == "exact":
        grouped = yield from compacted(
            grouped, "there are as groups, or besides them,", "group with sizes='hidden'"
        )
        grouped.require_rows("groups of rows that count")
    return (yield from _finished(grouped, table, figures))


# -- rows by key ---------------------------------------------------------------------------------------------


def _handle(table: Table, sizes: Sizes) -> str:
    hint = f"{table.name}.groups"
    return table.lake.temporary(hint) if sizes == "exact" else table.lake.handle(hint)


def _sorted_groups(table: Table, builder: Builder, figures: Sequence[Figure]) -> tuple[Value, Value, Value]:
    """Figures `(f, n)` as stored integers, flags of the last rows of groups `(1, n)`, and keys `(2, n)`.

    Figures are those that are no means, in their order, right in the last rows. Rows lie in the order of
    pseudonyms.
    """
    rows, counted = table.rows, table.selected(builder)
    keys = builder.input(table.keys.handle, table.keys.type)
    names = builder.apply("prf", builder.random_words(2), keys)
    plain = _plain(figures)
    varied = [one for one in figures if one.statistic == "var"]
    stored = {one.column.name: table.raw(builder, [one.column.name])[0].squeeze() for one in plain}
    summed: list[Value] = [] if counted is None else [counted.reshape(1, rows)]
    summed += [
        _summand(table, builder, one, stored[one.column.name], counted).reshape(1, rows)
        for one in plain
        if one.statistic in ("sum", "count")
    ]
    offs = [_off(table, builder, one, counted).reshape(1, rows) for one in varied]
    orders: dict[str, Value | None] = {
        one.column.name: _by(stored[one.column.name], counted)
        for one in plain
        if one.statistic in ("min", "max")
    }
    if any(one.statistic == "first" for one in plain):
        orders[""] = None if counted is None else inverted(counted)
    made: dict[str, Value] = {}
    starts: Value | None = None
    for place, (order, by) in enumerate(orders.items() or [("", None)]):
        carried = [*(stored[one] for one in _carried(plain, order)), *([] if counted is None else [counted])]
        block = [value.reshape(1, rows) for value in carried] + ([*summed, *offs] if place == 0 else [])
        values = [names, keys, *([concatenate(block)] if block else [])]
        if by is not None:
            bits = math.ceil(math.log2(by.type.limit + 1)) + 1
            values = builder.apply_all("sort", by, *values, bits=bits)[1:]
        moved, words, *rest = builder.apply_all("sort_words", *values)
        if starts is None:
            same = (moved ^ moved.delay(1)).are_zero().to_ring()
            starts, first_words = inverted(same), words
        if place == 0:
            sums = rest[0].select(range(len(carried), len(carried) + len(summed))) if summed else None
            if varied and sums is not None:
                off = rest[0].select(range(int(rest[0].shape[0]) - len(offs), int(rest[0].shape[0])))
                places = [_place(plain, one.other("count")) + (counted is not None) for one in varied]
                made |= _deviations(table, varied, starts, off, sums.select(places))
        made |= _at_last(
            plain, order, starts, rest[0], len(carried), counted is not None, len(summed) * (place == 0)
        )
    if starts is None:
        raise PlanError("groups without an order")
    last = ends(starts)
    if counted is not None:
        there = made.pop("")
        last = both(last, there)
    raw = concatenate([made[one.name].reshape(1, rows) for one in plain])
    return raw, last.reshape(1, rows), first_words


def _plain(figures: Sequence[Figure]) -> list[Figure]:
    """Those that are summed up or found, and not made of others."""
    return [one for one in figures if one.statistic not in MADE_OF]


def _summand(table: Table, builder: Builder, figure: Figure, stored: Value, counted: Value | None) -> Value:
    """What is summed up `(n,)`: numbers or ones, where they are there and the row counts."""
    beside = figure.column.schema.missing
    present = counted
    if beside is not None:
        there = inverted(table.raw(builder, [beside])[0].squeeze())
        present = there if counted is None else both(there, counted)
    if figure.statistic == "count":
        return stored * 0 + 1 if present is None else present
    return stored if present is None else settled(stored * present)


def _place(plain: Sequence[Figure], name: str) -> int:
    """Where the summand of a figure lies among all that are summed."""
    return [one.name for one in plain if one.statistic in ("sum", "count")].index(name)


def _off(table: Table, builder: Builder, figure: Figure, counted: Value | None) -> Value:
    """A column less its mean `(n,)`, as stored integers, where it is there and the row counts."""
    beside, present = figure.column.schema.missing, counted
    if beside is not None:
        there = inverted(table.raw(builder, [beside])[0].squeeze())
        present = there if counted is None else both(there, counted)
    about = centred(table, builder, figure.column.name, present)
    return about.shifted(-about.scale)


def _deviations(
    table: Table, varied: Sequence[Figure], starts: Value, off: Value, present: Value
) -> dict[str, Value]:
    """Sums that variances are made of, by name, as stored integers `(n,)`."""
    bounds = Bounds.of(table, [one.column.name for one in varied])
    values = off.bounded(bounds.value * 2.0**UNIT_BITS, "a value less the mean").shifted(UNIT_BITS)
    made: dict[str, Value] = {}
    sums = deviations(bounds, starts, values, present.bounded(1.0, "a condition"))
    for one, (squares, offs) in zip(varied, sums, strict=True):
        squares = squares.rescale(bounds.squares_scale(one.unit_scale))
        made[one.other("squares")] = squares.shifted(-squares.scale)
        made[one.other("offs")] = offs.shifted(-offs.scale)
    return made


def _by(stored: Value, counted: Value | None) -> Value:
    """What rows are sorted by: a column's numbers, those that do not count last."""
    return stored if counted is None else stored + inverted(counted) * (2 * stored.type.limit + 1)


def _carried(figures: Sequence[Figure], order: str) -> list[str]:
    """Columns whose figures hang on an order: that of one column's numbers, or the table's own."""
    if order:
        return [order]
    return list(dict.fromkeys(one.column.name for one in figures if one.statistic == "first"))


def _at_last(
    figures: Sequence[Figure],
    order: str,
    starts: Value,
    block: Value,
    width: int,
    counts: bool,
    summed: int,
) -> dict[str, Value]:
    """Figures `(n,)` by name, right in the last row of each run; by "" whether there is one that counts."""
    names, made = _carried(figures, order), dict[str, Value]()
    wanted = {(one.column.name, one.statistic): one.name for one in figures}
    values = [block.select([place]) for place in range(len(names))]
    flags = block.select([width - 1]).squeeze().bounded(1.0, "a condition") if counts else None
    if names:
        heads = copied(starts, settled(concatenate(values) * starts))
        for place, name in enumerate(names):
            for statistic in ("min",) if order else ("first",):
                if (name, statistic) in wanted:
                    made[wanted[name, statistic]] = heads.select([place]).squeeze()
    if order and (order, "max") in wanted:
        tails = values[0]
        if flags is not None:
            marks = (starts + flags - settled(starts * flags)).bounded(1.0, "a condition")
            tails = copied(marks, settled(tails * flags))
        made[wanted[order, "max"]] = tails.squeeze()
    sums = [one for one in figures if one.statistic in ("sum", "count")] if summed else []
    if sums or (summed and counts):
        totals = running(starts, block.select(range(width, width + summed)))
        if counts:
            made[""] = inverted((totals.select([0]).squeeze() - 1).is_negative().to_ring())
        for place, one in enumerate(sums):
            made[one.name] = totals.select([place + counts]).squeeze()
            if counts and one.statistic == "count" and one.column.schema.missing is None:
                made[one.name] = made[one.name] + inverted(made[""])  # never zero, to divide by
    return made


# -- what is told of how many groups there are ---------------------------------------------------------------

NOISY_ROWS = "group.rows"
"""The symbol of how many groups and dummies there are."""
NOISY_GROUPS = f"the number of groups, {WITH_NOISE}"
KEPT_GROUPS = "which of the shuffled rows are groups or dummies whose coin has come up"


def _shuffled(
    table: Table, builder: Builder, figures: Sequence[Figure], raw: Value, last: Value, keys: Value
) -> tuple[Value, Value, Value]:
    """The same in random order; rows that are not the last ones of groups get random keys.

    And the figures of dummies: as they are, all rows of a large group have its first or least value, so that
    one row far from the others would count as often in what is proved, or checked, of all rows.
    """
    dummies = _of_dummies(table, builder, figures)
    raw = settled((raw - dummies) * last.bounded(1.0, "a bit")) + dummies
    mask = builder.apply("masks", (last.squeeze() - 1).is_negative())
    keys = keys ^ settled(mask & builder.random_words(2, int(last.type.rows)))
    raw, last, keys = builder.apply_all("shuffle", raw, last, keys)
    return raw, last, keys


def _among_dummies(
    table: Table, builder: Builder, figures: Sequence[Figure], raw: Value, last: Value, keys: Value
) -> tuple[Value, Value, Value]:
    """The last rows of groups, and dummies, each if its coin has come up, in random order.

    The flags `(1, m)` are one for groups and zero for dummies; the nodes learn m. They are zero for groups
    too where owners do not allow the number of these to be told, since figures tell it without noise.
    """
    counted = last
    if table.min_count > 1:
        told = tellable(last.squeeze().sum().reshape(1), table.countable, table.min_count)
        counted = kept_where(told, last)
    none = builder.apply("marks", rows=COINS, start=0, stop=0).reshape(1, COINS)
    coins = inverted(tossed(builder).are_zero().to_ring()).reshape(1, COINS)
    dummies = none + _of_dummies(table, builder, figures)
    kept, raw, counted, keys = builder.apply_all(
        "shuffle",
        stack([last, coins]).squeeze(),
        stack([raw, dummies]),
        stack([counted, none]),
        stack([keys, builder.random_words(2, COINS)]),
    )
    places = builder.apply("ones", kept.open(KEPT_GROUPS), rows=NOISY_ROWS, told=NOISY_GROUPS)
    return raw.take(places), counted.take(places), keys.take(places)


def _of_dummies(table: Table, builder: Builder, figures: Sequence[Figure]) -> Value:
    """Figures `(f, 1)`, as stored integers, of a group of one row that adds nothing to how columns spread."""
    few = attrs.evolve(table, columns=tuple(dict.fromkeys(one.column for one in figures)))
    side = Side.of(builder, few, anew=False)
    if side is None:
        raise PlanError("figures of no column")
    zero = side.fill.select([0]) * 0
    made = []
    for one in _plain(figures):
        if one.statistic in ("sum", "min", "max", "first"):
            made.append(side.fill.select([few.column_names.index(one.column.name)]))
        else:
            made.append(zero + 1 if one.statistic == "count" else zero)
    return concatenate(made)


# -- what is stored ------------------------------------------------------------------------------------------


def _finished(grouped: Table, table: Table, figures: Sequence[Figure]) -> Steps[Table]:
    """The table of groups, whose figures are stored at their scales. Discloses a bit, if one does not fit."""
    lake, rows, part = table.lake, grouped.rows, grouped.parts[0]
    builder = lake.builder(f"figures of groups of {table.name}")
    draft, raw = Draft(builder), builder.input(part.handle, part.type)
    counted = grouped.selected(builder)
    if counted is not None and table.min_count > 1:  # else a bit of `failed` would tell of single rows
        raw = kept_where(at_least(counted.sum().reshape(1), table.min_count), raw)
    plain = [one.name for one in _plain(figures)]
    varied = [one.column.name for one in figures if one.statistic == "var"]
    checked: dict[str, Value] = {}
    block, columns = list[Value](), list[Column]()
    for one in figures:
        schema = schema_of(table, one)
        with builder.scope(one.name):
            alone: Value | None = None
            value = None if one.statistic in MADE_OF else raw.select([plain.index(one.name)]).squeeze()
            if one.statistic == "var":
                parts = [raw.select([plain.index(one.other(some))]).squeeze() for some in MADE_OF["var"]]
                value, alone = _variance(draft, one, Bounds.of(table, varied), *parts)
                checked[one.name] = value
            elif value is not None and one.statistic in ("sum", "count"):
                unit = 0 if one.statistic == "count" else one.column.schema.scale
                value = settled(value.shifted(unit).nearest(one.scale).shifted(-one.scale))
                value = checked[one.name] = draft.inside(value, 2.0**INTEGER_BITS)
            if value is None:
                sums, counts = (
                    raw.select([plain.index(one.other(some))]).squeeze() for some in ("sum", "count")
                )
                value = _mean(
                    draft, one, schema, sums, counts, next(x for x in figures if x.name == one.other("sum"))
                )
            if one.asked and (
                one.statistic == "count" or (one.statistic in ("sum", "mean", "var") and schema.range is None)
            ):
                widest = WIDE_SPREAD if schema.kind == "integer" and schema.scale == 0 else 1.0
                draft.narrow(value, widest * 2.0**SPREAD_BITS)
        if one.asked:
            columns.append(described(one, schema, len(columns)))
            block.append(
                value.bounded(2.0**INTEGER_BITS, "checked, or between numbers of the column").reshape(1, rows)
            )
        if alone is not None and schema.missing is not None:
            columns.append(described(one, ColumnSchema(schema.missing, "boolean"), len(columns)))
            block.append(alone.reshape(1, rows))
    handle, names = lake.handle(grouped.name), [one.name for one in figures if one.asked]
    concatenate(block).store(handle)
    failed = draft.failed()
    if failed is not None:
        failed.reveal(out_of_range(names), to=ANALYST, kind="check")
    result = yield builder.plan()
    if failed is not None and result.revealed[out_of_range(names)][0] > 0.5:
        named = next(iter(checked), names[0])
        wide = next(one for one in figures if one.name == named)
        fewer = max(wide.scale - 4, 0) if wide.is_whole else wide.scale - 4
        raise SchemaError(
            f"table {table.name!r}, groups: {', '.join(map(repr, names))} do not all fit; say fewer "
            f"fractional bits of sums, counts and variances, as in scales={{{named!r}: {fewer}}}, and "
            "ask for no means or variances of groups of more than 16,000 rows"
        )
    picked = any(one.statistic in ("min", "max", "first") for one in figures)
    return attrs.evolve(
        grouped,
        columns=tuple(columns),
        parts=(Part(handle, result.stored[handle]), *grouped.parts[1:]),
        # Numbers of rows are those of at most two groups each.
        rows_of_sources=max(rows, 2 * table.rows_of_sources) if picked else rows,
    )


def _mean(
    draft: Draft, figure: Figure, schema: ColumnSchema, sums: Value, counts: Value, of: Figure
) -> Value:
    """Quotients of sums and counts as stored integers `(n,)`, within five units. About 40 rounds.

    Sums fit 2^30 units of the scale that they are stored with; two bits more leave room for the quotient.
    """
    unit = figure.column.schema.scale
    scale = min(unit, of.scale + 2)
    fine = settled(sums.shifted(unit).nearest(scale)).bounded(
        2.0 ** (INTEGER_BITS - of.scale), "checked beside"
    )
    few = draft.inside(counts, 2.0**MOST_OCTAVES - 1)
    reach = Public.of(figure.column).reach + 8 * 2.0**-unit
    few = few.at_scale(COUNT_SCALE)  # finer than what tells reciprocals apart
    found = quotient(fine, few, low=0, high=MOST_OCTAVES, scale=schema.scale, magnitude=reach)
    return settled(found.shifted(-schema.scale))


def _variance(
    draft: Draft, figure: Figure, bounds: Bounds, count: Value, squares: Value, offs: Value
) -> tuple[Value, Value]:
    """A variance as stored integers `(n,)`, and ones where there is none, of what was summed up."""
    scale, ends = figure.unit_scale, ends_of_variances(figure.column)
    cut = bounds.squares_scale(scale)
    widest = 2.0 ** (INTEGER_BITS - scale)
    most = None if ends is None else math.ldexp(ends[1], -2 * figure.column.unit_exponent) * 1.001 + 2.0**-8
    found, alone = variance(
        draft,
        bounds,
        squares.bounded(bounds.squares * 2.0**cut, "a sum of squares").shifted(cut),
        offs.bounded(bounds.offs * 2.0**bounds.scale, "a sum of what rows are off").shifted(bounds.scale),
        count,
        octaves=MOST_OCTAVES,
        scale=scale,
        most=widest if most is None else min(most, widest),
        proved=most is not None and most <= widest,
        whole=COUNT_SCALE,
    )
    return settled(found.shifted(-scale)), alone
