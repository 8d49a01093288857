"""Plan nodes that need no network: inputs, constants, sums, and whatever moves or reshapes rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PlanError
from tercet.plans.kinds import (
    NUMBER,
    PROMISE,
    Along,
    Context,
    Data,
    Kind,
    Sizes,
    Tiling,
    broadcast,
    fields,
    kind,
    promised,
    reach,
    require,
    require_ring,
)
from tercet.plans.types import Form, Node, Type, dims_product
from tercet.protocols.base import Cost, Op, Product, Protocol, Share
from tercet.protocols.domains import BITS, Words

_MINUS_ONE = np.array(-1, dtype=np.int64).view(np.uint64)

# -- sources -------------------------------------------------------------------------------------------------


@kind("input")
class Input(Kind):
    """A stored value, by handle; the scheduler puts it in place."""

    along = Along.SOURCE
    local = False
    attributes = fields(handle=str, form=str, shape=tuple, scale=int, limit=NUMBER)
    keep = False

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        form = Form(attributes["form"])
        require(form is not Form.PUBLIC, "inputs are secret; use a constant for public numbers")
        return [Type(form, tuple(attributes["shape"]), int(attributes["scale"]), float(attributes["limit"]))]


@kind("constant")
class Constant(Kind):
    """Public words written in the plan."""

    along = Along.NUMBERS
    attributes = fields(words=bytes, shape=tuple, scale=int)
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        words = np.frombuffer(attributes["words"], dtype=np.uint64)
        shape = tuple(attributes["shape"])
        require(words.size == math.prod(shape), "a constant's words do not fill its shape")
        limit = float(np.abs(words.view(np.int64).astype(np.float64)).max()) if words.size else 0.0
        return [Type(Form.PUBLIC, shape, int(attributes["scale"]), limit)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Words:
        return np.frombuffer(node.get("words"), dtype=np.uint64).reshape(node.get("shape"))


@kind("random")
class Random(Kind):
    """Random secret words."""

    along = Along.NUMBERS
    local = False
    attributes = fields(shape=tuple, fresh=int)
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        shape = tuple(attributes["shape"])
        require(
            not any(isinstance(dim, str) for dim in shape), "random words of a number that is not known yet"
        )
        return [Type(Form.WORDS, shape)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[Share]:
        return protocol.fresh(context.shape(node.types[0].shape), domain=BITS)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        return protocol.cost("fresh", node.types[0].shape, domain=BITS)


# -- linear --------------------------------------------------------------------------------------------------


class _Sum(Kind):
    along = Along.EACH
    takes_products = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        x, y = args
        require(
            x.form is not Form.PUBLIC or y.form is not Form.PUBLIC,
            "two public values; add them before the plan",
        )
        form = y.form if x.form is Form.PUBLIC else x.form
        require(y.form in (form, Form.PUBLIC), f"cannot combine {x} and {y}")
        require(
            form is Form.RING or Form.PUBLIC not in (x.form, y.form), "public terms combine with numbers only"
        )
        require(
            x.scale == y.scale, f"scales {x.scale} and {y.scale} differ; bring them together with at_scale"
        )
        limit = x.limit + y.limit
        return [Type(form, broadcast(x.shape, y.shape), x.scale, limit, x.product or y.product)]


@kind("add")
class Add(_Sum):
    """Sum; XOR for booleans and words."""

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        x, y = args
        if isinstance(x, Share):
            return protocol.add(x, y) if isinstance(y, Share) else protocol.add_public(x, y)
        if isinstance(y, Share):
            return protocol.add_public(y, x)
        raise PlanError("a sum of two public values")


@kind("sub")
class Subtract(_Sum):
    """Difference."""

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        x, y = args
        if isinstance(x, Share):
            return protocol.subtract(x, y) if isinstance(y, Share) else protocol.add_public(x, np.negative(y))
        if isinstance(y, Share):
            return protocol.add_public(protocol.mul_public(y, _MINUS_ONE), x)
        raise PlanError("a difference of two public values")


@kind("not")
class Not(Kind):
    """Complement of booleans."""

    along = Along.EACH
    takes_products = True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require(args[0].form is Form.BITS, f"'not' takes booleans, not {args[0]}")
        return [args[0]]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        (x,) = args
        if not isinstance(x, Share):
            raise PlanError("'not' of a public value")
        return protocol.add_public(x, np.full(x.shape, ~np.uint64(0)))


class Unary(Kind):
    """Local work on one secret value."""

    takes_products = True

    def run(
        self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context
    ) -> Share | Op[Share]:
        (x,) = args
        if not isinstance(x, Share):
            raise PlanError("a secret value was expected")
        return self.apply(node, protocol, x, context)

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share | Op[Share]:
        """The result for one share, or the operation that makes it where workers do so together."""
        raise NotImplementedError


@kind("shift_up")
class ShiftUp(Unary):
    """Multiply by a power of two and move the point: more fractional bits."""

    along = Along.EACH
    attributes = fields(bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        bits = int(attributes["bits"])
        require_ring(args[0], "shift_up")
        require(0 <= bits < 64, f"a shift by {bits} bits")
        return [attrs.evolve(args[0], scale=args[0].scale + bits, limit=math.ldexp(args[0].limit, bits))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        bits = int(node.get("bits"))
        return protocol.mul_public(x, np.array(1 << bits, dtype=np.uint64), scale=bits)


@kind("move_point")
class MovePoint(Unary):
    """Read the same integers at another scale: times 2^-bits."""

    along = Along.EACH
    cheap = True

    attributes = fields(bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "move_point")
        return [attrs.evolve(args[0], scale=args[0].scale + int(attributes["bits"]))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return x.like(x.data, scale=x.scale + int(node.get("bits")))


@kind("bounded")
class Bounded(Unary):
    """A tighter bound, proved outside the type system."""

    along = Along.EACH
    cheap = True

    attributes = fields(magnitude=NUMBER, why=str)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "bounded")
        limit = math.ldexp(float(attributes["magnitude"]), args[0].scale)
        return [attrs.evolve(args[0], limit=min(args[0].limit, limit))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return x


@kind("sum")
class SumRows(Unary):
    """Sum over rows."""

    along = Along.SUM
    attributes = PROMISE
    optional = frozenset(PROMISE)
    tiling = Tiling.REDUCE

    def rowwise(self, node: Node, args: Sequence[Type], position: int) -> bool:
        return True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "sum")
        limit = promised(args[0].limit * reach(sizes, args[0].rows), args[0].scale, attributes)
        return [attrs.evolve(args[0], shape=args[0].shape[:-1], limit=limit)]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return protocol.sum(x)


@kind("sum_columns")
class SumColumns(Unary):
    """Sum over the first axis."""

    along = Along.EACH

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "sum_columns")
        require(len(args[0].shape) > 1, "sum_columns needs two axes")
        limit = args[0].limit * reach(sizes, args[0].shape[0])
        return [attrs.evolve(args[0], shape=args[0].shape[1:], limit=limit)]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return protocol.sum(x, axis=0)


@kind("reshape")
class Reshape(Unary):
    """Another shape; what is longer than a tile keeps its last axis."""

    along = Along.RESHAPE
    cheap = True

    attributes = fields(shape=tuple)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        shape = tuple(attributes["shape"])
        require(x.form in (Form.RING, Form.WORDS), "packed booleans cannot be reshaped")
        old, new = (sorted(str(dim) for dim in dims if isinstance(dim, str)) for dims in (x.shape, shape))
        counts = [math.prod(dim for dim in dims if isinstance(dim, int)) for dims in (x.shape, shape)]
        require(
            old == new and counts[0] == counts[1], f"{dims_product(x.shape)} elements cannot become {shape}"
        )
        if (shape or (1,))[-1] != x.rows:
            axes = [sizes.most(dim) for dim in x.shape]
            require(math.prod(axes) <= sizes.tile_rows, "a value longer than a tile keeps its last axis")
        return [attrs.evolve(x, shape=shape)]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        shape = [dim if isinstance(dim, int) else context.symbols[dim] for dim in node.types[0].shape]
        if shape and node.types[0].rows != 1:
            shape[-1] = x.size // math.prod(shape[:-1]) if math.prod(shape[:-1]) else 0
        return x.like(x.data.reshape(x.data.shape[0], *shape))


@kind("transpose")
class Transpose(Unary):
    """Swap the axes of a small matrix."""

    along = Along.RESHAPE
    tiling = Tiling.WHOLE

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        require_ring(args[0], "transpose")
        require(len(args[0].shape) == 2, "transpose takes a matrix")
        return [attrs.evolve(args[0], shape=args[0].shape[::-1])]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return x.like(np.ascontiguousarray(x.data.swapaxes(1, 2)))


@kind("select")
class Select(Unary):
    """Entries of the first axis, by number."""

    along = Along.EACH
    cheap = True

    attributes = fields(indices=tuple)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        indices = tuple(attributes["indices"])
        require(x.form in (Form.RING, Form.WORDS), f"select takes numbers or words, not {x}")
        require(len(x.shape) > 1, "select takes a value of two axes")
        first = x.shape[0]
        require(
            isinstance(first, int) and all(type(i) is int and 0 <= i < first for i in indices),
            f"no such column: {indices}",
        )
        return [attrs.evolve(x, shape=(len(indices), *x.shape[1:]))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        return x.like(x.data[:, list(node.get("indices"))])


@kind("concatenate")
class Concatenate(Kind):
    """Stack along the first axis."""

    along = Along.EACH

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        first = args[0]
        require(first.form in (Form.RING, Form.WORDS), f"concatenate takes numbers or words, not {first}")
        count = 0
        for x in args:
            require(x.form is first.form and x.shape[1:] == first.shape[1:], f"{x} does not stack on {first}")
            require(x.scale == first.scale, f"scales {x.scale} and {first.scale} differ")
            dim = x.shape[0]
            if not isinstance(dim, int) or len(x.shape) < 2:
                raise PlanError("values stack along a first axis of known length that is not the rows")
            count += dim
        limit = max(x.limit for x in args)
        return [attrs.evolve(first, shape=(count, *first.shape[1:]), limit=limit)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        shares = [x for x in args if isinstance(x, Share)]
        return shares[0].like(np.concatenate([x.data for x in shares], axis=1))


@kind("append_row")
class AppendRow(Unary):
    """One more place at the end of the first axis, filled with a public number of ring units."""

    along = Along.EACH
    attributes = fields(units=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (x,) = args
        require_ring(x, "append_row")
        units, first = int(attributes["units"]), x.shape[0] if len(x.shape) > 1 else None
        if not isinstance(first, int):
            raise PlanError("append_row takes a value of two axes, the first of a known length")
        require(abs(units) < 1 << 62, f"{units} ring units do not fit the ring")
        return [attrs.evolve(x, shape=(first + 1, *x.shape[1:]), limit=max(x.limit, abs(units)))]

    def apply(self, node: Node, protocol: Protocol, x: Share, context: Context) -> Share:
        row = np.full((1, *x.shape[1:]), int(node.get("units")), dtype=np.int64).view(np.uint64)
        last = protocol.constant(row, domain=x.domain, scale=x.scale, product=isinstance(x, Product))
        return x.like(np.concatenate([x.data, last.data], axis=1))
