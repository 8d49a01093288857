"""Loops in plans: a step is written once, checked once, and copied as often as it is made.

Writing an operation takes ten times as long as copying a node whose types are known, and an iteration is the
same hundred nodes again. So a step that begins with values of the same types as an earlier one is not written
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from tercet.plans.builder import Builder, Value
from tercet.plans.kinds import KINDS
from tercet.plans.passes import DRAWS
from tercet.plans.types import Node, Ref

S = TypeVar("S", bound=attrs.AttrsInstance)
Step = Callable[[S, int], S]
"""From the state before a step, an attrs class of values and None, and its number, to the state after it."""


@attrs.frozen(eq=False)
class _Written:
    """A step that was written: where its values were before it and after it, and its number."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    number: int


class Loop:
    """The steps of one loop in a plan.

    What a step does must follow from the types of the state's values, and what it reads that differs from
    step to step must be in the state; the first, number 1, may be another one. Where a step draws at random,
    or something leaves the plan in it, all are written. A number is for labels, `step 7`.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._written: _Written | None = None

    def __call__(self, step: Step[S], state: S, number: int) -> S:
        """The state after one more step. Raises what `step` raises, and PlanError for too large a plan."""
        before = _fields(state)
        if self._written is not None:
            after = self._copied(self._written, before, number)
            if after is not None:
                return type(state)(**after)
        first = len(self._builder.nodes)
        made = step(state, number)
        leaves = any(KINDS[node.kind].keeps(node) for node in self._builder.nodes[first:])
        self._written = _Written(before, _fields(made), number) if number > 1 and not leaves else None
        return made

    def _copied(self, old: _Written, before: Mapping[str, Any], number: int) -> dict[str, Any] | None:
        """The state after the step `old` from other values; None if that may be another step."""
        moved = _moved(old.before, before)
        if moved is None:
            return None
        nodes, ends = self._builder.nodes, [one.ref for one in old.after.values() if isinstance(one, Value)]
        varying = {ref for ref, new in moved.items() if ref != new}
        changed = set[int]()
        for index in self._between(ends, moved, min((ref[0] for ref in varying), default=len(nodes))):
            node, kind = nodes[index], KINDS[nodes[index].kind]
            if any(ref in varying or (ref not in moved and ref[0] in changed) for ref in node.args):
                if kind.binds_symbol or node.kind in DRAWS:
                    return None
                changed.add(index)
        self._builder.count(len(changed))
        copies: dict[int, int] = {}

        def place(ref: Ref) -> Ref:
            return moved.get(ref) or (copies.get(ref[0], ref[0]), ref[1])

        for index in sorted(changed):
            node = nodes[index]
            args = tuple([place(ref) for ref in node.args])
            label = node.label.replace(f"step {old.number}", f"step {number}")
            copy = Node(node.kind, args, node.attributes, node.types, label)
            copies[index] = self._builder.adopt(copy, args, [nodes[one].types[out] for one, out in node.args])
        return {
            name: Value(self._builder, place(one.ref)) if isinstance(one, Value) else one
            for name, one in old.after.items()
        }

    def _between(self, ends: list[Ref], moved: Mapping[Ref, Ref], first: int) -> list[int]:
        """Nodes from number `first` on that lead to some results, in order, not beyond the state's values."""
        found, stack = set[int](), [ref for ref in ends if ref not in moved]
        while stack:
            index, _ = stack.pop()
            if index >= first and index not in found:
                found.add(index)
                stack += [ref for ref in self._builder.nodes[index].args if ref not in moved]
        return sorted(found)


def _fields(state: attrs.AttrsInstance) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in attrs.fields(type(state))}


def _moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[Ref, Ref] | None:
    """Where the values of one state are in another; None if they are unlike."""
    moved: dict[Ref, Ref] = {}
    for name, one in old.items():
        other = new[name]
        if isinstance(one, Value) and isinstance(other, Value):
            if one.type != other.type or moved.setdefault(one.ref, other.ref) != other.ref:
                return None
        elif one is not other:
            return None
    return moved


__all__ = ["Loop"]
