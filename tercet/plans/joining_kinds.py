"""Plan nodes of joins: rows that match, rows that match nothing, rows with equal keys side by side.

Two ways lead to a join. Where the count may be told, pseudonyms of shuffled keys are opened, and `match`
finds the pairs in the clear: positions, in which -1 stands for no row, so that `take` puts zeros there and
`absent` tells where. Where it may not, `sort_words` brings rows with equal pseudonyms together and
`zero_words` finds them as secret bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.plans.kinds import Along, Context, Data, Kind, Sizes, Tiling, as_public, fields, kind, require
from tercet.plans.local_kinds import Unary
from tercet.plans.matching import NOWHERE, Matches, Positions
from tercet.plans.row_kinds import Window
from tercet.plans.types import NODES, Disclosure, Form, Node, Type, dims_product
from tercet.protocols import ranking, word_order
from tercet.protocols.base import Cost, Op, Protocol, Share
from tercet.protocols.bitplanes import unpack_bits
from tercet.protocols.domains import Words
from tercet.protocols.together import Team

# -- matches in the clear ------------------------------------------------------------------------------------


def _left(found: Positions, rows: int) -> Positions:
    """Every row of the first list, with its partner if it has one."""
    _ = rows
    return np.stack([np.arange(found.size), found])


def _anti(found: Positions, rows: int) -> Positions:
    """The rows of the first list without a partner."""
    _ = rows
    alone = np.flatnonzero(found == NOWHERE)
    return np.stack([alone, np.full_like(alone, NOWHERE)])


def _outer(found: Positions, rows: int) -> Positions:
    """Every row of the first list, then those of the second without a partner, and these in a third row."""
    taken = np.zeros(rows, dtype=np.bool_)
    taken[found[found != NOWHERE]] = True
    alone = np.flatnonzero(~taken)
    nothing, none = np.full_like(alone, NOWHERE), np.full_like(found, NOWHERE)
    return np.stack(
        [
            np.concatenate([np.arange(found.size), nothing]),
            np.concatenate([found, alone]),
            np.concatenate([none, alone]),
        ]
    )


KINDS_OF_PAIRS: Mapping[str, Callable[[Positions, int], Positions]] = {
    "left": _left,
    "anti": _anti,
    "outer": _outer,
}
"""How rows of two lists are paired, where not only those that match are wanted."""


@kind("match")
class Match(Kind):
    """Positions of rows in several public lists of pseudonyms `(2, n)`, by those that are equal.

    The result is `(lists, m)`; m gets the name given in `rows`. By default, rows are those that occur in
    every list, in the order of the first. With `how`, of two lists: "left" has every row of the first,
    "anti" those that are not in the second, and "outer" all of both, those of the second that are not in the
    first at the end, and once more in a third row. Where there is no row, positions are -1. Nothing is
    matched where a pseudonym occurs twice in a list, since a row would count as many then: PlanError, with
    the name of that list in `lists`. What rows there are tells the nodes how many match.
    """

    along = Along.POSITIONS
    local = False
    weight = 16
    attributes = fields(rows=str, lists=tuple, how=str, told=str)
    optional = frozenset({"lists", "how", "told"})
    binds_symbol = True
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        for x in args:
            require(x.form is Form.PUBLIC and x.shape[:-1] == (2,), "pseudonyms are two public words each")
        require(len(args) > 0, "a match needs a list")
        rows, how = str(attributes["rows"]), attributes.get("how")
        require(rows not in sizes.maxima, f"two nodes would say how many rows {rows!r} are")
        most = [sizes.most(x.rows) for x in args]
        if how is None:
            sizes.maxima[rows] = min(most)
            return [Type(Form.PUBLIC, (len(args), rows))]
        require(how in KINDS_OF_PAIRS, f"there is no way {how!r:.80} to match")
        require(len(args) == 2, f"a {how} match takes two lists")
        sizes.maxima[rows] = sum(most) if how == "outer" else most[0]
        return [Type(Form.PUBLIC, (3 if how == "outer" else 2, rows))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        lists = [as_public(arg) for arg in args]
        matches = Matches.of(lists, protocol.allocate)
        for number, more in enumerate(matches.repeats):
            if more:
                raise PlanError(
                    f"{_list_name(node, number)} has keys that occur more than once, {more} rows too many, "
                    "so nothing is matched; its owner has to upload it with unique keys"
                )
        how = dict(node.attributes).get("how")
        if how is None:
            pairs = matches.everywhere(protocol.allocate)
        else:
            pairs = KINDS_OF_PAIRS[how](matches.found[0], lists[1].shape[1])
        context.symbols[str(node.get("rows"))] = pairs.shape[1]
        positions: Words = pairs.view(np.uint64)
        return positions

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        return Disclosure(dict(node.attributes).get("told", MATCHES), NODES, "1")


MATCHES = "the number of rows that match"


def _list_name(node: Node, number: int) -> str:
    names = dict(node.attributes).get("lists", ())
    return f"table {names[number]!r}" if number < len(names) else f"list {number}"


@kind("absent")
class Absent(Kind):
    """Public ones `(m,)` where positions `(lists, m)` have no row in `table`, else zeros."""

    along = Along.APART
    attributes = fields(table=int)
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (positions,) = args
        require(positions.form is Form.PUBLIC and len(positions.shape) == 2, "positions are a public match")
        return [Type(Form.PUBLIC, (positions.rows,), 0, 1.0)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        places = as_public(args[0])[int(node.get("table"))].view(np.int64)
        flags: Words = (places < 0).astype(np.uint64)
        return flags


@kind("in_order")
class InOrder(Kind):
    """Positions `(1, m)` of the rows with numbers from `start` to `stop`, in the order of these.

    The argument `(n,)` has the public number of each row; they are 0 to n - 1 in some order.
    """

    along = Along.APART
    attributes = fields(start=int, stop=int)
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (numbers,), start, stop = args, int(attributes["start"]), int(attributes["stop"])
        require(numbers.form is Form.PUBLIC and len(numbers.shape) == 1, f"numbers are public, not {numbers}")
        require(0 <= start <= stop <= sizes.most(numbers.rows), f"rows {start} to {stop} of {numbers.rows}")
        return [Type(Form.PUBLIC, (1, stop - start))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        order = np.argsort(as_public(args[0]).view(np.int64), kind="stable")
        return np.ascontiguousarray(order[None, node.get("start") : node.get("stop")]).view(np.uint64)


# -- rows of secret words ------------------------------------------------------------------------------------


@kind("pad")
class Pad(Window):
    """So many rows of zeros before and after those of a value: what stacks tables of different rows."""

    along = Along.APART
    attributes = fields(before=int, after=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,), before, after = args, int(attributes["before"]), int(attributes["after"])
        require(x.form in (Form.RING, Form.WORDS), f"pad takes numbers or words, not {x}")
        if not isinstance(x.rows, int) or not x.shape or before < 0 or after < 0:
            raise PlanError(f"{before} rows before and {after} after {x}, whose rows have to be known")
        return [attrs.evolve(x, shape=(*x.shape[:-1], before + x.rows + after))]

    def window(self, node: Node, rows: int) -> tuple[int, int]:
        return -int(node.get("before")), rows + int(node.get("after"))


@kind("marks")
class Marks(Kind):
    """Secret ones `(rows,)` from row `start` to `stop`, which everyone knows, else zeros."""

    along = Along.APART
    attributes = fields(rows=int, start=int, stop=int)
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        rows, start, stop = (int(attributes[name]) for name in ("rows", "start", "stop"))
        require(0 <= start <= stop <= rows, f"rows {start} to {stop} of {rows}")
        return [Type(Form.RING, (rows,), 0, 1.0)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        rows = int(node.get("rows"))
        block = range(rows) if protocol.team is None else protocol.team.block(rows)
        numbers = np.arange(block.start, block.stop)
        inside = (numbers >= node.get("start")) & (numbers < node.get("stop"))
        return protocol.constant(inside.astype(np.uint64))


@kind("smear")
class Smear(Unary):
    """Words with all bits as the lowest one of each: of random words, masks of all ones or none."""

    along = Along.EACH

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(args[0].form is Form.WORDS, f"smear takes words, not {args[0]}")
        return list(args)

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return x.like(np.negative(x.data & np.uint64(1)))


@kind("masks")
class Masks(Kind):
    """A word `(1, n)` for each boolean `(n,)`: all ones where it holds, else none. Local."""

    along = Along.EACH

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require(x.form is Form.BITS and len(x.shape) == 1, f"masks takes booleans (n,), not {x}")
        return [Type(Form.WORDS, (1, *x.shape))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        (x,) = args
        if not isinstance(x, Share):
            raise PlanError("a secret value was expected")
        bits = np.stack([unpack_bits(one, context.rows) for one in x.data])
        return x.like(np.negative(bits.astype(np.uint64))[:, None])


NEAR = word_order.NEAR
"""How far two rows of one word are apart at most, where `sort_words` knows rows of two sides."""


@kind("zero_words")
class ZeroWords(Kind):
    """Secret booleans `(n,)`: where all words of `(w, n)` are zero."""

    along = Along.EACH
    local = False
    weight = 16

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require(x.form is Form.WORDS and len(x.shape) == 2, f"zero_words takes words (w, n), not {x}")
        require(isinstance(x.shape[0], int) and x.shape[0] > 0, f"no words at all in {x}")
        return [Type(Form.BITS, x.shape[1:])]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[Share]:
        (x,) = args
        if not isinstance(x, Share):
            raise PlanError("a secret value was expected")
        return word_order.zero_words(protocol, x)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return word_order.zero_words_cost(protocol, args[0])


@kind("sort_words")
class SortWords(Kind):
    """All arguments with their rows ordered by the first, words `(2, n)` that are random where they differ.

    Equal ones stay in their order. Row numbers make all distinct, and rows are shuffled first, so that the
    comparisons that it opens tell the nodes nothing but a uniformly random permutation (Hamada et al. 2012).

    With `first`, so many rows have distinct words, and the others too: less is compared, and two rows of one
    word are only near each other (`word_order.NEAR`). Whoever says so answers for it: rows of one side with
    equal words would show.
    """

    attributes = fields(first=int)
    optional = frozenset({"first"})
    along = Along.SORT
    local = False
    weight = 256
    exact_cost = False
    tiling = Tiling.WHOLE
    together = True

    def in_blocks(self, protocol: type[Protocol]) -> bool:
        return protocol.shuffles_together

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        first = args[0]
        require(
            first.form is Form.WORDS and first.shape[:-1] == (word_order.KEY_WORDS,),
            f"sort_words orders by two words each, not by {first}",
        )
        rows = attributes.get("first", 0)
        require(rows >= 0, f"sort_words takes a number of rows of the first side, not {rows}")
        for x in args:
            require(x.form in (Form.RING, Form.WORDS), f"sort_words takes numbers or words, not {x}")
            require(x.rows == first.rows, "columns of different length cannot be sorted alike")
        return list(args)

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[list[Share]]:
        shares = [arg for arg in args if isinstance(arg, Share)]
        return word_order.sort_by_words(protocol, shares, dict(node.attributes).get("first"))

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return word_order.sort_by_words_cost(protocol, args, dict(node.attributes).get("first"))

    def openings(self, node: Node, shapes: Sequence[tuple[int, ...]]) -> int:
        return ranking.openings(shapes[0][-1])

    def openings_together(self, node: Node, team: Team) -> int:
        return ranking.openings_together(team)

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        rows = dims_product(args[0].shape[-1:])
        return Disclosure("comparisons of shuffled rows, a random order", NODES, rows)
