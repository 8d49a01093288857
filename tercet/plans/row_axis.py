"""What the last axis of a value runs over, as far as a plan's review can tell.

Rows of a table lie along the last axis of what is read, and a figure is a sum over that axis in which all
rows count alike, or as what they hold says. So the review follows for each value of which tables' rows it is,
and in what order these lie. What lets a plan tell single rows apart by where they lie makes a value MIXED:
it is by row then, for good, and no sum makes a figure of it. So does what is not known to be harmless.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Sequence
from typing import Self

import attrs

from tercet.plans.types import Dim, Type

Tables = frozenset[str]
NOTHING: Tables = frozenset()


class Order(enum.Enum):
    """What the places of the last axis stand for."""

    STEADY = "steady"
    """Nothing: all are alike, or there is one."""
    PLACES = "places"
    """Their own public numbers, as those of rows count up."""
    FOREIGN = "foreign"
    """What is by row of no table: numbers of the plan's own, or figures side by side."""
    ROWS = "rows"
    """Rows, one each, of which each entry is made alone."""
    RANKED = "ranked"
    """Rows in an order that follows from what they hold: the place tells a rank."""
    MIXED = "mixed"
    """Rows in a way that lets single ones be told apart, or that is not known."""


class Rows(Tables):
    """The tables by whose rows a stored value is, and in what order."""

    order: Order = Order.ROWS

    @classmethod
    def of(cls, tables: Iterable[str], order: Order) -> Self:
        """Tables with an order."""
        made = cls(tables)
        made.order = order
        return made


@attrs.frozen
class Trace:
    """What is known of a value.

    `frame` names the order in which rows lie, if a shuffle of this plan has made it: values of one frame are
    row by row beside each other. `lists` are, of public positions, the lists that they are positions in, and
    `whole` whether they are all of them, each once.
    """

    order: Order
    tables: Tables = NOTHING
    frame: Hashable = None
    lists: tuple[Trace, ...] = ()
    whole: bool = False

    @property
    def aligned(self) -> tuple[Hashable, ...]:
        """What values by row have in common that may be combined."""
        return self.tables, self.order, self.frame


def mixed(traces: Iterable[Trace]) -> Trace:
    """What is made of values in a way that is not known."""
    tables = NOTHING.union(*(trace.tables for trace in traces))
    return Trace(Order.MIXED, tables) if tables else Trace(Order.FOREIGN)


def free(kind: Type) -> Trace:
    """What is by row of no table."""
    return Trace(Order.STEADY if kind.rows == 1 else Order.FOREIGN)


def side_by_side(traces: Sequence[Trace], rows: Sequence[Dim], whole: Dim) -> Trace:
    """Values combined place by place along a last axis of so many (`whole`); `rows` are their own lengths.

    Rows of one frame meet only those of the same, what is alike for all, and their own ranks.
    """
    by_row = [trace for trace in traces if trace.tables]
    if len(traces) == len(by_row) == 1 and rows[0] == whole:
        return attrs.evolve(traces[0], lists=(), whole=False)
    if not by_row:
        orders = {
            Order.STEADY if length == 1 else trace.order for trace, length in zip(traces, rows, strict=True)
        }
        if orders <= {Order.STEADY}:
            return Trace(Order.STEADY)
        return Trace(Order.PLACES if orders <= {Order.STEADY, Order.PLACES} else Order.FOREIGN)
    first = by_row[0]
    fits = first.order is not Order.MIXED
    for trace, length in zip(traces, rows, strict=True):
        if trace.tables:
            # One row that meets many would count as many.
            fits = fits and trace.aligned == first.aligned and length == whole
        elif length != 1 and trace.order is not Order.STEADY:
            fits = fits and trace.order is Order.PLACES and first.order is Order.RANKED
    return Trace(first.order, first.tables, first.frame) if fits else mixed(traces)
