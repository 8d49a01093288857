"""Nodes side by side: how a kind runs on the values of many nodes at once, in lanes.

Folds of a cross-validation and points of a grid do the same operations on values of their own. Their values
are stacked, `(lanes, *shape)`, and one call serves all of them. Local kinds are told below; each does with
operations of `Protocol` that broadcast, or for one lane after the other where there is none with an axis in
front. Kinds that talk treat every number by itself, so that theirs are laid out flat, whatever their shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.plans.kinds import KINDS, Context, Data
from tercet.plans.types import Node
from tercet.protocols import ranking
from tercet.protocols.base import Cost, Op, Product, Protocol, Share
from tercet.protocols.domains import BITS, packed_words


@attrs.frozen(eq=False)
class Argument:
    """An argument of nodes in lanes: stacked values, or one for all; of what rank each is."""

    data: Data
    stacked: bool
    order: Sequence[int] | None = None
    """Which of the stacked values are meant, if not all in order."""

    @property
    def rank(self) -> int:
        """Axes of each value."""
        return len(self.data.shape) - self.stacked

    def lifted(self, rank: int) -> Data:
        """With axes after the lanes such that values broadcast against others of a rank."""
        more = rank - self.rank
        if not self.stacked or more <= 0:
            return self.data
        lanes, *shape = self.data.shape
        return _reshaped(self.data, (lanes, *(1,) * more, *shape))

    def lanes(self, count: int) -> list[Data]:
        """Each value by itself."""
        data = self.data
        if not self.stacked:
            return [data] * count
        order = range(count) if self.order is None else self.order
        if isinstance(data, Share):
            return [data.like(data.data[:, lane]) for lane in order]
        return [data[lane] for lane in order]


Run = Callable[[Node, Protocol, Sequence[Argument], int], Data]
"""How a local kind runs in lanes: on a node that stands for all, arguments and the number of lanes."""


def _aligned(node: Node, protocol: Protocol, args: Sequence[Argument], _: int) -> Data:
    """A kind whose operations broadcast, and go by the last axis at most."""
    rank = max(arg.rank for arg in args)
    return _run(node, protocol, [arg.lifted(rank) for arg in args])


def _folded(node: Node, protocol: Protocol, args: Sequence[Argument], lanes: int) -> Data:
    """A kind that moves the words of every component alike: lanes are as further components."""
    folded = []
    for arg in args:
        x = _share(arg.data)
        data = x.data if arg.stacked else np.repeat(x.data[:, None], lanes, axis=1)
        folded.append(x.like(data.reshape(len(data) * lanes, *data.shape[2:])))
    made = _share(_run(node, protocol, folded))
    return made.like(made.data.reshape(len(made.data) // lanes, lanes, *made.data.shape[1:]))


def _one_by_one(node: Node, protocol: Protocol, args: Sequence[Argument], lanes: int) -> Data:
    """A kind without operations for an axis in front."""
    each = zip(*(arg.lanes(lanes) for arg in args), strict=True)
    made = [_share(_run(node, protocol, values)) for values in each]
    return made[0].like(np.stack([one.data for one in made], axis=1))


def _sum_columns(_: Node, protocol: Protocol, args: Sequence[Argument], __: int) -> Data:
    return protocol.sum(_share(args[0].data), axis=1)


def _reshape(node: Node, _: Protocol, args: Sequence[Argument], lanes: int) -> Data:
    shape: tuple[Any, ...] = node.types[0].shape
    return _reshaped(args[0].data, (lanes, *shape))


def _append_row(node: Node, protocol: Protocol, args: Sequence[Argument], lanes: int) -> Data:
    x = _share(args[0].data)
    row = np.full((lanes, 1, *x.shape[2:]), int(node.get("units")), dtype=np.int64).view(np.uint64)
    last = protocol.constant(row, domain=x.domain, scale=x.scale, product=isinstance(x, Product))
    return x.like(np.concatenate([x.data, last.data], axis=2))


LOCAL: dict[str, Run] = {
    **dict.fromkeys(("add", "sub", "mul", "not", "shift_up", "move_point", "sum"), _aligned),
    **dict.fromkeys(("slice", "omit", "delay", "cumulate"), _aligned),
    **dict.fromkeys(("transpose", "select", "concatenate", "pair_rows", "interleave"), _folded),
    **dict.fromkeys(("matmul", "dot"), _one_by_one),
    "sum_columns": _sum_columns,
    "reshape": _reshape,
    "append_row": _append_row,
}
"""Local kinds that run in lanes; those that are not here run node by node."""
SOURCES = frozenset({"input", "constant"})
"""Kinds that read nothing; what they bring may lie in lanes."""
SEPARATE = frozenset({"matmul", "dot"})
"""Those that run lane by lane, so that their arguments need not lie side by side."""
FLAT = frozenset({"reduce", "truncate", "nearest", "fourier"})
"""Kinds that talk, on one argument, of each number by itself."""
COMPARISONS = frozenset({"is_negative", "is_zero"})
"""Kinds that give packed booleans: flat together with the `to_ring` that reads them, since lanes of another
length than a multiple of 64 cannot be told apart in words."""
TABLES = frozenset({"sort"})
"""Kinds that talk, on tables each of which stays by itself."""
OF_EACH = frozenset({"mul", "matmul", "dot", "sum", "cumulate", "input", "constant"})
"""Kinds whose attributes may differ from lane to lane: they tell of the type, or are a lane's value."""


def run(node: Node, protocol: Protocol, args: Sequence[Argument], lanes: int) -> Data:
    """The stacked results of local nodes that are alike, of which `node` is one."""
    return LOCAL[node.kind](node, protocol, args, lanes)


def compare(node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Share]:
    """A comparison, and its bits as zeros and ones in the ring."""
    bits = yield from KINDS[node.kind].run(node, protocol, [x], context)
    return (yield from protocol.bits_to_ring(bits, x.size))


def compare_cost(node: Node, protocol: Protocol, x: Share) -> Cost:
    """What `compare` costs."""
    packed = protocol.spec((packed_words(x.size),), domain=BITS)
    return KINDS[node.kind].cost(node, protocol, [x], x.size) + protocol.cost("bits_to_ring", packed, x.size)


def sort(node: Node, protocol: Protocol, tables: Sequence[Sequence[Share]]) -> Op[list[list[Share]]]:
    """Several tables, each in its order."""
    return ranking.sort_tables(protocol, tables, int(node.get("bits")))


def _run(node: Node, protocol: Protocol, args: Sequence[Data]) -> Data:
    made: Data = KINDS[node.kind].run(node, protocol, args, Context({}, 0))
    return made


def _share(data: Data) -> Share:
    if not isinstance(data, Share):
        raise PlanError("a secret value was expected")
    return data


def _reshaped(data: Data, shape: tuple[int, ...]) -> Data:
    if isinstance(data, Share):
        return data.like(data.data.reshape(data.data.shape[0], *shape))
    return data.reshape(shape)
