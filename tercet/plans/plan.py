"""Plans: computations on secret tables as directed acyclic graphs of small frozen nodes.

Analysts write ordinary Python over lazy `Value`s; a `Builder` turns every operation into a hash-consed `Node`
with a type: what it is made of, its shape (a row count may be a symbol until a join reveals it), its
fixed-point scale, and a bound on its magnitude, so that a plan that could overflow is refused before it
exists. Nothing leaves a plan except through `reveal` and `open` nodes, so a plan can say all that it
discloses, to whom, before it runs. A plan is the unit of consent: it has a digest that the parties compare,
and a msgpack form that is checked as strictly as code that was written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import attrs
import msgpack

from tercet.plans.kinds import KINDS
from tercet.plans.types import TILE_ROWS, Disclosure, Node, Ref, Type

FORMAT_VERSION = 2
HANDLED = frozenset({"input", "store"})
"""Kinds of nodes that name a handle."""
RESERVED = "\0"
"""What handles begin with under which nodes keep things for themselves: nobody else can name these."""
MOST_NODES = 1 << 18


@attrs.frozen(eq=False)
class Plan:
    """A finished plan: nodes, each after what it reads, and the most rows that each symbol can mean."""

    name: str
    nodes: tuple[Node, ...]
    maxima: Mapping[str, int] = attrs.field(factory=dict)
    tile_rows: int = TILE_ROWS
    packed: bytes | None = attrs.field(default=None, repr=False)
    """The msgpack form that the plan was read from, if it was."""
    shape: Plan | None = attrs.field(default=None, repr=False)
    """A plan that is the same but for its handles, alike for all such plans that are about; see `parsing`."""

    def __repr__(self) -> str:
        told = "; ".join(map(str, self.disclosures())) or "nothing"
        return f"plan {self.name!r}: {len(self.nodes)} nodes, which disclose: {told}"

    @property
    def apart_from_handles(self) -> Plan:
        """The shape of this plan, or itself: what facts that hang on no handle are remembered by."""
        return self if self.shape is None else self.shape

    def type_of(self, ref: Ref) -> Type:
        """The type of a result."""
        return self.nodes[ref[0]].types[ref[1]]

    def disclosures(self) -> list[Disclosure]:
        """All that anyone learns from a run of this plan, beyond the sizes of its inputs."""
        found = []
        for node in self.nodes:
            told = KINDS[node.kind].discloses(node, [self.type_of(ref) for ref in node.args])
            if told is not None:
                found.append(told)
        return found

    def to_bytes(self) -> bytes:
        """The msgpack form, from which `read_plan` makes an equal plan: a body with numbers for handles."""
        return self.packed or pack_plan(*self.to_body())

    def to_body(self) -> tuple[bytes, list[str]]:
        """What is alike in all runs of a computation, in msgpack, and the handles by their numbers in it."""
        handles: dict[str, int] = {}
        nodes = []
        for node in self.nodes:
            attributes = dict(node.attributes)
            if node.kind in HANDLED:
                attributes["handle"] = handles.setdefault(attributes["handle"], len(handles))
            nodes.append([node.kind, node.args, attributes, node.label])
        body: bytes = msgpack.packb([self.name, nodes, self.tile_rows], use_bin_type=True)
        return body, list(handles)

    def digest(self) -> bytes:
        """32 bytes that stand for the plan: what parties compare before they start."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).digest()


def pack_plan(body: bytes, handles: Sequence[str]) -> bytes:
    """The msgpack form of a plan."""
    packed: bytes = msgpack.packb([FORMAT_VERSION, body, list(handles)], use_bin_type=True)
    return packed
