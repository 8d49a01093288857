"""What a plan does with data, as owners want to know it: what it reads, reveals and to whom.

Whether something revealed is about single rows is decided by a walk over the plan that follows the axis of
rows (see `rows`): what is read is by row, and stays so until it is summed over rows that the plan cannot tell
apart. What a kind of node does along that axis it declares itself, and what is not declared keeps rows apart.
What a plan opens to the nodes is looked through as a whole (see `openings`). A plan can still be made to
single rows out by conditions on what they hold, or by their rank; against an analyst whom an owner does not
trust so far, the owner approves plan by plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import attrs
import numpy as np

from tercet.plans.kinds import KINDS, Along
from tercet.plans.openings import unclear_openings
from tercet.plans.plan import Plan
from tercet.plans.promises import promised
from tercet.plans.row_axis import NOTHING, Order, Rows, Tables, Trace, free, mixed, side_by_side
from tercet.plans.types import Dim, Node, Ref, Type
from tercet.protocols.base import Protocol

__all__ = ["NOTHING", "Review", "Rows", "Tables", "review"]


@attrs.frozen
class Review:
    """What a plan reads and reveals, and of which tables single rows are concerned.

    `receivers` are those to whom something is revealed; `rows` says what is revealed by row, `unclear` which
    openings of values by row do not show to be harmless, each with the tables whose rows these are. `fewest`
    is the smallest number of rows of a table that a sum goes over, as far as it is fixed before the run, and
    `apart` that by which two such sums differ. `placed` are the tables of which the plan takes rows by their
    place in the order in which they are stored. `stored` has for each value that the plan stores the tables
    whose rows it is by, and `long` are those of them that are as long as a value by row that the plan reads.
    `joins` are the lists of keys that get pseudonyms under one key, each by its tables.
    `kept` are the symbols that say how many rows a filter keeps, and of how many; `unmatched` those that say
    how many are left without those that a match takes together or away. `promised` says what the nodes see
    that tells nothing of rows as long as bounds hold that the plan's author promises.
    """

    handles: tuple[str, ...]
    receivers: tuple[str, ...]
    rows: tuple[tuple[str, Tables], ...]
    unclear: tuple[tuple[str, Tables], ...]
    fewest: Mapping[str, int]
    stored: Mapping[str, Tables]
    apart: Mapping[str, int] = attrs.field(factory=dict)
    placed: Tables = NOTHING
    joins: tuple[tuple[Tables, ...], ...] = ()
    kept: Mapping[str, int] = attrs.field(factory=dict)
    unmatched: Mapping[str, int] = attrs.field(factory=dict)
    promised: tuple[tuple[str, Tables], ...] = ()
    long: frozenset[str] = frozenset()

    def rows_of(self, table: str) -> list[str]:
        """What is revealed by row of a table."""
        return [what for what, tables in self.rows if table in tables]

    def unclear_about(self, table: str) -> list[str]:
        """Openings that concern rows of a table, and need a look; so do those that rest on promises."""
        return [what for what, tables in (*self.unclear, *self.promised) if table in tables]

    @property
    def needs_none(self) -> Review:
        """The same of a plan that nodes have made themselves: what that opens and promises is proved."""
        return attrs.evolve(self, unclear=(), promised=(), placed=NOTHING)

    def needs_look(self, table: str, own: Tables) -> bool:
        """Whether the owner of a table has to look at the plan, whose caller owns the tables `own`.

        So it is for openings that are not plainly harmless, for rows taken by their place, and where more
        than one list of the caller's own is matched with others: the nodes see which rows are in which lists,
        so lists that somebody makes up can spell out which row is whose.
        """
        if self.unclear_about(table) or table in self.placed:
            return True
        joins = [join for join in self.joins if any(table in tables for tables in join)]
        return any(sum(tables <= own for tables in join) > 1 for join in joins)

    def named(self, names: Mapping[str, str]) -> Review:
        """The same, with tables by other names."""

        def renamed(tables: Tables) -> Tables:
            return frozenset(names[table] for table in tables)

        return attrs.evolve(
            self,
            rows=tuple((what, renamed(tables)) for what, tables in self.rows),
            unclear=tuple((what, renamed(tables)) for what, tables in self.unclear),
            promised=tuple((what, renamed(tables)) for what, tables in self.promised),
            fewest={names[table]: count for table, count in self.fewest.items()},
            apart={names[table]: count for table, count in self.apart.items()},
            placed=renamed(self.placed),
            joins=tuple(tuple(map(renamed, join)) for join in self.joins),
        )


def review(plan: Plan, rows_before: Callable[[str], Tables], protocol: type[Protocol] = Protocol) -> Review:
    """Look a plan through that runs under a protocol.

    `rows_before` says of a stored value of which tables' rows it is: what `Review.stored` said of it, or of
    columns that an owner has uploaded a plain set.
    """
    walk = _Walk(plan, rows_before)
    for index, node in enumerate(plan.nodes):
        walk.step(index, node)
    unclear, joins = unclear_openings(plan, walk.traces)
    for join in joins:
        lengths = [plan.type_of(ref).rows for ref, _ in join]
        for tables in (trace.tables for _, trace in join):
            walk.count(tables, min((one for one in lengths if isinstance(one, int)), default=None))
    return Review(
        tuple(walk.handles),
        tuple(walk.receivers),
        tuple(walk.rows),
        tuple(unclear),
        walk.fewest,
        walk.stored,
        walk.apart(),
        walk.placed,
        tuple(tuple(trace.tables for _, trace in join) for join in joins),
        walk.kept,
        walk.unmatched,
        tuple(walk.promised(protocol)),
        frozenset(handle for handle, rows in walk.ends.items() if rows in walk.lengths),
    )


class _Walk:
    """The walk over a plan: what is known of every value, and what was met on the way."""

    def __init__(self, plan: Plan, rows_before: Callable[[str], Tables]) -> None:
        self.plan = plan
        self.traces: dict[Ref, Trace] = {}
        self.handles: dict[str, None] = {}
        self.receivers: dict[str, None] = {}
        self.rows: list[tuple[str, Tables]] = []
        self.fewest: dict[str, int] = {}
        self.stored: dict[str, Tables] = {}
        self.lengths: set[Dim] = set()
        self.ends: dict[str, Dim] = {}
        self.placed: Tables = NOTHING
        self.kept: dict[str, int] = {}
        self.unmatched: dict[str, int] = {}
        self.uploaded: set[str] = set()
        self._rows_before = rows_before
        self._cuts: dict[tuple[Hashable, Tables, int], set[int]] = {}

    def step(self, index: int, node: Node) -> None:
        """Find what is known of a node's results."""
        traces = [self.traces[ref] for ref in node.args]
        found = self._results(index, node, traces)
        self.traces.update({(index, output): trace for output, trace in enumerate(found)})

    def count(self, tables: Tables, rows: int | str | None) -> None:
        """Note that a figure rests on so many rows of some tables."""
        if isinstance(rows, int):
            self.fewest |= {table: min(rows, self.fewest.get(table, rows)) for table in tables}

    def apart(self) -> dict[str, int]:
        """By how few rows of a table two ways to cut its rows differ, or one and all of them."""
        found: dict[str, int] = {}
        for (_, tables, rows), cuts in self._cuts.items():
            smallest = min(after - before for before, after in itertools.pairwise(sorted({0, rows, *cuts})))
            found |= {table: min(smallest, found.get(table, smallest)) for table in tables}
        return found

    def promised(self, protocol: type[Protocol]) -> Iterator[tuple[str, Tables]]:
        """What the nodes see of rows that rests on promised bounds."""
        for what, refs in promised(self.plan, self.uploaded, masks_hide_all=protocol.masks_hide_all):
            if tables := NOTHING.union(*(self.traces[ref].tables for ref in refs)):
                yield what, tables

    def _results(self, index: int, node: Node, traces: Sequence[Trace]) -> list[Trace]:
        types = [self.plan.type_of(ref) for ref in node.args]
        match KINDS[node.kind].along:
            case Along.SOURCE:
                return [self._source(node)]
            case Along.NUMBERS:
                return [_numbers(node)]
            case Along.COUNT:
                steady = node.types[0].rows == 1
                return [Trace(Order.STEADY if steady else Order.PLACES)]
            case Along.EACH:
                return [_each(traces, types, node.types[0])] * len(node.types)
            case Along.LAST:
                return [_last(traces, node.types[0])]
            case Along.SUM:
                return [self._sum(traces, types, node.types[0])]
            case Along.RESHAPE:
                return [_reshaped(traces[0], types[0], node)]
            case Along.SHUFFLE:
                return _shuffled(traces, types, index)
            case Along.SORT:
                return _sorted(traces, types, node)
            case Along.NEAR:
                return [_near(traces[0], node.types[0])]
            case Along.PART:
                return [self._part(node, traces[0], types[0])]
            case Along.STACK:
                return [self._stacked(node, traces, types)]
            case Along.TAKE:
                return [_taken(node, traces)]
            case Along.POSITIONS:
                return [self._positions(index, node, traces, types)]
            case Along.END:
                self._end(node, traces[0])
                return list(traces)
            case _:
                return [mixed(traces)] * len(node.types)

    def _source(self, node: Node) -> Trace:
        handle = str(node.get("handle"))
        self.handles[handle] = None
        tables = self._rows_before(handle)
        order = tables.order if isinstance(tables, Rows) else Order.ROWS
        if tables and not isinstance(tables, Rows):
            self.uploaded.add(handle)
        if tables:
            self.lengths.add(node.types[0].rows)
        return Trace(order, frozenset(tables)) if tables else free(node.types[0])

    def _sum(self, traces: Sequence[Trace], types: Sequence[Type], made: Type) -> Trace:
        rows = types[0].rows
        trace = side_by_side(traces, [kind.rows for kind in types], rows)
        if trace.order is Order.MIXED:
            return trace
        self.count(trace.tables, rows)
        return free(made)

    def _part(self, node: Node, trace: Trace, kind: Type) -> Trace:
        if not trace.tables or trace.order is Order.MIXED:
            return _near(trace, node.types[0])
        if trace.order is not Order.ROWS or not isinstance(kind.rows, int):
            return mixed([trace])
        cuts = self._cuts.setdefault((trace.frame, trace.tables, kind.rows), set())
        cuts |= {int(node.get("start")), int(node.get("stop"))}
        if _as_stored(trace.frame):
            self.placed |= trace.tables
        return Trace(Order.ROWS, trace.tables, ("part", node.attributes, node.kind, trace.frame))

    def _stacked(self, node: Node, traces: Sequence[Trace], types: Sequence[Type]) -> Trace:
        """Rows of tables that have none in common, one table's after the other's.

        What is summed over them rests on the rows of each. A row that is there twice would count as two.
        """
        tables = NOTHING.union(*(trace.tables for trace in traces))
        if not tables:
            return _near(traces[0], node.types[0])
        apart = sum(len(trace.tables) for trace in traces) == len(tables)
        if not apart or any(trace.order is not Order.ROWS or not trace.tables for trace in traces):
            return mixed(traces)
        for trace, kind in zip(traces, types, strict=True):
            self.count(trace.tables, kind.rows)
        frames = tuple((trace.tables, trace.frame) for trace in traces)
        return Trace(Order.ROWS, tables, ("stack", frames))

    def _positions(self, index: int, node: Node, traces: Sequence[Trace], types: Sequence[Type]) -> Trace:
        if node.kind == "ones" and isinstance(types[0].rows, int):
            self.kept[str(node.get("rows"))] = types[0].rows
        made = mixed(traces)
        how = dict(node.attributes).get("how")
        if how is not None:  # zeros stand where a list has no row: these can be told apart
            lengths = [kind.rows for kind in types[: 2 if how == "outer" else 1]]
            if how in ("anti", "outer"):
                self.unmatched[str(node.get("rows"))] = sum(one for one in lengths if isinstance(one, int))
            return made
        return attrs.evolve(made, lists=tuple(traces), frame=("positions", index), whole=node.kind == "deal")

    def _end(self, node: Node, trace: Trace) -> None:
        if node.kind == "store":
            tables, handle = trace.tables, str(node.get("handle"))
            self.stored[handle] = Rows.of(tables, trace.order) if tables else NOTHING
            self.ends |= {handle: self.plan.type_of(node.args[0]).rows} if tables else {}
        elif node.kind == "reveal":
            self.receivers[str(node.get("to"))] = None
            if trace.tables:
                self.rows.append((f"{node.get('name')!r} to {node.get('to')}", trace.tables))


