"""Reading plans that others have sent, as strictly as a builder checks code that was written here."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgpack

from tercet.errors import PlanError
from tercet.plans.builder import Builder
from tercet.plans.plan import FORMAT_VERSION, HANDLED, MOST_NODES, Plan, pack_plan
from tercet.plans.types import Node, Type, freeze


def read_plan(packed: bytes) -> Plan:
    """Rebuild and check a plan, node by node; of one that differs from a known one in handles, only these.

    Raises PlanError for anything that a Builder would not make.
    """
    if len(packed) > MOST_PLAN_BYTES:
        raise PlanError(f"a plan of {len(packed)} bytes is too large; nodes read up to {MOST_PLAN_BYTES}")
    try:
        body, handles = _open(packed)
        shape = _shapes.get(body) or _shapes.keep(body, _read_body(body))
        return _with_handles(shape, handles, bytes(packed))
    except PlanError:
        raise
    except (*_MALFORMED, msgpack.UnpackException) as error:
        raise PlanError(
            f"the plan is malformed ({type(error).__name__}: {error}); it was not made by Tercet"
        ) from error


def with_shape(plan: Plan) -> Plan:
    """A plan that was built here, with its msgpack form and the shape that it has in common with others."""
    body, handles = plan.to_body()
    shape = _shapes.get(body) or _shapes.keep(body, plan)
    return attrs.evolve(plan, packed=pack_plan(body, handles), shape=shape)


class _Shapes:
    """The latest plans but for their handles, by the bytes of their bodies.

    In any thread: each operation on the dictionary is one by itself, and what another thread has done
    meanwhile is as good.
    """

    def __init__(self) -> None:
        self.known: OrderedDict[bytes, Plan] = OrderedDict()

    def get(self, body: bytes) -> Plan | None:
        """The shape of a body that was read before."""
        found = self.known.get(body)
        if found is not None:
            with contextlib.suppress(KeyError):
                self.known.move_to_end(body)
        return found

    def keep(self, body: bytes, shape: Plan) -> Plan:
        """Keep a shape that leaves room for others; the one that others have by now."""
        if len(body) > MOST_REMEMBERED // 2:
            return shape
        found = self.known.setdefault(body, shape)
        while len(self.known) > MOST_SHAPES or sum(map(len, list(self.known))) > MOST_REMEMBERED:
            with contextlib.suppress(KeyError):
                self.known.popitem(last=False)
        return found


_shapes = _Shapes()


def _open(packed: bytes) -> tuple[bytes, list[str]]:
    """The body and handles of a packed plan, of which nothing else is unpacked."""
    outline = msgpack.Unpacker(raw=False, max_buffer_size=MOST_PLAN_BYTES)
    outline.feed(packed)

    def next_one(kinds: frozenset[int], what: str) -> Any:
        """The next value, if its first byte is of some kinds: what may be nested is not read."""
        if packed[outline.tell()] not in kinds:
            raise PlanError(f"the plan is malformed: {what}; it was not made by Tercet")
        return outline.unpack()

    parts = outline.read_array_header()
    version = next_one(_NUMBER, "its format is no number")
    if version != FORMAT_VERSION:
        raise PlanError(
            f"the plan has format {version}, this node reads {FORMAT_VERSION}; update the older side"
        )
    body = next_one(_BINARY if parts == 3 else frozenset(), "it has no body")
    count = outline.read_array_header()
    if count > MOST_ENDS:
        raise PlanError(f"a plan that names {count} handles is too large; make several")
    handles = [next_one(_TEXT, "its handles are none") for _ in range(count)]
    if outline.tell() != len(packed):
        raise PlanError("the plan is malformed: something comes after its handles; it was not made by Tercet")
    if len(set(handles)) != len(handles):
        raise PlanError("the plan is malformed: it names a handle twice; it was not made by Tercet")
    return body, handles


def _read_body(body: bytes) -> Plan:
    """A plan with numbers for handles, checked."""
    _check_count(_count_nodes(body))
    name, nodes, tile_rows = msgpack.unpackb(body, raw=False, use_list=True)
    if not isinstance(tile_rows, int) or tile_rows <= 0 or tile_rows % 64:
        raise PlanError(f"a tile of {tile_rows} rows is not a positive multiple of 64")
    _check_sizes(name, nodes)
    builder = Builder(str(name), tile_rows=tile_rows)
    handles = 0
    for index, (kind, args, attributes, label) in enumerate(nodes):
        if kind in HANDLED:
            number = attributes.get("handle")
            if type(number) is not int or not 0 <= number <= handles:
                raise PlanError(f"node {index} ({kind}) has handle {number!r:.80}, which is not the next one")
            handles = max(handles, number + 1)
            attributes["handle"] = str(number)
        builder.label = str(label)
        builder.append(str(kind), [(int(a), int(b)) for a, b in args], freeze(attributes))
    plan = builder.plan()
    _check_tiles(plan)
    _check_ends(plan)
    _check_growth(plan)
    return plan


def _with_handles(shape: Plan, handles: Sequence[str], packed: bytes) -> Plan:
    """A plan of a shape with these handles. Raises PlanError for other handles than it names."""
    nodes = list(shape.nodes)
    numbers: dict[str, str] = {}
    for index, node in enumerate(shape.nodes):
        if node.kind in HANDLED:
            old = str(node.get("handle"))
            number = len(numbers)
            if old not in numbers:
                if number >= len(handles):
                    raise PlanError(f"{node.title(index)} has no handle; the plan was not made by Tercet")
                try:
                    check_handle(handles[number])
                except PlanError as error:
                    raise PlanError(f"{node.title(index)}: {error}") from error
                numbers[old] = handles[number]
            attributes = tuple(
                (name, numbers[old] if name == "handle" else value) for name, value in node.attributes
            )
            nodes[index] = Node(node.kind, node.args, attributes, node.types, node.label)
    if len(numbers) != len(handles):
        raise PlanError(f"the plan has {len(handles)} handles and names {len(numbers)} of them")
    return attrs.evolve(shape, nodes=tuple(nodes), packed=packed, shape=shape)


MOST_TILES = 1 << 16
"""Tiles of one value, in a plan that others have sent."""

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

LONGEST_HANDLE = 512

LONGEST_TEXT = 1 << 16
"""Characters of a name or label in a plan."""

MOST_PLAN_BYTES = 1 << 24

MOST_REMEMBERED = 1 << 22
"""Bytes of plans whose nodes, about fifteen times as much with what runs need, a process remembers."""
MOST_SHAPES = 256

_BINARY = frozenset({0xC4, 0xC5, 0xC6})
_TEXT = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB})
_NUMBER = frozenset({*range(0x80), *range(0xCC, 0xD4), *range(0xE0, 0x100)})
"""First bytes of byte strings, of text and of whole numbers in msgpack."""

MOST_ARGS = 1 << 12

MOST_ENDS = 1 << 14
"""Values that a plan reads, reveals, stores and keeps as checkpoints, together."""

MOST_AXES = 8

DEEPEST = 6
"""How deep attributes of nodes are nested: series of numbers in a list of series are."""

MOST_GROWTH = 1 << 10

ALWAYS_FIT = 1 << 27
"""Elements of one value: so many, or that many times those of the largest one that the plan reads."""


def check_handle(handle: str) -> None:
    """Raise PlanError for a handle that no member may give a value, or read one by."""
    if not 0 < len(handle) <= LONGEST_HANDLE or not handle.isprintable():
        raise PlanError(
            f"{handle!r:.80} is no handle: they have 1 to {LONGEST_HANDLE} characters, all of them printable"
        )


def _count_nodes(packed: bytes) -> int:
    """How many nodes a packed plan says that it has; none of them is unpacked."""
    outline = msgpack.Unpacker()
    outline.feed(packed)
    outline.read_array_header()
    outline.skip()  # the name
    count: int = outline.read_array_header()
    return count


def _check_count(nodes: int) -> None:
    """Raise PlanError for more nodes than any plan has."""
    if nodes > MOST_NODES:
        raise PlanError(f"a plan of {nodes} nodes is too large; make several of up to {MOST_NODES}")


def _check_sizes(name: Any, nodes: Sequence[Any]) -> None:
    """Raise PlanError for a plan that is larger than any that somebody needs, before it is looked at."""
    _check_texts("the plan", name)
    fine = set[Any]()  # most nodes are of a kind, and of a part of the plan, that others were of
    for index, (kind, args, attributes, label) in enumerate(nodes):
        if len(args) > MOST_ARGS:
            raise PlanError(f"node {index} has {len(args)} arguments; nodes read up to {MOST_ARGS} of one")
        if kind not in fine or label not in fine:
            _check_texts(index, kind, label)
            fine.update((kind, label))
        for name, value in attributes.items():
            if name not in fine:
                _check_texts(index, name)
                fine.add(name)
            if isinstance(value, str):
                _check_texts(index, value)
            elif isinstance(value, dict) or (isinstance(value, list) and _depth(value) > DEEPEST):
                raise PlanError(f"node {index} has an attribute that is nested deeper than any is")


def _check_texts(where: str | int, *texts: Any) -> None:
    for text in texts:
        if isinstance(text, str) and len(text) > LONGEST_TEXT:
            named = where if isinstance(where, str) else f"node {where}"
            raise PlanError(f"{named} has a name of {len(text)} characters; nodes read up to {LONGEST_TEXT}")


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
        try:
            check_handle(node.get("name")) if node.kind == "checkpoint" else None
        except PlanError as error:
            raise PlanError(f"{node.title(index)}: {error}") from error


def _check_growth(plan: Plan) -> None:
    """Raise PlanError for a value that is out of proportion to all that the plan reads."""

    def elements(kind: Type) -> int:
        return math.prod(plan.maxima[dim] if isinstance(dim, str) else dim for dim in kind.shape)

    read = max((elements(node.types[0]) for node in plan.nodes if node.kind == "input"), default=0)
    most = max(ALWAYS_FIT, MOST_GROWTH * read)
    for index, kind in _types(plan):
        if len(kind.shape) > MOST_AXES or elements(kind) > most:
            raise PlanError(f"{plan.nodes[index].title(index)}: {kind} is too large for what the plan reads")


def _check_tiles(plan: Plan) -> None:
    """Raise PlanError if a value has more tiles than anybody should have to count."""
    for index, kind in _types(plan):
        rows = plan.maxima[kind.rows] if isinstance(kind.rows, str) else kind.rows
        if rows > MOST_TILES * plan.tile_rows:
            raise PlanError(
                f"{plan.nodes[index].title(index)} has up to {rows} rows, more than {MOST_TILES} tiles of "
                f"{plan.tile_rows}; use larger tiles, or fewer rows"
            )


def _types(plan: Plan) -> Iterator[tuple[int, Type]]:
    """The types of all results, with a node that has each: once where nodes that are alike share them."""
    seen = set[int]()
    for index, node in enumerate(plan.nodes):
        if id(node.types) not in seen:
            seen.add(id(node.types))
            for kind in node.types:
                yield index, kind
