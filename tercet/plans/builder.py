"""Writing plans: ordinary Python over lazy values.

A `Value` stands for a result of a plan that is being written; its operators record nodes with a `Builder`,
which checks types, scales and bounds at once and makes equal operations one node.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import attrs
import numpy.typing as npt

from tercet.errors import PlanError
from tercet.plans.kinds import KINDS
from tercet.plans.node_types import infer
from tercet.plans.plan import MOST_NODES, Plan
from tercet.plans.types import (
    TILE_ROWS,
    Dim,
    Dims,
    DisclosureClass,
    Node,
    Ref,
    Type,
    freeze,
)
from tercet.protocols.domains import Words, encode
from tercet.protocols.fourier import Series

MOST_WRITTEN = 1 << 17
"""Operations that a plan is written in, a few seconds' work; plans that are parsed may have more nodes."""


class Builder:
    """Records a plan. Equal operations on equal values become one node.

    Impossible ones raise PlanError at once, and so do more than `MOST_WRITTEN`, equal ones among them, whose
    writing takes as long.
    """

    def __init__(self, name: str, *, tile_rows: int = TILE_ROWS) -> None:
        self.name = name
        self.tile_rows = tile_rows
        self.nodes: list[Node] = []
        self.maxima: dict[str, int] = {}
        self.label = ""
        self._known: dict[tuple[Any, ...], int] = {}
        self._inferred: dict[Hashable, tuple[tuple[Type, ...], tuple[tuple[str, Any], ...]]] = {}
        self._fresh = 0
        self._written = 0

    @contextlib.contextmanager
    def scope(self, label: str) -> Iterator[None]:
        """Label the nodes made inside, for messages, drawings and traces."""
        outer, self.label = self.label, f"{self.label}/{label}" if self.label else label
        try:
            yield
        finally:
            self.label = outer

    def append(self, kind: str, args: Sequence[Ref], attributes: Mapping[str, Any]) -> int:
        """Add a node and return its index, or the index of an equal one.

        Raises PlanError if it does not type-check.
        """
        if kind not in KINDS:
            raise PlanError(f"unknown kind of node {kind!r}; known are {', '.join(sorted(KINDS))}")
        nodes, inputs = self.nodes, []
        for index, output in args:
            if not (0 <= index < len(nodes) and 0 <= output < len((source := nodes[index]).types)):
                raise PlanError(
                    f"a {kind} node reads result {output} of node {index}, which does not exist before it"
                )
            if KINDS[source.kind].final:
                raise PlanError(f"a {kind} node reads {source.title(index)}, which only leaves the plan")
            inputs.append(source.types[output])
        named = tuple(sorted(attributes.items()) if len(attributes) > 1 else attributes.items())
        reads, made = tuple(args), len(nodes)
        known = self._known.get(key := (kind, reads, named))
        if known is not None:
            return known
        if made >= MOST_NODES:
            raise PlanError(
                f"plan {self.name!r:.80} grows beyond {MOST_NODES} nodes; take fewer steps at once"
            )
        # Plans repeat steps: what a node just like it was found to be is remembered, and its attributes with
        # it, since equal numbers can be of types that are not allowed.
        alike = (kind, tuple(inputs), named)
        found = self._inferred.get(alike)
        if found is None:
            try:
                found = infer(kind, alike[1], named, self), named
            except PlanError as error:
                title = f"node {made} ({kind}{' in ' + self.label if self.label else ''})"
                operands = f" (operands: {'; '.join(map(str, inputs))})" if inputs else ""
                raise PlanError(f"{title}: {error}{operands}") from error
            if not KINDS[kind].binds_symbol:
                self._inferred[alike] = found
        types, checked = found
        self._known[key] = made
        nodes.append(Node(kind, reads, checked, types, self.label))
        return made

    def adopt(self, node: Node, args: tuple[Ref, ...], inputs: Sequence[Type]) -> int:
        """Add a node of a checked plan under its label; it reads `args` here, and values of `inputs` there.

        As `append` does, which has nothing to check where both are of the same types.
        """
        alike = not KINDS[node.kind].binds_symbol
        for (index, output), kind in zip(args, inputs, strict=True):
            here = self.nodes[index].types[output]
            alike = alike and (here is kind or here == kind)
        if not alike:
            return self.append(node.kind, args, dict(node.attributes))
        index = self._known.setdefault((node.kind, args, node.attributes), len(self.nodes))
        if index == len(self.nodes):
            if args != node.args:
                node = Node(node.kind, args, node.attributes, node.types, node.label)
            self.nodes.append(node)
        return index

    def forget(self, count: int) -> None:
        """Drop all nodes from number `count` on."""
        self._known = {key: index for key, index in self._known.items() if index < count}
        del self.nodes[count:]

    def most(self, dim: Dim) -> int:
        """The largest value that a dimension can have."""
        return dim if isinstance(dim, int) else self.maxima[dim]

    def fresh(self) -> int:
        """A number that no other node of this plan has, for nodes that must not be merged."""
        self._fresh += 1
        return self._fresh

    def plan(self) -> Plan:
        """The plan recorded so far."""
        return Plan(self.name, tuple(self.nodes), dict(self.maxima), self.tile_rows)

    def count(self, operations: int) -> None:
        """Count what is written. Raises PlanError for more than `MOST_WRITTEN`."""
        self._written += operations
        if self._written > MOST_WRITTEN:
            raise PlanError(
                f"plan {self.name!r:.80} takes more than {MOST_WRITTEN} operations to write; ask for less"
            )

    # -- making values ---------------------------------------------------------------------------------------

    def apply_all(self, kind: str, /, *args: Value, **attributes: Any) -> list[Value]:
        """All results of a new node. Products that it cannot read get their round first."""
        self.count(1)
        refs, types = [arg.ref for arg in args], [arg.type for arg in args]
        if any(one.product for one in types) and kind in KINDS:
            refs = [
                (self.append("reduce", [ref], {}), 0) if KINDS[kind].needs_round(types, position) else ref
                for position, ref in enumerate(refs)
            ]
        index = self.append(kind, refs, freeze(attributes))
        return [Value(self, (index, output)) for output in range(len(self.nodes[index].types))]

    def apply(self, kind: str, /, *args: Value, **attributes: Any) -> Value:
        """The first result of a new node."""
        return self.apply_all(kind, *args, **attributes)[0]

    def input(self, handle: str, kind: Type) -> Value:
        """A value that the nodes hold under `handle`."""
        return self.apply(
            "input", handle=handle, form=kind.form.value, shape=kind.shape, scale=kind.scale, limit=kind.limit
        )

    def constant(self, values: npt.ArrayLike, *, scale: int = 0) -> Value:
        """Public numbers, in fixed point with `scale` fractional bits."""
        words: Words = encode(values, scale)
        return self.apply("constant", words=words.tobytes(), shape=words.shape, scale=scale)

    def random_words(self, *shape: int) -> Value:
        """Uniformly random secret words, known to nobody."""
        return self.apply("random", shape=shape, fresh=self.fresh())


