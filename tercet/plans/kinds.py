"""What a kind of plan node is.

How it is typed, cut into tiles, run on a protocol, what it costs and what it discloses.

A kind is a stateless object in `KINDS`. To add an operation to plans, write a class in `local_kinds` or
`row_kinds` (no rounds), `interactive_kinds` or `key_kinds`; builder, checker, scheduler, cost estimate and
disclosure list all read it. Local kinds return their result, interactive kinds the protocol's generator.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as Interface

import attrs

from tercet.errors import PlanError
from tercet.plans.types import Dim, Dims, Disclosure, Form, Node, Type, bind_shape, dims_product
from tercet.protocols.base import Cost, Protocol, Share
from tercet.protocols.domains import Words
from tercet.protocols.fourier import Series
from tercet.protocols.together import Team

if TYPE_CHECKING:
    from collections.abc import Callable

Data = Share | Words
"""What a node computes on: one party's share, or public words."""


class Tiling(enum.Enum):
    """How a node's work is cut along the rows."""

    ROWS = "rows"
    """Tile t of the result needs only tile t of the row-wise arguments."""
    REDUCE = "reduce"
    """Each tile gives a summand; the result is their sum."""
    WHOLE = "whole"
    """One operation on all rows."""


class Along(enum.Enum):
    """What a kind does along the last axis, where rows of tables lie: what a review of plans goes by."""

    UNKNOWN = "unknown"
    """Not said: then rows can be told apart in the result."""
    APART = "apart"
    """Rows can be told apart in the result."""
    SOURCE = "source"
    """Reads a stored value."""
    NUMBERS = "numbers"
    """Public or random numbers of the plan's own."""
    COUNT = "count"
    """Public numbers that follow from the place alone."""
    EACH = "each"
    """Each place of the result is made of the same place of the arguments."""
    LAST = "last"
    """The same of the last argument; the others, which are by row of no table, go into every place."""
    SUM = "sum"
    """Adds up what is made of each place."""
    RESHAPE = "reshape"
    """Another shape, in which the last axis may be another one."""
    SHUFFLE = "shuffle"
    """An order that nobody knows, the same for all arguments."""
    SORT = "sort"
    """The order of the first argument."""
    NEAR = "near"
    """Each place is made of others, by their public distance or in running totals."""
    PART = "part"
    """Some places, by public numbers in the plan."""
    STACK = "stack"
    """The places of each argument, one after the other."""
    TAKE = "take"
    """Places of the first argument that the second names in public."""
    POSITIONS = "positions"
    """Public positions in what was opened."""
    END = "end"
    """Leaves the plan."""


class Sizes(Interface):
    """How large a plan that is being written can be."""

    tile_rows: int
    maxima: dict[str, int]
    """The most rows that each symbol can mean."""

    def most(self, dim: Dim) -> int:
        """The largest value that a dimension can have."""


@attrs.frozen(eq=False)
class Context:
    """What an instance knows besides its arguments.

    Bound symbols, where new ones are bound, and its number of rows.
    """

    symbols: dict[str, int]
    rows: int

    def shape(self, dims: Dims) -> tuple[int, ...]:
        """A shape with its symbols replaced."""
        return bind_shape(dims, self.symbols)


