"""Splitting rows at random: train and test rows, or the folds of a cross-validation.

Rows are dealt to hands by shuffles that nobody can follow; stratified, each hand gets its share of the ones
of a column, and nobody learns which rows those are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.computations import computation
from tercet.ml.stored_columns import Part
from tercet.ml.table import Steps, Table
from tercet.options import MAYBE_COLUMN, TABLE, TEST_SIZE
from tercet.plans import Builder, Value

Fold = tuple[Table, Table]
"""Train and test rows."""

RANDOM_ORDER = "places of shuffled rows, a random order"


@computation("split", group="tables", table=TABLE, test_size=TEST_SIZE, stratify=MAYBE_COLUMN)
def split(table: Table, test_size: float, stratify: str | None = None) -> Steps[Fold]:
    """Train and test rows, drawn at random by a shuffle that nobody can follow; every call draws anew.

    `test_size` is the share of test rows, rounded up as in scikit-learn. `stratify` names a 0/1 column of
    which both parts shall have the same share of ones, within a row or two. Discloses nothing but the two row
    counts, which everyone can work out, and for `stratify` a random order of shuffled rows to the nodes; not
    how many ones there are.
    """
    table.require_rows("a split", least=2)
    test_rows = min(table.rows - 1, math.ceil(test_size * table.rows))
    sizes = (table.rows - test_rows, test_rows)
    builder = table.lake.builder(f"split {table.name}")
    values = _in_hands(builder, table, sizes, stratify)
    hands = []
    for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
        hand = [value.slice(start, stop) for value in values]
        # Nodes know which of the dealt rows are first by class: their order has to be forgotten.
        hands.append(hand if stratify is None else builder.apply_all("shuffle", *hand))
    train, test = yield from _stored(builder, table, hands, ("train", "test"))
    return train, test


def folds(table: Table, count: int, stratify: str | None) -> Steps[list[Fold]]:
    """Train and test rows of each of `count` folds, which take each row once. Discloses what `split` does."""
    if not 2 <= count <= table.rows:
        raise SchemaError(
            f"cv={count} is no number of folds between 2 and the {table.rows} rows that there are"
        )
    sizes = tuple(table.rows // count + (fold < table.rows % count) for fold in range(count))
    builder = table.lake.builder(f"folds of {table.name}")
    values = _in_hands(builder, table, sizes, stratify)
    hands, labels = [], []
    for fold, cut in enumerate(itertools.pairwise(itertools.accumulate(sizes, initial=0))):
        hands += [[value.omit(*cut) for value in values], [value.slice(*cut) for value in values]]
        labels += [f"without fold {fold + 1}", f"fold {fold + 1}"]
    made = yield from _stored(builder, table, hands, labels)
    return list(zip(made[::2], made[1::2], strict=True))


def _in_hands(builder: Builder, table: Table, sizes: Sequence[int], stratify: str | None) -> list[Value]:
    """All parts of a table and its keys, rows in random order; stratified, hands of these sizes one by one.

    For that, each row gets its place in the order of classes, and at once a new one by a second shuffle. Then
    places are opened, and tell nothing but that shuffle; places at even distances make a hand.
    """
    sources = [*table.parts, table.keys]
    values = builder.apply_all("shuffle", *[builder.input(part.handle, part.type) for part in sources])
    if stratify is None:
        return values
    table.require_boolean(stratify, "stratify=")
    column = table.column(stratify)
    ones = values[column.part].select([column.place]).squeeze().bounded(1.0, "a boolean")
    *moved, places = builder.apply_all("shuffle", *values, _places_by_class(ones, table.rows))
    dealt = builder.apply("deal", places.open(RANDOM_ORDER), sizes=tuple(sizes))
    return [value.take(dealt) for value in moved]


def _places_by_class(ones: Value, rows: int) -> Value:
    """The place `(rows,)` of each row if zeros came before ones, and else all stayed in order."""
    up_to = ones.cumulate(magnitude=rows)
    zeros = ones.builder.apply("count_up", ones) - up_to  # before a row that is zero
    later = up_to * 2 + (-ones.sum(magnitude=rows) + rows).reshape(1) - ones.builder.apply("count_up", ones)
    place = zeros + ones.times(later - 1, magnitude=rows)
    return place.bounded(rows, "a place")


def _stored(
    builder: Builder, table: Table, hands: Sequence[Sequence[Value]], labels: Sequence[str]
) -> Steps[list[Table]]:
    """Tables of hands of rows; each hand has the table's parts and its keys."""
    handles = [
        [table.lake.handle(f"{table.name}.{label}") for _ in hand]
        for hand, label in zip(hands, labels, strict=True)
    ]
    for hand, names in zip(hands, handles, strict=True):
        for value, handle in zip(hand, names, strict=True):
            value.store(handle)
    result = yield builder.plan()
    made = []
    for label, names in zip(labels, handles, strict=True):
        *parts, keys = (Part(handle, result.stored[handle]) for handle in names)
        made.append(
            attrs.evolve(
                table, name=f"{table.name}.{label}", rows=int(keys.type.rows), parts=tuple(parts), keys=keys
            )
        )
    return made