def _as_stored(frame: Hashable) -> bool:
    """Whether rows, or some of those that were stacked, lie in the order in which they are stored."""
    match frame:
        case ("stack", tuple(frames)):
            return any(_as_stored(one) for _, one in frames)
    return frame is None


def _numbers(node: Node) -> Trace:
    """Public numbers: steady if each row of the result gets the same."""
    kind = node.types[0]
    if node.kind == "constant" and kind.rows != 1:
        words = np.frombuffer(node.get("words"), dtype=np.uint64).reshape(node.get("shape"))
        if words.size and (words == words[..., :1]).all():
            return Trace(Order.STEADY)
    return free(kind)


def _each(traces: Sequence[Trace], types: Sequence[Type], made: Type) -> Trace:
    return side_by_side(traces, [kind.rows for kind in types], made.rows)


def _last(traces: Sequence[Trace], made: Type) -> Trace:
    *others, last = traces
    if any(trace.tables for trace in others):
        return mixed(traces)
    return last if last.tables or last.order is Order.STEADY else free(made)


def _reshaped(trace: Trace, before: Type, node: Node) -> Trace:
    """A value in another shape. Where the last axis has other places, or is another axis, rows are lost."""
    made = node.types[0]
    stays = node.kind == "reshape" and (before.shape or (1,))[-1] == made.rows
    if trace.tables:
        return trace if stays else mixed([trace])
    return trace if stays and trace.order is Order.PLACES else _near(trace, made, stays=stays)


