"""Plan nodes that move or count rows: slices, neighbours, running totals, rows by public position.

None needs the network. All of them read whole values, since rows cross the borders of tiles; workers of a
party run them together, each on its block of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.plans.kinds import (
    PROMISE,
    Along,
    Context,
    Data,
    Kind,
    Sizes,
    Tiling,
    as_public,
    fields,
    kind,
    promised,
    reach,
    require,
    require_ring,
)
from tercet.plans.local_kinds import Unary
from tercet.plans.matching import first_places
from tercet.plans.types import NODES, Disclosure, Form, Node, Type
from tercet.protocols import together
from tercet.protocols.base import Op, Protocol, Share
from tercet.protocols.domains import Words, encode
from tercet.protocols.kernels import Indices
from tercet.protocols.together import Team

# -- public numbers of rows ----------------------------------------------------------------------------------


@kind("count_up")
class CountUp(Kind):
    """The public numbers 0, 1, 2, ... as long as the rows of the argument, which is not read."""

    along = Along.COUNT
    tiling = Tiling.WHOLE
    together = True
    takes_products = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        return [Type(Form.PUBLIC, (args[0].rows,), 0, float(sizes.most(args[0].rows)))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        return _numbers(protocol, args[0])


@kind("reciprocals")
class Reciprocals(Kind):
    """The public numbers 1, 1/2, 1/3, ... as long as the rows of the argument, which is not read."""

    along = Along.COUNT
    attributes = fields(scale=int)
    tiling = Tiling.WHOLE
    together = True
    takes_products = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        scale = int(attributes["scale"])
        require(0 <= scale <= 62, f"reciprocals at scale {scale} do not fit a word")
        return [Type(Form.PUBLIC, (args[0].rows,), scale, 2.0**scale)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        return encode(1 / (_numbers(protocol, args[0]) + 1.0), int(node.get("scale")))


def _numbers(protocol: Protocol, x: Data) -> Words:
    """The number of each row, of all that workers have together."""
    rows = range(x.shape[-1]) if protocol.team is None else protocol.team.block(protocol.team.rows[0])
    return np.arange(rows.start, rows.stop, dtype=np.uint64)


# -- rows of one value ---------------------------------------------------------------------------------------


class Window(Unary):
    """Neighbouring rows of a value, which may reach beyond its ends, where there are zeros."""

    tiling = Tiling.WHOLE
    together = True

    def window(self, node: Node, rows: int) -> tuple[int, int]:
        """From which row to which one, of a value of so many."""
        raise NotImplementedError

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        if protocol.team is not None:
            return self._together(node, protocol, protocol.team, x)
        start, stop = self.window(node, x.shape[-1])
        inside = x.data[..., max(0, start) : max(0, stop)]
        if start >= 0 and stop <= x.shape[-1]:
            return x.like(inside)
        data = np.zeros((*x.data.shape[:-1], stop - start), dtype=np.uint64)
        data[..., max(0, -start) :][..., : inside.shape[-1]] = inside
        return x.like(data)

    def _together(self, node: Node, protocol: Protocol, team: Team, x: Share) -> Op[Share]:
        rows = team.rows[0]
        spans = list(itertools.pairwise(team.bounds(rows)))
        return x.like((yield from together.place(protocol, team, x.data, *self.window(node, rows), spans)))


@kind("slice")
class Slice(Window):
    """Some rows, from one number to another."""

    along = Along.PART
    attributes = fields(start=int, stop=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        start, stop = int(attributes["start"]), int(attributes["stop"])
        require(x.form in (Form.RING, Form.WORDS), f"slice takes numbers or words, not {x}")
        require(0 <= start <= stop <= sizes.most(x.rows), f"rows {start} to {stop} of {x.rows}")
        return [attrs.evolve(x, shape=(*x.shape[:-1], stop - start))]

    def window(self, node: Node, rows: int) -> tuple[int, int]:
        return int(node.get("start")), int(node.get("stop"))


@kind("omit")
class Omit(Unary):
    """All rows but some, from one number to another."""

    along = Along.PART
    attributes = fields(start=int, stop=int)
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        start, stop = int(attributes["start"]), int(attributes["stop"])
        require(x.form in (Form.RING, Form.WORDS), f"omit takes numbers or words, not {x}")
        if not isinstance(x.rows, int) or not 0 <= start <= stop <= x.rows:
            raise PlanError(f"rows but {start} to {stop} of {x.rows}")
        return [attrs.evolve(x, shape=(*x.shape[:-1], x.rows - (stop - start)))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        start, stop = int(node.get("start")), int(node.get("stop"))
        if protocol.team is not None:
            return self._together(protocol, protocol.team, x, start, stop)
        return x.like(np.concatenate([x.data[..., :start], x.data[..., stop:]], axis=-1))

    def _together(self, protocol: Protocol, team: Team, x: Share, start: int, stop: int) -> Op[Share]:
        rows = team.rows[0]
        own, bounds = team.block(rows), team.bounds(rows)
        low = list(itertools.pairwise(min(bound, start) for bound in bounds))
        high = list(itertools.pairwise(max(bound, stop) for bound in bounds))
        gap = stop - start
        below, above = x.data[..., : max(0, start - own.start)], x.data[..., max(0, stop - own.start) :]
        data = yield from together.place(protocol, team, below, 0, rows - gap, low)
        data += yield from together.place(protocol, team, above, gap, rows, high)
        return x.like(data)


@kind("delay")
class Delay(Window):
    """Rows moved down: row i is what row `i - rows` was, and zero where there was none. Up if negative."""

    along = Along.NEAR
    attributes = fields(rows=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require(x.form in (Form.RING, Form.WORDS), f"delay takes numbers or words, not {x}")
        require(len(x.shape) > 0, "delay takes a value with rows")
        return [x]

    def window(self, node: Node, rows: int) -> tuple[int, int]:
        return -int(node.get("rows")), rows - int(node.get("rows"))


@kind("cumulate")
class Cumulate(Unary):
    """Running totals over rows, each with its own row."""

    along = Along.NEAR
    attributes = PROMISE
    optional = frozenset(PROMISE)
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "cumulate")
        limit = promised(args[0].limit * reach(sizes, args[0].rows), args[0].scale, attributes)
        return [attrs.evolve(args[0], limit=limit)]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        if protocol.team is not None:
            return together.cumulate(protocol, protocol.team, x)
        return protocol.cumulate(x)


@kind("pair_rows")
class PairRows(Unary):
    """Neighbours side by side, `(c, n) -> (2 c, n / 2)`: rows 0, 2, 4, ... above rows 1, 3, 5, ...

    Where the number of rows is odd, the last one is beside zeros.
    """

    along = Along.NEAR
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require_ring(x, "pair_rows")
        if len(x.shape) != 2 or not isinstance(x.rows, int) or not isinstance(x.shape[0], int):
            raise PlanError("pair_rows takes a value of two axes of known length")
        return [attrs.evolve(x, shape=(2 * x.shape[0], -(-x.rows // 2)))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        words, count, rows = x.data.shape
        pairs = np.zeros((words, 2 * count, -(-rows // 2)), dtype=np.uint64)
        pairs[:, :count] = x.data[..., ::2]
        pairs[:, count:, : rows // 2] = x.data[..., 1::2]
        if protocol.team is None:
            return x.like(pairs)
        halves = [-(-bound // 2) for bound in protocol.team.bounds(protocol.team.rows[0])]
        return _placed(protocol, protocol.team, x.like(pairs), halves)


@kind("interleave")
class Interleave(Unary):
    """The inverse of `pair_rows`: `(2 c, m) -> (c, rows)`, where `rows` is `2 m` or one less."""

    along = Along.NEAR
    attributes = fields(rows=int)
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,), rows = args, int(attributes["rows"])
        require_ring(x, "interleave")
        count = x.shape[0] if len(x.shape) == 2 else None
        if not isinstance(count, int) or count % 2 or not isinstance(x.rows, int):
            raise PlanError("interleave takes pairs: two axes of known length, the first one even")
        require(rows in (2 * x.rows, 2 * x.rows - 1), f"{x.rows} pairs cannot become {rows} rows")
        return [attrs.evolve(x, shape=(count // 2, rows))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        words, count, pairs = x.data.shape
        all_rows, start, rows = int(node.get("rows")), 0, int(node.get("rows"))
        if protocol.team is not None:
            start = 2 * protocol.team.block(protocol.team.rows[0]).start
            rows = max(0, min(start + 2 * pairs, all_rows) - start)
        woven = np.empty((words, count // 2, rows), dtype=np.uint64)
        woven[..., ::2] = x.data[:, : count // 2]
        woven[..., 1::2] = x.data[:, count // 2 :, : rows // 2]
        if protocol.team is None:
            return x.like(woven)
        ends = [min(2 * bound, all_rows) for bound in protocol.team.bounds(protocol.team.rows[0])]
        return _placed(protocol, protocol.team, x.like(woven), ends)


def _placed(protocol: Protocol, team: Team, x: Share, bounds: Sequence[int]) -> Op[Share]:
    """Rows that lie one after the other, member by member between these bounds, cut into their blocks."""
    spans = list(itertools.pairwise(bounds))
    return x.like((yield from together.place(protocol, team, x.data, 0, bounds[-1], spans)))


@kind("stack")
class Stack(Kind):
    """The rows of all arguments `(..., n)`, one after the other."""

    along = Along.STACK
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        first, rows = args[0] if args else None, 0
        for x in args:
            if first is None or x.form not in (Form.RING, Form.WORDS) or not isinstance(x.rows, int):
                raise PlanError(f"stack takes numbers or words, of known numbers of rows, not {x}")
            alike = (x.form, x.scale, x.shape[:-1]) == (first.form, first.scale, first.shape[:-1])
            require(alike and len(x.shape) > 0, f"rows of {x} do not go below rows of {first}")
            rows += x.rows
        if first is None:
            raise PlanError("a stack needs rows")
        limit = max(x.limit for x in args)
        return [attrs.evolve(first, shape=(*first.shape[:-1], rows), limit=limit)]

    def run(
        self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context
    ) -> Share | Op[Share]:
        shares = [x for x in args if isinstance(x, Share)]
        if protocol.team is not None:
            return self._together(protocol, protocol.team, shares)
        first = shares[0].data
        data = protocol.allocate((*first.shape[:-1], sum(x.data.shape[-1] for x in shares)))
        np.concatenate([x.data for x in shares], axis=-1, out=data)
        return shares[0].like(data)

    def _together(self, protocol: Protocol, team: Team, shares: Sequence[Share]) -> Op[Share]:
        rows, before, parts = sum(team.rows), 0, []
        for share, count in zip(shares, team.rows, strict=True):
            spans = list(itertools.pairwise(team.bounds(count)))
            window = -before, rows - before
            parts.append((yield from together.place(protocol, team, share.data, *window, spans)))
            before += count
        data, *others = parts  # of which each has zeros where the others have rows
        for part in others:
            data += part
        return shares[0].like(data)


# -- rows by public position ---------------------------------------------------------------------------------


@kind("deal")
class Deal(Kind):
    """Positions of rows `(1, n)`, dealt to hands of so many rows each, one hand after the other.

    The argument `(n,)` is a public permutation, in which row i has its place. Each hand gets places at even
    distances, so that it gets its share of any rows that are neighbours; within a hand, rows keep their
    order.
    """

    along = Along.POSITIONS
    attributes = fields(sizes=tuple)
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (places,), hands = args, tuple(attributes["sizes"])
        require(places.form is Form.PUBLIC and len(places.shape) == 1, f"places are public, not {places}")
        fits = all(type(size) is int and size >= 0 for size in hands) and sum(hands) == places.rows
        require(fits, f"hands of {hands} rows are not {places.rows} rows")
        return [Type(Form.PUBLIC, (1, places.rows))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        sizes = np.array(node.get("sizes"))
        hands = np.repeat(np.arange(len(sizes)), sizes)
        due = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
        dealt = hands[np.argsort(due, kind="stable")]
        order = np.argsort(dealt[as_public(args[0]).view(np.int64)], kind="stable")
        return order[None].view(np.uint64)


@kind("take")
class Take(Kind):
    """Rows by public positions; `table` picks a row of a `(tables, m)` match. Zeros where these are -1."""

    along = Along.TAKE
    attributes = fields(table=int)
    tiling = Tiling.WHOLE
    together = True
    takes_products = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        x, positions = args
        require(x.form in (Form.RING, Form.WORDS), f"take takes numbers or words, not {x}")
        require(positions.form is Form.PUBLIC and len(positions.shape) == 2, "positions are a public match")
        return [attrs.evolve(x, shape=(*x.shape[:-1], positions.rows))]

    def run(
        self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context
    ) -> Share | Op[Share]:
        x, positions = args
        if not isinstance(x, Share):
            raise PlanError("take from a public value")
        places = as_public(positions)[int(node.get("table"))].view(np.int64)
        team = protocol.team
        rows = x.shape[-1] if team is None else team.rows[0]
        absent = np.flatnonzero(places < 0)
        if not rows:
            if absent.size < places.size:
                raise PlanError("a row was asked for by number, of a table that has none")
            return x.like(np.zeros((*x.data.shape[:-1], places.size), dtype=np.uint64))
        there = np.maximum(places, 0) if absent.size else places
        if team is not None:
            return _taken_together(protocol, team, x, there, absent)
        return _without(protocol.take(x, there), absent)


def _taken_together(protocol: Protocol, team: Team, x: Share, places: Indices, absent: Indices) -> Op[Share]:
    taken = yield from together.take(protocol, team, x, places, team.rows[0])
    return _without(taken, absent)


def _without(taken: Share, absent: Indices) -> Share:
    """Rows that were taken, with zeros at some places."""
    if absent.size:
        taken.data[..., absent] = 0
    return taken


@kind("ones")
class Ones(Kind):
    """Positions of ones among public zeros and ones `(n,)`: `(1, m)`; m gets the name given in `rows`.

    That tells the nodes how many there are; `told` says what that is.
    """

    along = Along.POSITIONS
    local = False
    attributes = fields(rows=str, told=str)
    optional = frozenset({"told"})
    binds_symbol = True
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,), rows = args, str(attributes["rows"])
        require(x.form is Form.PUBLIC and len(x.shape) == 1, f"ones takes public flags, not {x}")
        require(rows not in sizes.maxima, f"two nodes would say how many rows {rows!r} are")
        sizes.maxima[rows] = sizes.most(x.rows)
        return [Type(Form.PUBLIC, (1, rows))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        positions = np.flatnonzero(as_public(args[0]))[None]
        context.symbols[str(node.get("rows"))] = positions.shape[1]
        return positions.view(np.uint64)

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        return Disclosure(dict(node.attributes).get("told", KEPT), NODES, "1")


KEPT = "the number of rows that a filter keeps"


@kind("distinct")
class Distinct(Kind):
    """Positions `(1, m)` at which words of a public list `(2, n)` occur first; m gets the name in `rows`."""

    along = Along.POSITIONS
    local = False
    keep = True
    weight = 16
    attributes = fields(rows=str)
    binds_symbol = True
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,), rows = args, str(attributes["rows"])
        require(x.form is Form.PUBLIC and x.shape[:-1] == (2,), f"distinct takes two public words, not {x}")
        require(rows not in sizes.maxima, f"two nodes would say how many rows {rows!r} are")
        sizes.maxima[rows] = sizes.most(x.rows)
        return [Type(Form.PUBLIC, (1, rows))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        positions = first_places(as_public(args[0]), protocol.allocate)
        context.symbols[str(node.get("rows"))] = positions.size
        return positions[None].view(np.uint64)

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        return Disclosure("the number of different keys", NODES, "1")