@attrs.frozen(eq=False)
class Value:
    """A lazy value of a plan. Rows are the last axis: a table of d columns has shape `(d, rows)`."""

    builder: Builder
    ref: Ref

    @property
    def type(self) -> Type:
        """Its type."""
        return self.builder.nodes[self.ref[0]].types[self.ref[1]]

    @property
    def shape(self) -> Dims:
        """Its shape; a dimension that a join has yet to reveal is a name."""
        return self.type.shape

    @property
    def scale(self) -> int:
        """Its fractional bits."""
        return self.type.scale

    # -- arithmetic ------------------------------------------------------------------------------------------

    def _other(self, other: Value | float, *, scale: int | None = None) -> Value:
        if isinstance(other, Value):
            if other.builder is not self.builder:
                raise PlanError(
                    "values of two different plans were combined; store one and read it as an input"
                )
            return other
        if scale is None:
            scale = 0 if float(other).is_integer() else 20
        return self.builder.constant(other, scale=scale)

    def _same_scale(self, other: Value | float) -> tuple[Value, Value]:
        right = self._other(other, scale=None if isinstance(other, Value) else self.scale)
        scale = max(self.scale, right.scale)
        return self.at_scale(scale), right.at_scale(scale)

    def at_scale(self, scale: int) -> Value:
        """The same numbers with more fractional bits: exact and local. Use `rescale` for fewer."""
        if scale < self.scale:
            raise PlanError(f"at_scale({scale}) would cut bits of a value at scale {self.scale}; use rescale")
        return self if scale == self.scale else self.builder.apply("shift_up", self, bits=scale - self.scale)

    def __add__(self, other: Value | float) -> Value:
        return self.builder.apply("add", *self._same_scale(other))

    def __radd__(self, other: float) -> Value:
        return self + other

    def __sub__(self, other: Value | float) -> Value:
        return self.builder.apply("sub", *self._same_scale(other))

    def __rsub__(self, other: float) -> Value:
        return -self + other

    def __neg__(self) -> Value:
        return self * -1

    def __mul__(self, other: Value | float) -> Value:
        return self.builder.apply("mul", self, self._other(other))

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __matmul__(self, other: Value) -> Value:
        """Matrix product `(m, k) @ (k, n)`; a one-dimensional left side is one row."""
        return self.matmul(other)

    def times(self, other: Value, *, magnitude: float) -> Value:
        """Element-wise product whose real result is promised to be at most `magnitude`.

        The caller must prove it.
        """
        return self.builder.apply("mul", self, other, magnitude=float(magnitude))

    def matmul(self, other: Value, *, magnitude: float | None = None) -> Value:
        """`self @ other`; `magnitude` promises a bound on the real result that the types cannot see."""
        if len(self.shape) == 1:
            return self.reshape(1, *self.shape).matmul(other, magnitude=magnitude).squeeze()
        promise = {} if magnitude is None else {"magnitude": float(magnitude)}
        return self.builder.apply("matmul", self, other, **promise)

    def dot(self, other: Value, *, magnitude: float | None = None) -> Value:
        """Product over rows: `(d, n), (e, n) -> (d, e)`; a one-dimensional side is one column and is dropped.

        `magnitude` promises a bound on the real result that the types cannot see, such as Cauchy and
        Schwarz's.
        """
        left = self.reshape(1, *self.shape) if len(self.shape) == 1 else self
        right = other.reshape(1, *other.shape) if len(other.shape) == 1 else other
        promise = {} if magnitude is None else {"magnitude": float(magnitude)}
        product = self.builder.apply("dot", left, right, **promise)
        shape = [side.shape[0] for side in (self, other) if len(side.shape) > 1]
        return product.reshape(*shape)

    def dot_squares(self, magnitude: float) -> Value:
        """Sum over rows of the squares, `(d, n) -> (d)`; `magnitude` promises a bound on the results."""
        return (self * self).sum(magnitude=magnitude)

    def sum(self, *, magnitude: float | None = None) -> Value:
        """Sum over rows; `magnitude` promises a bound on the real result that the types cannot see."""
        promise = {} if magnitude is None else {"magnitude": float(magnitude)}
        return self.builder.apply("sum", self, **promise)

    def sum_columns(self) -> Value:
        """Sum over the first axis: `(d, n) -> (n)`."""
        return self.builder.apply("sum_columns", self)

    # -- scale and bounds ------------------------------------------------------------------------------------

    def rescale(self, scale: int) -> Value:
        """The same numbers at another scale; fewer bits cost a truncation (2 rounds)."""
        if scale >= self.scale:
            return self.at_scale(scale)
        return self.builder.apply("truncate", self, bits=self.scale - scale)

    def nearest(self, scale: int) -> Value:
        """The same numbers at another scale, to the nearest, halves up: equal numbers stay equal.

        For what is compared, sorted or counted afterwards, row by row. Fewer bits cost about 12 rounds, where
        `rescale` takes 2 and may round equal numbers apart.
        """
        if scale >= self.scale:
            return self.at_scale(scale)
        return self.builder.apply("nearest", self, bits=self.scale - scale)

    def shifted(self, bits: int) -> Value:
        """The value times 2^-bits, by reading the point at another place: free and exact."""
        return self if bits == 0 else self.builder.apply("move_point", self, bits=bits)

    def bounded(self, magnitude: float, why: str) -> Value:
        """The same value with a tighter bound on its absolute value than the types can see.

        `why` must prove it.
        """
        return self.builder.apply("bounded", self, magnitude=float(magnitude), why=why)

    # -- shape -----------------------------------------------------------------------------------------------

    def reshape(self, *shape: Dim) -> Value:
        """The same elements in another shape; a long last axis has to stay."""
        return self if shape == self.shape else self.builder.apply("reshape", self, shape=shape)

    def squeeze(self) -> Value:
        """Drop a first axis of length one."""
        return self.reshape(*self.shape[1:])

    def column(self) -> Value:
        """A vector `(d,)` as `(d, 1)`, to combine with every row of a `(d, n)` value."""
        return self.reshape(*self.shape, 1)

    def transpose(self) -> Value:
        """Swap the axes of a small matrix."""
        return self.builder.apply("transpose", self)

    def select(self, indices: Sequence[int]) -> Value:
        """Rows of the first axis (columns of a table), by number."""
        return self.builder.apply("select", self, indices=tuple(indices))

    def append_row(self, number: float) -> Value:
        """A `(d, n)` value with one more row of a public number."""
        return self.builder.apply("append_row", self, units=round(math.ldexp(number, self.scale)))

    def slice(self, start: int, stop: int) -> Value:
        """Rows `start` to `stop` of the last axis."""
        return self.builder.apply("slice", self, start=start, stop=stop)

    def omit(self, start: int, stop: int) -> Value:
        """Rows of the last axis but those from `start` to `stop`."""
        return self.builder.apply("omit", self, start=start, stop=stop)

    def delay(self, rows: int) -> Value:
        """Rows of the last axis moved down by so many places, or up if negative; zeros take their place."""
        return self.builder.apply("delay", self, rows=rows)

    def take(self, positions: Value, *, table: int = 0) -> Value:
        """Rows of the last axis by public positions, those in row `table` of `(tables, m)`; zeros for -1."""
        return self.builder.apply("take", self, positions, table=table)

    def padded(self, before: int, after: int) -> Value:
        """The value with so many rows of zeros before and after its own."""
        return self if before == after == 0 else self.builder.apply("pad", self, before=before, after=after)

    def cumulate(self, *, magnitude: float | None = None) -> Value:
        """Running totals over rows; `magnitude` promises a bound on them that the types cannot see."""
        promise = {} if magnitude is None else {"magnitude": float(magnitude)}
        return self.builder.apply("cumulate", self, **promise)

    def pair_rows(self) -> Value:
        """Neighbouring rows side by side: `(c, n) -> (2 c, n / 2)`, even rows above odd ones."""
        return self.builder.apply("pair_rows", self)

    def interleave(self, rows: int) -> Value:
        """The inverse of `pair_rows`, with so many rows."""
        return self.builder.apply("interleave", self, rows=rows)

    # -- non-linear ------------------------------------------------------------------------------------------

    def is_negative(self, bits: int | None = None) -> Value:
        """Secret booleans `x < 0`; `bits` defaults to what the bound on x needs."""
        needed = max(2, math.ceil(self.type.limit).bit_length() + 1)
        return self.builder.apply("is_negative", self, bits=min(64, bits or needed))

    def __lt__(self, other: Value | float) -> Value:
        return (self - other).is_negative()

    def __gt__(self, other: Value | float) -> Value:
        left, right = self._same_scale(other)
        return (right - left).is_negative()

    def fourier(self, *series: Series, dealt_bits: int, coefficient_bits: int) -> list[Value]:
        """Public functions of the value, given as Fourier series of one period (see `protocols.fourier`).

        Results have scale `dealt_bits + coefficient_bits`. The value is read modulo the period, so it need
        not fit the ring.
        """
        fields = [attrs.astuple(one, recurse=False) for one in series]
        return self.builder.apply_all(
            "fourier", self, series=fields, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits
        )

    def is_zero(self) -> Value:
        """Secret booleans `x == 0`."""
        return self.builder.apply("is_zero", self)

    def are_zero(self) -> Value:
        """Secret booleans: where all words of a column of `(w, n)` are zero."""
        return self.builder.apply("zero_words", self)

    def to_ring(self) -> Value:
        """Secret booleans as zeros and ones."""
        return self.builder.apply("to_ring", self)

    def __xor__(self, other: Value) -> Value:
        return self.builder.apply("add", self, other)

    def __and__(self, other: Value) -> Value:
        return self.builder.apply("mul", self, other)

    def __invert__(self) -> Value:
        return self.builder.apply("not", self)

    # -- out -------------------------------------------------------------------------------------------------

    def open(self, why: str) -> Value:
        """The value, to all nodes. A declared disclosure: `why` says what they learn."""
        return self.builder.apply("open", self, why=why)

    def reveal(self, name: str, *, to: str, kind: DisclosureClass | Literal[""] = "") -> None:
        """Send the value to a receiver outside, under a name. A declared disclosure.

        `kind` is its class (see `DisclosureClass`). One that is not said counts as the worst. Raises
        PlanError for a class that does not exist.
        """
        more = {"kind": kind} if kind else {}
        self.builder.apply("reveal", self, name=name, to=to, **more)

    def store(self, handle: str) -> Self:
        """Keep the value, secret, at the nodes under `handle`, as the input of later plans."""
        self.builder.apply("store", self, handle=handle)
        return self

    def checkpoint(self, point: int, name: str) -> None:
        """Have nodes that last keep the value until the run has ended, with others of the same point."""
        self.builder.apply("checkpoint", self, point=point, name=name)


def concatenate(values: Sequence[Value]) -> Value:
    """Stack values along the first axis: tables side by side."""
    return values[0] if len(values) == 1 else values[0].builder.apply("concatenate", *values)


def stack(values: Sequence[Value]) -> Value:
    """Rows of all values, one after the other: one table below the other."""
    return values[0] if len(values) == 1 else values[0].builder.apply("stack", *values)
