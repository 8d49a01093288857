"""Joins that tell nothing but the sizes of their inputs, also of tables whose keys repeat.

Rows of both tables are sorted by the pseudonyms of their keys, so that equal ones are neighbours: first the
row of the right table, if there is one, then those of the left. That they are equal is a secret bit, never
opened. Where keys are unique on both sides, a row takes the columns of the right one of three rows before it;
else they are copied down each run (`tercet.ml.segments`). Then rows are shuffled and their numbers opened,
which are in a random order, and each row of the left table gets what it was linked with, in its own place.

With c columns of n rows in both tables, that is 1.1 n log2(n) comparisons and two shuffles; rounds grow with
log2(n)^2. Of 2,000,000 rows, 52 bits are compared where keys are unique, else 103.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.disclosure import inverted, kept_where
from tercet.ml.linalg import settled
from tercet.ml.preparation import made_of, owners
from tercet.ml.schema import ColumnSchema
from tercet.ml.segments import copied
from tercet.ml.sides import Side, coarser, described, links_of, selected, several, told_anew
from tercet.ml.splitting import RANDOM_ORDER
from tercet.ml.stored_columns import Column, Part
from tercet.ml.table import ANALYST, Steps, Table
from tercet.plans import Builder, Value, concatenate
from tercet.plans.joining_kinds import NEAR

REPEATED = "whether a key occurs more often in a table than the join allows"


def hidden_join(left: Table, right: Table, how: str, *, many: bool, name: str) -> Steps[Table]:
    """The rows of two tables by their keys, some of which a secret flag lets count.

    For "left", "inner", "semi" and "anti", rows are those of the left table in their order, and keep its
    parts; for "outer", and for "right" where `many` rows of the left table may have one key, these and then
    those of the right. Raises SchemaError, of which a check bit tells, for keys that repeat though they must
    not, and, with `many`, at once for columns of the right table without a public range.
    """
    builder = left.lake.builder(f"join {name}")
    linked = _linked(builder, left, right, many=many)
    written = (_of_both if how in ("outer", "right") else _of_left_rows)(linked, left, linked.right, how)
    handles = [left.lake.handle(name) for _ in written.stored]
    for handle, value in zip(handles, written.stored, strict=True):
        value.store(handle)
    linked.repeated.reveal(REPEATED, to=ANALYST, kind="check")
    result = yield builder.plan()
    if result.revealed[REPEATED][0] > 0.5:
        raise SchemaError(
            f"tables {left.name!r} and {right.name!r}: a key occurs more often in one of them than "
            f"validate={'m:1' if many else '1:1'!r} allows; "
            + (
                f"each key of {right.name!r} has to be there once"
                if many
                else "let those of the left table repeat with validate='m:1'"
            )
        )
    joined = written.make([Part(handle, result.stored[handle]) for handle in handles])
    return attrs.evolve(
        joined,
        name=name,
        rows_of_sources=max(left.rows_of_sources, right.rows_of_sources),
        min_count=max(left.min_count, right.min_count),
    )


# -- linking -------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Linked:
    """Rows of the `right` table, as it is joined, and of the left, after a shuffle; `numbers` are public.

    `values` `(d, n)` are centred columns of the right table, with those of left rows that were linked;
    `there` `(n,)` is one where they stand for something, `alone` `(n,)` in right rows that no left row was
    linked with. `repeated` `(1,)` is one if a key occurs too often, and then the other flags are zero.
    """

    right: Table
    side: Side | None
    values: Value | None
    there: Value
    alone: Value
    repeated: Value
    numbers: Value
    sizes: tuple[int, int]

    def of_left(self, value: Value) -> Value:
        """The rows of the left table, in their order."""
        return self._rows(value, self.sizes[1], sum(self.sizes))

    def of_both(self, value: Value) -> Value:
        """The rows of the left table, then those of the right."""
        left, right = self.sizes
        first = self.of_left(value).padded(0, right)
        return first + self._rows(value, 0, right).padded(left, 0)

    def _rows(self, value: Value, start: int, stop: int) -> Value:
        places = self.numbers.builder.apply("in_order", self.numbers, start=start, stop=stop)
        return value.take(places)


def _linked(builder: Builder, left: Table, right: Table, *, many: bool) -> _Linked:
    """Link each row of the left table with the one of the right that has its key."""
    sizes, rows = (left.rows, right.rows), left.rows + right.rows
    anew = several((left, right))
    cuts: Sequence[int] = ()
    if many:
        right, cuts = coarser(right)
    side = Side.of(builder, right, anew=anew, cuts=cuts)
    secret = builder.random_words(2)
    names = [
        builder.apply("prf", secret, builder.input(table.keys.handle, table.keys.type))
        for table in (right, left)
    ]
    names = [names[0].padded(0, sizes[0]), names[1].padded(sizes[1], 0)]
    ours = builder.apply("marks", rows=rows, start=0, stop=sizes[1])
    numbers = ours * 0 + builder.apply("count_up", ours)
    counted = selected(builder, right, anew=anew)
    present = ours if counted is None else counted.padded(0, sizes[0])
    block = present.reshape(1, rows)
    if side is not None:
        block = concatenate([side.centred.padded(0, sizes[0]), block])
    given = [names[0] ^ names[1], numbers, ours, block]
    if many:
        pseudonyms, numbers, ours, block = builder.apply_all("sort_words", *given)
        before = [pseudonyms.delay(1)]
    else:
        pseudonyms, numbers, ours, block = builder.apply_all("sort_words", *given, first=sizes[1])
        before = [pseudonyms.delay(place + 1) for place in range(NEAR)]
    same = [(pseudonyms ^ other).are_zero().to_ring() for other in before]
    limit = float(block.type.limit)
    if many:
        again = _bit(same[0] * ours)
        follows = (same[0] - again).bounded(1.0, "a bit")  # a left row whose key is that of the row before
        moved, repeats = copied(inverted(follows), block), again.sum()
        linked = follows.delay(-1)
    else:
        # Rows of one side that have the same key come as near as that, if there are any.
        alike = [inverted(ours.delay(place + 1) - ours) for place in range(NEAR)]
        repeats = _total([one * other for one, other in zip(same, alike, strict=True)]).sum()
        taken = [one.reshape(1, rows) * block.delay(place + 1) for place, one in enumerate(same)]
        moved = (block + _total(taken)).bounded(limit, "all but one of them are zero")
        linked = _total([one.delay(-1 - place) for place, one in enumerate(same)])
    sound = repeats.reshape(1).is_zero().to_ring()
    last = len(right.columns)
    there = kept_where(sound, settled(moved).select([last]).squeeze().bounded(1.0, "a bit"))
    here = block.select([last]).squeeze().bounded(1.0, "a bit")
    alone = kept_where(sound, _bit(here * inverted(linked.bounded(1.0, "a bit"))))
    columns = [] if side is None else [settled(moved).select(range(last))]
    numbers, there, alone, *values = builder.apply_all("shuffle", numbers, there, alone, *columns)
    return _Linked(
        right,
        side,
        values[0] if values else None,
        there.bounded(1.0, "a bit"),
        alone.bounded(1.0, "a bit"),
        inverted(sound),
        numbers.open(RANDOM_ORDER),
        sizes,
    )


def _total(values: Sequence[Value]) -> Value:
    """The sum of some values."""
    return functools.reduce(operator.add, values)


def _bit(product: Value) -> Value:
    """A product of bits, after its round."""
    return settled(product.bounded(1.0, "a product of bits"))


# -- tables --------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Result:
    """What is stored, and the table of all these parts."""

    stored: list[Value]
    make: Callable[[list[Part]], Table]


def _of_left_rows(linked: _Linked, left: Table, right: Table, how: str) -> _Result:
    """The rows of the left table, in one more part the columns of the right one and a flag."""
    there = linked.of_left(linked.there)
    gone, place, told = inverted(there), 0, None
    columns: tuple[Column, ...] = ()
    if linked.side is not None and linked.values is not None and how in ("left", "inner"):
        told = linked.side.told(linked.of_left(linked.values), gone)
        place = len(right.columns)
        if how == "left":
            columns = described(
                right, len(left.parts), place, links=links_of(left, right), taken=left.column_names
            )
        else:
            columns = tuple(
                attrs.evolve(column, part=len(left.parts), place=number)
                for number, column in enumerate(right.columns)
            )
    flag = (gone if how in ("left", "anti") else there).reshape(1, left.rows)
    part = concatenate([flag] if told is None else [told, flag])
    counts = () if how == "left" else (_flag(right, len(left.parts), place),)
    mine, stored = _anew(linked.numbers.builder, left, right)

    def make(parts: list[Part]) -> Table:
        return attrs.evolve(
            mine,
            columns=(*mine.columns, *columns),
            parts=(*left.parts, *parts),
            selection=(*mine.selection, *counts),
        )

    return _Result([part, *stored], make)


def _anew(builder: Builder, left: Table, right: Table) -> tuple[Table, list[Value]]:
    """The left table with its zeros and ones in a part of their own, the second new one, told anew.

    As it is, and nothing to store, if all columns are of one owner, or none of them is boolean.
    """
    every = (*left.columns, *left.selection)
    flags = [column for column in every if column.schema.kind == "boolean"]
    if not flags or not several((left, right)):
        return left, []
    rows = [
        builder.input(left.parts[one.part].handle, left.parts[one.part].type).select([one.place])
        for one in flags
    ]
    told = told_anew(concatenate(rows), set(range(len(flags))))
    places = {(one.part, one.place): number for number, one in enumerate(flags)}
    moved = [
        attrs.evolve(one, part=len(left.parts) + 1, place=places[one.part, one.place])
        if (one.part, one.place) in places
        else one
        for one in every
    ]
    count = len(left.columns)
    return attrs.evolve(left, columns=tuple(moved[:count]), selection=tuple(moved[count:])), [told]


def _of_both(linked: _Linked, left: Table, right: Table, how: str) -> _Result:
    """The rows of the left table, then those of the right that were linked with none of them."""
    builder, rows = linked.numbers.builder, left.rows + right.rows
    there, alone = linked.of_both(linked.there), linked.of_both(linked.alone)
    ours = builder.apply("marks", rows=rows, start=0, stop=left.rows)
    counts = ours + alone if how == "outer" else settled(ours * there) + alone
    mine = Side.of(builder, left, anew=several((left, right)))
    parts, told = [], None
    columns: tuple[Column, ...] = ()
    if mine is not None:
        gone = inverted(ours)
        block = mine.told(mine.centred.padded(0, right.rows), gone)
        parts.append(concatenate([block, gone.reshape(1, rows)]))
        columns = described(left, 0, len(left.columns), links=links_of(left, right), taken=right.column_names)
    flags = [inverted(there).reshape(1, rows), counts.bounded(1.0, "a bit").reshape(1, rows)]
    if linked.side is not None and linked.values is not None:
        told = linked.side.told(linked.of_both(linked.values), inverted(there))
        taken = [column.name for column in columns]
        columns += described(right, len(parts), len(right.columns), links=links_of(left, right), taken=taken)
    parts.append(concatenate(flags if told is None else [told, *flags]))
    words = [builder.input(table.keys.handle, table.keys.type) for table in (left, right)]
    keys = words[0].padded(0, right.rows) ^ words[1].padded(left.rows, 0)
    counted = _flag(right, len(parts) - 1, 1 + (len(right.columns) if told is not None else 0))

    def make(stored: list[Part]) -> Table:
        return attrs.evolve(
            left,
            columns=columns,
            parts=tuple(stored[:-1]),
            keys=stored[-1],
            rows=rows,
            selection=(counted,),
            unique=False,  # what does not count has the key of what does
        )

    return _Result([*parts, keys], make)


def _flag(right: Table, part: int, place: int) -> Column:
    """The column of zeros and ones that tells which rows count."""
    sources = made_of(right.selection)
    return Column(ColumnSchema("joined", "boolean"), owners(right.selection), part, place, sources=sources)
