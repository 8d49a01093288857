"""Plans: computations on secret tables as directed acyclic graphs of small frozen nodes.

Analysts write ordinary Python over lazy `Value`s; a `Builder` turns every operation into a hash-consed `Node`
with a type: what it is made of, its shape (a row count may be a symbol until a join reveals it), its
fixed-point scale, and a bound on its magnitude, so that a plan that could overflow is refused before it
exists. Nothing leaves a plan except through `reveal` and `open` nodes, so a plan can say all that it
discloses, to whom, before it runs. A plan is the unit of consent: it has a digest that the parties compare,
and a msgpack form that is checked as strictly as code that was written here.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
import msgpack
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.protocols.domains import BITS, Z64, Domain, Words

if TYPE_CHECKING:
    from tercet.actors.estimate import Explanation

Dim = int | str
Dims = tuple[Dim, ...]

TILE_ROWS = 1 << 16
"""Rows of a tile: a multiple of 64, so that packed bits split between words."""
MOST_TILES = 1 << 16
"""Tiles of one value, in a plan that others have sent."""

RING_LIMIT = 2.0**63
MOST_ELEMENTS = 1 << 40
WIDEST_SCALE = 1 << 10
DisclosureClass = Literal["check", "count", "figure", "model", "rows"]
"""What a disclosure tells, from the least to the most.

- `check`: bits that say whether the computation holds or what of it can be told, on which the next plan of
  the computation may depend;
- `count`: numbers of rows;
- `figure`: numbers that rest on as many rows as owners ask for;
- `model`: parameters of a model, and what follows from them, one for each coefficient;
- `rows`: a number for each row.