def _near(trace: Trace, made: Type, *, stays: bool = False) -> Trace:
    """Places made of others: of ranked rows that is ranked still, of others not known."""
    if trace.tables:
        return trace if trace.order is Order.RANKED else mixed([trace])
    return trace if stays and trace.order is Order.STEADY else free(made)


def _shuffled(traces: Sequence[Trace], types: Sequence[Type], index: int) -> list[Trace]:
    """All arguments in one order that nobody knows, as long as none of them tells it."""
    whole = types[0].rows
    known = [trace for trace in traces if trace.order is not Order.MIXED]
    together = side_by_side(known, [whole] * len(known), whole) if known else mixed(traces)
    tables = NOTHING.union(*(trace.tables for trace in traces))
    if not tables:
        return list(traces)
    if together.order is Order.MIXED or tables != together.tables:
        return [mixed(traces)] * len(traces)
    made = Trace(Order.ROWS, tables, ("shuffle", index))
    found = {Order.MIXED: attrs.evolve(made, order=Order.MIXED), Order.STEADY: Trace(Order.STEADY)}
    return [found.get(trace.order, made) for trace in traces]


def _sorted(traces: Sequence[Trace], types: Sequence[Type], node: Node) -> list[Trace]:
    """Rows in an order that follows from what they hold; not from numbers of the plan's own."""
    whole = types[0].rows
    together = side_by_side(traces, [whole] * len(traces), whole)
    if together.order is Order.MIXED or (together.tables and not traces[0].tables):
        return [mixed(traces)] * len(traces)
    if not together.tables:
        return [free(kind) for kind in node.types]
    made = Trace(Order.RANKED, together.tables)
    return [made if trace.tables else trace for trace in traces]


def _taken(node: Node, traces: Sequence[Trace]) -> Trace:
    """Rows by public positions: those of a list that was shuffled along with them, or any.

    Where all rows are dealt anew, the list may be of whatever was opened: that takes a look by their owner.
    """
    values, positions = traces
    table = int(node.get("table"))
    listed = positions.lists[table] if 0 <= table < len(positions.lists) else None
    if listed is None or values.order is not Order.ROWS or values.frame is None:
        return mixed(traces)
    same = (values.tables, values.frame) == (listed.tables, listed.frame)
    if not same or (listed.order is not Order.ROWS and not positions.whole):
        return mixed(traces)
    return Trace(Order.ROWS, values.tables | positions.tables, positions.frame)