class Kind:
    """One kind of node. Subclasses override what differs from a local, row-wise, free operation."""

    tiling: ClassVar[Tiling] = Tiling.ROWS
    along: ClassVar[Along] = Along.UNKNOWN
    attributes: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """The attributes that a node of this kind has, with their types."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Those that it may lack."""
    takes_products: ClassVar[bool] = False
    """Whether arguments may be products that have not had their round."""
    exact_cost: ClassVar[bool] = True
    """Whether `cost` is exact, so that an operation that sends more is stopped."""
    local: ClassVar[bool] = True
    """Whether it needs no network and ends nothing, so that it can be computed where it is read."""
    cheap: ClassVar[bool] = False
    """Whether a local node is no more work than a copy, so that it may be computed anew for each reader."""
    weight: ClassVar[int] = 1
    """About how much work it is for each word that it reads, an addition being one."""
    adds_products: ClassVar[bool] = False
    """Whether each number of its result is a sum of products along the last axis of the first argument."""
    binds_symbol: ClassVar[bool] = False
    """Whether it names a number of rows that becomes known when it runs."""
    together: ClassVar[bool] = False
    """Whether workers of a party run it together, each on a block of rows: it then sees a `Team`."""
    keep: ClassVar[bool] = False
    """Whether the node stays in a plan though nothing reads it."""
    final: ClassVar[bool] = False
    """Whether no other node may read it, since what it gives is not for the plan."""

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        """Types of the results. Raises PlanError, without naming the node: the builder adds that."""
        raise NotImplementedError

    def check_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Raise PlanError for attributes that are missing, unknown or of another type."""
        if attributes.keys() != self.attributes.keys() and (
            odd := (attributes.keys() ^ self.attributes.keys()) - self.optional
        ):
            raise PlanError(f"attribute {min(odd)!r} is missing or unknown")
        for name, value in attributes.items():
            wanted = self.attributes[name]
            if type(value) is wanted:
                continue
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise PlanError(f"attribute {name!r} is {value!r:.80}, of type {type(value).__name__}")

    def needs_round(self, args: Sequence[Type], position: int) -> bool:
        """Whether an argument is a product that this node can only read after its round."""
        return args[position].product and not self.takes_products

    def rowwise(self, node: Node, args: Sequence[Type], position: int) -> bool:
        """Whether an argument is cut into the same tiles as the node's work."""
        return args[position].rows == node.types[0].rows

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Any:
        """The result (a list for several), or a generator of rounds that returns it."""
        raise NotImplementedError

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        """Declared cost for arguments of these shapes."""
        return protocol.free()

    def openings(self, node: Node, shapes: Sequence[tuple[int, ...]]) -> int:
        """Words that one instance on arguments of these word shapes may open."""
        return 0

    def openings_together(self, node: Node, team: Team) -> int:
        """Words that one member of a team may open."""
        return 0

    def in_blocks(self, protocol: type[Protocol]) -> bool:
        """Whether workers can run it together under a protocol."""
        _ = protocol
        return self.together

    def keeps(self, node: Node) -> bool:
        """Whether a node is what a plan is run for, though no other reads it."""
        _ = node
        return self.keep

    def discloses(self, node: Node, args: Sequence[Type]) -> Disclosure | None:
        """What anyone learns from it."""
        return None


KINDS: dict[str, Kind] = {}

NUMBER = (int, float)
MOST_SERIES, MOST_HARMONICS = 16, 1 << 8


def fields(**types: type | tuple[type, ...]) -> Mapping[str, type | tuple[type, ...]]:
    """The attributes of a kind, by name, with their types."""
    return types


PROMISE = fields(magnitude=NUMBER)


def kind(name: str) -> Callable[[type[Kind]], type[Kind]]:
    """Register a class under the name of a kind."""

    def register(cls: type[Kind]) -> type[Kind]:
        KINDS[name] = cls()
        return cls

    return register


def require(condition: bool, message: str) -> None:
    """Raise PlanError unless a condition holds."""
    if not condition:
        raise PlanError(message)


def broadcast(a: Dims, b: Dims) -> Dims:
    """The shape of an element-wise operation on two values, as numpy has it."""
    rank = max(len(a), len(b))
    left, right = ((1,) * (rank - len(dims)) + dims for dims in (a, b))
    shape: list[Dim] = []
    for x, y in zip(left, right, strict=True):
        require(
            x == y or 1 in (x, y), f"shapes ({dims_product(a)}) and ({dims_product(b)}) do not fit together"
        )
        shape.append(y if x == 1 else x)
    return tuple(shape)


def require_ring(kind: Type, what: str) -> None:
    """Raise PlanError unless a type is of secret numbers."""
    require(kind.form is Form.RING, f"{what} takes secret numbers, not {kind}")


def read_series(series: Sequence[Sequence[Any]]) -> list[Series]:
    """Series from the attribute of a node. Raises PlanError for more, or longer ones, than functions need.

    Each is worked out at thousands of points.
    """
    require(len(series) <= MOST_SERIES, f"{len(series)} series at once; take up to {MOST_SERIES}")
    most = max((len(terms) for fields in series for terms in fields[2:5]), default=0)
    require(most <= MOST_HARMONICS, f"a series of {most} harmonics; they have up to {MOST_HARMONICS}")
    return [Series(*fields) for fields in series]


def reach(sizes: Sizes, dim: Dim) -> int:
    """How many terms a sum over a dimension can have, at least one."""
    return max(1, sizes.most(dim))


def promised(limit: float, scale: int, attributes: Mapping[str, Any]) -> float:
    """The smaller of a product's derived limit and the magnitude that its maker promises.

    Only the result has to fit: sums on the way may wrap modulo 2^64, or grow where sharings are of integers.
    """
    magnitude = attributes.get("magnitude")
    return limit if magnitude is None else min(limit, math.ldexp(float(magnitude), scale))


def as_public(data: Data) -> Words:
    """What every node knows. Raises PlanError for a share."""
    if isinstance(data, Share):
        raise PlanError("a public value was expected")
    return data