Who builds a plan says the class. So it is to be trusted in plans that a node builds itself, and only there.
"""
CLASSES: tuple[DisclosureClass, ...] = get_args(DisclosureClass)
"""All classes of disclosures, from the least to the most."""
NODES = "the nodes"
"""Who learns what a plan opens on its way."""
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)
FORMAT_VERSION = 1
RESERVED = "\0"
"""What handles begin with under which nodes keep things for themselves: nobody else can name these."""
LONGEST_HANDLE = 512
LONGEST_TEXT = 1 << 16
"""Characters of a name or label in a plan."""
MOST_PLAN_BYTES = 1 << 24
MOST_NODES = 1 << 18
MOST_ARGS = 1 << 12
MOST_ENDS = 1 << 14
"""Values that a plan reads, reveals, stores and keeps as checkpoints, together."""
MOST_AXES = 8
DEEPEST = 6
"""How deep attributes of nodes are nested: series of numbers in a list of series are."""
MOST_GROWTH = 1 << 10
ALWAYS_FIT = 1 << 27
"""Elements of one value: so many, or that many times those of the largest one that the plan reads."""


class Form(enum.Enum):
    """What a value is made of."""

    RING = "ring"
    """Secret integers modulo 2^64: fixed-point reals, counts, zeros and ones."""
    BITS = "bits"
    """Secret booleans, packed 64 to a word along the rows."""
    WORDS = "words"
    """Secret 64-bit words under XOR: keys and pseudonyms."""
    PUBLIC = "public"
    """Integers that every node knows: constants of the plan, and what it opens."""

    @property
    def domain(self) -> Domain:
        """The domain of a sharing of this form."""
        return Z64 if self is Form.RING else BITS


@attrs.frozen
class Type:
    """The type of a value: form, shape, fractional bits, a bound on its integers, whether it is a product.

    `limit` bounds the absolute value of the stored integer (ring only). A `product` has not had its round yet
    (see `protocols.base.Product`).
    """

    form: Form
    shape: Dims
    scale: int = 0
    limit: float = 0.0
    product: bool = False

    @property
    def rows(self) -> Dim:
        """The last axis, along which values are cut into tiles; 1 for a scalar."""
        return self.shape[-1] if self.shape else 1

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "scalar"
        return f"{self.form.value} {shape}" + (f" at scale {self.scale}" if self.scale else "")


Ref = tuple[int, int]
"""A result of a node: (node index, output number)."""


@attrs.frozen
class Node:
    """One operation: its kind, the results that it reads, plain attributes, and a label for people."""

    kind: str
    args: tuple[Ref, ...]
    attributes: tuple[tuple[str, Any], ...]
    types: tuple[Type, ...]
    label: str = attrs.field(default="", eq=False)

    def get(self, name: str) -> Any:
        """An attribute by name."""
        return dict(self.attributes)[name]

    def title(self, index: int) -> str:
        """How messages name the node."""
        return f"node {index} ({self.kind}{' in ' + self.label if self.label else ''})"


@attrs.frozen
class Disclosure:
    """Something that a plan lets someone learn: what, who, how many numbers, and of which class.

    The class `kind` is empty where the plan does not say it, and of what it opens to the nodes.
    """

    what: str
    to: str
    size: str
    kind: DisclosureClass | Literal[""] = ""

    def __str__(self) -> str:
        size = f"{self.size}, {self.kind}" if self.kind else self.size
        return f"{self.what} ({size}) to {self.to}"


@attrs.frozen(eq=False)
class Plan:
    """A finished plan: nodes, each after what it reads, and the most rows that each symbol can mean."""

    name: str
    nodes: tuple[Node, ...]
    maxima: Mapping[str, int] = attrs.field(factory=dict)
    tile_rows: int = TILE_ROWS
    packed: bytes | None = attrs.field(default=None, repr=False)
    """The msgpack form that the plan was read from, if it was."""

    def __repr__(self) -> str:
        told = "; ".join(map(str, self.disclosures())) or "nothing"
        return f"plan {self.name!r}: {len(self.nodes)} nodes, which disclose: {told}"

    def type_of(self, ref: Ref) -> Type:
        """The type of a result."""
        return self.nodes[ref[0]].types[ref[1]]

    def disclosures(self) -> list[Disclosure]:
        """All that anyone learns from a run of this plan, beyond the sizes of its inputs."""
        from tercet.actors.kinds import KINDS

        found = []
        for node in self.nodes:
            told = KINDS[node.kind].discloses(node, [self.type_of(ref) for ref in node.args])
            if told is not None:
                found.append(told)
        return found

    def to_bytes(self) -> bytes:
        """The msgpack form, from which `from_bytes` makes an equal plan."""
        if self.packed is not None:
            return self.packed
        nodes = [
            [node.kind, [list(ref) for ref in node.args], dict(node.attributes), node.label]
            for node in self.nodes
        ]
        body = [FORMAT_VERSION, self.name, nodes, self.tile_rows]
        packed: bytes = msgpack.packb(body, use_bin_type=True)
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> Plan:
        """Rebuild and check a plan, node by node.

        Raises PlanError for anything that a Builder would not make.
        """
        from tercet.actors.builder import Builder

        if len(packed) > MOST_PLAN_BYTES:
            raise PlanError(f"a plan of {len(packed)} bytes is too large; nodes read up to {MOST_PLAN_BYTES}")
        try:
            version, name, nodes, tile_rows = msgpack.unpackb(packed, raw=False, use_list=True)
            if version != FORMAT_VERSION:
                raise PlanError(
                    f"the plan has format {version}, this node reads {FORMAT_VERSION}; update the older side"
                )
            if not isinstance(tile_rows, int) or tile_rows <= 0 or tile_rows % 64:
                raise PlanError(f"a tile of {tile_rows} rows is not a positive multiple of 64")
            _check_sizes(name, nodes)
            builder = Builder(str(name), tile_rows=tile_rows)
            for kind, args, attributes, label in nodes:
                builder.label = str(label)
                builder.append(str(kind), [(int(a), int(b)) for a, b in args], freeze(attributes))
        except PlanError:
            raise
        except (*_MALFORMED, msgpack.UnpackException) as error:
            raise PlanError(
                f"the plan is malformed ({type(error).__name__}: {error}); it was not made by Tercet"
            ) from error
        plan = attrs.evolve(builder.plan(), packed=bytes(packed))
        _check_tiles(plan)
        _check_ends(plan)
        _check_growth(plan)
        return plan

    def digest(self) -> bytes:
        """32 bytes that stand for the plan: what parties compare before they start."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).digest()

    def explain(
        self, protocol: str = "replicated", parties: int | None = None, **options: Any
    ) -> Explanation:
        """What a run will cost, and what it discloses; options as for `tercet.actors.estimate.explain`."""
        from tercet.actors.estimate import explain

        return explain(self, protocol, parties, **options)

    def mermaid(self) -> str:
        """The plan as a Mermaid flowchart."""
        from tercet.actors.draw import to_mermaid

        return to_mermaid(self)

    def svg(self) -> str:
        """The plan as an SVG drawing; what discloses something is marked."""
        from tercet.actors.draw import to_svg

        return to_svg(self)

    def _repr_svg_(self) -> str:
        return self.svg()


