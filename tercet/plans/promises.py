"""What nodes may see if bounds do not hold that a plan's author only promises.

Types bound numbers by what operations can make of their arguments. Where that is too coarse, whoever writes a
plan promises a bound: with `bounded`, with the magnitude of a sum or product, and for a stored value in the
plan that has stored it. Computations prove what they promise; of a plan by hand nobody knows. Two things that
nodes see tell nothing only below a bound: the comparisons of a sort, whose keys have to fit their bits, or
else the order of rows is none and shows of which keys it was; and, where a protocol's masks hide numbers of
some size alone, whatever is masked. So types are found anew here without any promise, from bounds that owners
keep at upload. What does not type-check then rests on a promise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import attrs

from tercet.errors import PlanError
from tercet.plans.kinds import KINDS, Along
from tercet.plans.plan import Plan
from tercet.plans.types import Dim, Form, Node, Ref, Type

UNMASKED = frozenset({"reduce", "shuffle", "open", "prf", "match"})
"""What takes rounds, and either masks numbers of any size, or none at all."""


@attrs.define
class _Sizes:
    """How large the plan can be."""

    tile_rows: int
    maxima: dict[str, int] = attrs.field(factory=dict)

    def most(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else self.maxima[dim]


def promised(
    plan: Plan, uploaded: Collection[str], *, masks_hide_all: bool
) -> Iterator[tuple[str, Sequence[Ref]]]:
    """What nodes see that tells nothing as long as promised bounds hold: in words, and of which values.

    `uploaded` are handles of columns as their owners have uploaded them, `masks_hide_all` says whether masks
    hide numbers of any size (`Protocol.masks_hide_all`).
    """
    found: dict[Ref, Type] = {}
    sizes = _Sizes(plan.tile_rows)
    for index, node in enumerate(plan.nodes):
        types = _proved(node, [found[ref] for ref in node.args], sizes, uploaded)
        if types is None:
            types = [_unbounded(one) for one in node.types]
            if node.kind == "sort":
                yield f"comparisons by {node.title(index)}, whose keys may not fit their bits", node.args[:1]
            elif not masks_hide_all and _masks(node):
                yield f"masked numbers of {node.title(index)}, larger than masks hide", node.args
        found.update({(index, output): kind for output, kind in enumerate(types)})


def _proved(
    node: Node, args: Sequence[Type], sizes: _Sizes, uploaded: Collection[str]
) -> Sequence[Type] | None:
    """Types of a node's results, whatever its author promises; None if they rest on that."""
    if node.kind == "input":
        return node.types if node.get("handle") in uploaded else [_unbounded(one) for one in node.types]
    if node.kind == "bounded":
        return args
    attributes = {name: value for name, value in node.attributes if name != "magnitude"}
    try:
        return KINDS[node.kind].infer(args, attributes, sizes)
    except (PlanError, ArithmeticError, ValueError):  # as logarithms of what has no bound
        return None


def _unbounded(kind: Type) -> Type:
    return attrs.evolve(kind, limit=math.inf) if kind.form is Form.RING else kind


def _masks(node: Node) -> bool:
    kind = KINDS[node.kind]
    return not kind.local and kind.along is not Along.END and node.kind not in UNMASKED
