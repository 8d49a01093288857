"""Reading plans that others have sent, as strictly as a builder checks code that was written here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import msgpack

from tercet.errors import PlanError
from tercet.plans.builder import Builder
from tercet.plans.plan import FORMAT_VERSION, MOST_NODES, Plan
from tercet.plans.types import Type, freeze


def read_plan(packed: bytes) -> Plan:
    """Rebuild and check a plan, node by node.

    Raises PlanError for anything that a Builder would not make.
    """
    if len(packed) > MOST_PLAN_BYTES:
        raise PlanError(f"a plan of {len(packed)} bytes is too large; nodes read up to {MOST_PLAN_BYTES}")
    try:
        _check_count(_count_nodes(packed))
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
    outline.skip()  # the version
    outline.skip()  # the name
    count: int = outline.read_array_header()
    return count


def _check_count(nodes: int) -> None:
    """Raise PlanError for more nodes than any plan has."""
    if nodes > MOST_NODES:
        raise PlanError(f"a plan of {nodes} nodes is too large; make several of up to {MOST_NODES}")


def _check_sizes(name: Any, nodes: Sequence[Any]) -> None:
    """Raise PlanError for a plan that is larger than any that somebody needs, before it is looked at."""
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