def check_handle(handle: str) -> None:
    """Raise PlanError for a handle that no member may give a value, or read one by."""
    if not 0 < len(handle) <= LONGEST_HANDLE or not handle.isprintable():
        raise PlanError(
            f"{handle!r:.80} is no handle: they have 1 to {LONGEST_HANDLE} characters, all of them printable"
        )


def _check_sizes(name: Any, nodes: Sequence[Any]) -> None:
    """Raise PlanError for a plan that is larger than any that somebody needs, before it is looked at."""
    if len(nodes) > MOST_NODES:
        raise PlanError(f"a plan of {len(nodes)} nodes is too large; make several of up to {MOST_NODES}")
    for index, (kind, args, attributes, label) in enumerate(nodes):
        long = max(map(len, filter(_is_text, (name, kind, label, *attributes, *attributes.values()))))
        if len(args) > MOST_ARGS or long > LONGEST_TEXT:
            raise PlanError(
                f"node {index} has {len(args)} arguments and a name of {long} characters; nodes read up to "
                f"{MOST_ARGS} and {LONGEST_TEXT}"
            )
        if any(isinstance(one, dict) or _depth(one) > DEEPEST for one in attributes.values()):
            raise PlanError(f"node {index} has an attribute that is nested deeper than any is")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _depth(value: Any) -> int:
    """How deep lists are nested, counted layer by layer up to what is too deep."""
    layer, depth = [value], 0
    while layer and depth <= DEEPEST:
        layer = [item for one in layer if isinstance(one, list) for item in one]
        depth += 1
    return depth


def _check_ends(plan: Plan) -> None:
    """Raise PlanError for handles that are none, and for more values that come and go than anybody needs."""
    ends = [
        (index, node)
        for index, node in enumerate(plan.nodes)
        if node.kind in ("input", "reveal", "store", "checkpoint")
    ]
    if len(ends) > MOST_ENDS:
        raise PlanError(f"a plan that reads and gives {len(ends)} values is too large; make several")
    for index, node in ends:
        name = node.get("handle" if node.kind in ("input", "store") else "name")
        try:
            check_handle(name) if node.kind != "reveal" else None
        except PlanError as error:
            raise PlanError(f"{node.title(index)}: {error}") from error


def _check_growth(plan: Plan) -> None:
    """Raise PlanError for a value that is out of proportion to all that the plan reads."""

    def elements(kind: Type) -> int:
        return math.prod(plan.maxima[dim] if isinstance(dim, str) else dim for dim in kind.shape)

    read = max((elements(node.types[0]) for node in plan.nodes if node.kind == "input"), default=0)
    most = max(ALWAYS_FIT, MOST_GROWTH * read)
    for index, node in enumerate(plan.nodes):
        for kind in node.types:
            if len(kind.shape) > MOST_AXES or elements(kind) > most:
                raise PlanError(f"{node.title(index)}: {kind} is too large for what the plan reads")


def _check_tiles(plan: Plan) -> None:
    """Raise PlanError if a value has more tiles than anybody should have to count."""
    for index, node in enumerate(plan.nodes):
        for kind in node.types:
            rows = plan.maxima[kind.rows] if isinstance(kind.rows, str) else kind.rows
            if rows > MOST_TILES * plan.tile_rows:
                raise PlanError(
                    f"{node.title(index)} has up to {rows} rows, more than {MOST_TILES} tiles of "
                    f"{plan.tile_rows}; use larger tiles, or fewer rows"
                )


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value


def freeze(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with lists as tuples, so that they can be hashed."""
    return {str(name): _freeze(value) for name, value in attributes.items()}


def dims_product(shape: Sequence[Dim]) -> str:
    """A shape in words: `12 x join.rows`."""
    return " x ".join(map(str, shape)) if shape else "1"


def bind_shape(shape: Dims, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with its symbols replaced; KeyError for a symbol that is not known yet."""
    return tuple(dim if isinstance(dim, int) else symbols[dim] for dim in shape)


def word_shape(kind: Type, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the words behind a value: packed bits take one word for 64 rows."""
    shape = bind_shape(kind.shape, symbols)
    return (*shape[:-1], -(-shape[-1] // 64)) if kind.form is Form.BITS else shape


def as_integers(words: Words) -> npt.NDArray[np.int64]:
    """Words as signed integers."""
    return words.view(np.int64)
