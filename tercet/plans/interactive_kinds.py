"""Plan nodes that talk: rounds of products, masked openings, comparisons, shuffles, disclosures."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError, ProtocolError
from tercet.plans.kinds import (
    Along,
    Context,
    Data,
    Kind,
    Sizes,
    Tiling,
    fields,
    kind,
    read_series,
    require,
    require_ring,
)
from tercet.plans.types import CLASSES, NODES, Disclosure, Form, Node, Type, dims_product
from tercet.protocols import ranking
from tercet.protocols.base import Cost, Op, Product, Protocol, Share
from tercet.protocols.fourier import Series
from tercet.protocols.together import Team

TRUNCATION_LIMIT = 2.0**62
NEAREST_LIMIT = 2.0**61
TRUNCATION_ERROR = 3
"""Units by which a truncated value may exceed the exact one, whatever the protocol."""

# -- interactive ---------------------------------------------------------------------------------------------


class _Interactive(Kind):
    """One protocol operation on one argument."""

    local = False
    takes_products = True

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[Any]:
        (x,) = args
        if not isinstance(x, Share):
            raise PlanError("a secret value was expected")
        return self.start(node, protocol, x, context)

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        """The operation."""
        raise NotImplementedError


@kind("reduce")
class Reduce(_Interactive):
    """The round that makes a product a full sharing."""

    along = Along.EACH

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(args[0].product, "only products need a round")
        return [attrs.evolve(args[0], product=False)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.reduce(x)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("reduce", args[0])


@kind("truncate")
class Truncate(_Interactive):
    """Cut fractional bits."""

    along = Along.EACH
    weight = 4
    attributes = fields(bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        bits = int(attributes["bits"])
        require_ring(x, "truncate")
        require(0 < bits < 62, f"truncation by {bits} bits")
        require(
            x.limit < TRUNCATION_LIMIT,
            f"values up to 2^{math.log2(max(x.limit, 1)):.1f} ring units cannot be truncated safely "
            "(limit 2^62); rescale an operand first",
        )
        return [
            attrs.evolve(
                x, scale=x.scale - bits, limit=math.ldexp(x.limit, -bits) + TRUNCATION_ERROR, product=False
            )
        ]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.truncate(x, int(node.get("bits")))

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("truncate", args[0], int(node.get("bits")))


@kind("nearest")
class Nearest(_Interactive):
    """Cut fractional bits such that equal values stay equal."""

    along = Along.EACH
    weight = 24
    attributes = fields(bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        bits = int(attributes["bits"])
        require_ring(x, "nearest")
        require(0 < bits < 61, f"rounding by {bits} bits")
        require(
            x.limit < NEAREST_LIMIT,
            f"values up to 2^{math.log2(max(x.limit, 1)):.1f} ring units cannot be rounded safely "
            "(limit 2^61); rescale an operand first",
        )
        limit = math.floor(math.ldexp(x.limit, -bits) + 0.5)
        return [attrs.evolve(x, scale=x.scale - bits, limit=float(limit), product=False)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.nearest(x, int(node.get("bits")))

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("nearest", args[0], int(node.get("bits")))


@functools.lru_cache(maxsize=1 << 10)
def _peak(series: Series) -> float:
    """A bound on the size of a series over its whole period, with room for rounding."""
    grid = np.linspace(0, 2.0**series.period_log2, 4096)
    return float(np.abs(series(grid)).max()) * 1.02 + 2.0**-8


@kind("fourier")
class FourierSeries(_Interactive):
    """Public functions given as Fourier series of one period."""

    along = Along.EACH
    weight = 32
    attributes = fields(series=tuple, dealt_bits=int, coefficient_bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require_ring(x, "fourier")
        scale = int(attributes["dealt_bits"]) + int(attributes["coefficient_bits"])
        types = []
        for one in read_series(attributes["series"]):
            require(
                0 < x.scale + one.period_log2 < 64, f"the period of {one.name} does not fit scale {x.scale}"
            )
            types.append(Type(Form.RING, x.shape, scale, math.ldexp(_peak(one), scale)))
        return types

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        bits = dict(node.attributes)
        return protocol.fourier(
            x,
            read_series(bits["series"]),
            dealt_bits=int(bits["dealt_bits"]),
            coefficient_bits=int(bits["coefficient_bits"]),
        )

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        bits = dict(node.attributes)
        return protocol.cost(
            "fourier",
            args[0],
            read_series(bits["series"]),
            dealt_bits=int(bits["dealt_bits"]),
            coefficient_bits=int(bits["coefficient_bits"]),
        )


@kind("is_negative")
class IsNegative(_Interactive):
    """Comparison with zero."""

    along = Along.EACH
    weight = 16
    attributes = fields(bits=int)
    takes_products = False

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        bits = int(attributes["bits"])
        require_ring(x, "is_negative")
        require(len(x.shape) == 1, "comparisons take values of one axis")
        require(
            2 <= bits <= 64 and x.limit < 2.0 ** (bits - 1), f"a comparison on {bits} bits cannot hold {x}"
        )
        return [Type(Form.BITS, x.shape)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.is_negative(x, int(node.get("bits")))

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("is_negative", args[0], int(node.get("bits")))


@kind("is_zero")
class IsZero(_Interactive):
    """Equality with zero."""

    along = Along.EACH
    weight = 16
    takes_products = False

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "is_zero")
        require(len(args[0].shape) == 1, "comparisons take values of one axis")
        return [Type(Form.BITS, args[0].shape)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.is_zero(x)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("is_zero", args[0])


@kind("to_ring")
class ToRing(_Interactive):
    """Booleans as zeros and ones."""

    along = Along.EACH
    weight = 4
    takes_products = False

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(args[0].form is Form.BITS, f"to_ring takes booleans, not {args[0]}")
        return [Type(Form.RING, args[0].shape, 0, 1.0)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        return protocol.bits_to_ring(x, context.rows)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("bits_to_ring", args[0], rows)


@kind("shuffle")
class Shuffle(Kind):
    """Permute the rows of all arguments alike, by a permutation that nobody knows."""

    along = Along.SHUFFLE
    local = False
    weight = 8
    tiling = Tiling.WHOLE
    together = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        for x in args:
            require(x.form in (Form.RING, Form.WORDS), f"shuffle takes numbers or words, not {x}")
            require(x.rows == args[0].rows, "columns of different length cannot be shuffled alike")
        return list(args)

    def in_blocks(self, protocol: type[Protocol]) -> bool:
        return protocol.shuffles_together

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[list[Share]]:
        return protocol.shuffle([arg for arg in args if isinstance(arg, Share)])

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("shuffle", args)


@kind("sort")
class Sort(Kind):
    """All arguments with their rows in the ascending order of the first, |key| < 2^(bits-1) in ring units.

    Makes keys distinct and shuffles first, so that the comparisons that it opens tell the nodes nothing but a
    uniformly random permutation (Hamada et al. 2012). Equal keys stay in their order.
    """

    along = Along.SORT
    local = False
    weight = 256
    attributes = fields(bits=int)
    exact_cost = False
    tiling = Tiling.WHOLE
    together = True

    def in_blocks(self, protocol: type[Protocol]) -> bool:
        return protocol.shuffles_together

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "sort")
        require(len(args[0].shape) == 1, "the sort key has one axis")
        bits = int(attributes["bits"])
        require(args[0].limit < 2.0 ** (bits - 1), f"keys of {args[0]} need more than {bits} bits")
        positions = max(sizes.most(args[0].rows) - 1, 0).bit_length()
        require(
            bits + positions <= 63,
            f"keys of {bits} bits and the numbers of {args[0].rows} rows do not fit 63 bits together",
        )
        return Shuffle().infer(args, attributes, sizes)

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[list[Share]]:
        return ranking.sort_rows(
            protocol, [arg for arg in args if isinstance(arg, Share)], int(node.get("bits"))
        )

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return ranking.sort_rows_cost(protocol, args, int(node.get("bits")))

    def openings(self, node: Node, shapes: Sequence[tuple[int, ...]]) -> int:
        return ranking.openings(shapes[0][-1])

    def openings_together(self, node: Node, team: Team) -> int:
        return ranking.openings_together(team)

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        return Disclosure("comparisons of shuffled rows, a random order", NODES, dims_product(args[0].shape))


# -- disclosing ----------------------------------------------------------------------------------------------


@kind("open")
class Open(_Interactive):
    """A value to all nodes; of the class `check`, bits that they go by when the run is over."""

    along = Along.EACH
    attributes = fields(why=str, kind=str)
    optional = frozenset({"kind"})
    takes_products = False

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require(x.form in (Form.RING, Form.WORDS), f"open takes numbers or words, not {x}")
        require(bool(attributes["why"]), "an opening has to say what it discloses")
        require(attributes.get("kind", "check") == "check", "nodes are told of no class but check bits")
        return [Type(Form.PUBLIC, x.shape, x.scale, x.limit)]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        if isinstance(x, Product):
            raise ProtocolError("a product is opened only after its round")
        return protocol.open(x)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("opening", args[0])

    def openings(self, node: Node, shapes: Sequence[tuple[int, ...]]) -> int:
        return math.prod(shapes[0])

    def keeps(self, node: Node) -> bool:
        return "kind" in dict(node.attributes)

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        given = dict(node.attributes).get("kind", "")
        return Disclosure(str(node.get("why")), NODES, dims_product(args[0].shape), given)


@kind("reveal")
class Reveal(_Interactive):
    """A value to a receiver outside; `kind` is its class, and lacks where its maker does not say it.

    Its rounds are the protocol's checks of what is to leave; what they end with, the scheduler keeps until
    the run has ended.
    """

    along = Along.END
    takes_products = False
    keep = True
    final = True
    tiling = Tiling.WHOLE
    attributes = fields(name=str, to=str, kind=str)
    optional = frozenset({"kind"})

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(
            args[0].form in (Form.RING, Form.WORDS),
            f"only numbers and words leave a plan, not {args[0]}; use to_ring",
        )
        given = attributes.get("kind", CLASSES[0])
        require(
            given in CLASSES,
            f"there is no class of disclosures {given!r:.80}; say one of {', '.join(CLASSES)}",
        )
        return [args[0]]

    def start(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Op[Any]:
        if isinstance(x, Product):
            raise ProtocolError("a product leaves a plan only after its round")
        return protocol.reveal(x)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("reveal", args[0])

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        attributes = dict(node.attributes)
        return Disclosure(
            str(attributes["name"]),
            str(attributes["to"]),
            dims_product(args[0].shape),
            attributes.get("kind", ""),
        )


@kind("store")
class Store(Kind):
    """A value kept at the nodes, secret. Stays in tiles, so this is row-wise; the scheduler takes them."""

    along = Along.END
    local = False
    keep = True
    attributes = fields(handle=str)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(args[0].form is not Form.PUBLIC, f"only secret values are stored, not {args[0]}")
        return [args[0]]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Data:
        return args[0]


@kind("checkpoint")
class Checkpoint(Store):
    """A value that nodes which last keep until the run has ended, to go on from after an interruption.

    Values of one `point` are kept together; names are unique in a plan.
    """

    attributes = fields(point=int, name=str)
