"""Plan nodes for products before their round: element-wise, of matrices, and over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tercet.errors import PlanError
from tercet.plans.kinds import (
    PROMISE,
    Along,
    Context,
    Data,
    Kind,
    Sizes,
    Tiling,
    as_public,
    broadcast,
    kind,
    promised,
    reach,
    require,
    require_ring,
)
from tercet.plans.types import Form, Node, Type
from tercet.protocols.base import Protocol, Share


@kind("mul")
class Multiply(Kind):
    """Element-wise product; AND for booleans and words.

    Free if one factor is public, else a product awaiting its round.
    """

    along = Along.EACH
    attributes = PROMISE
    optional = frozenset(PROMISE)

    def needs_round(self, args: Sequence[Type], position: int) -> bool:
        return args[position].product and all(x.form is not Form.PUBLIC for x in args)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        x, y = args
        shape = broadcast(x.shape, y.shape)
        if x.form is Form.BITS or y.form is Form.BITS:
            require(x.form is y.form, f"cannot AND {x} and {y}")
            require(not (x.product or y.product), "a factor is a product that has not had its round")
            return [Type(Form.BITS, shape, product=True)]
        if x.form is y.form is Form.WORDS:
            require(not (x.product or y.product), "a factor is a product that has not had its round")
            return [Type(Form.WORDS, shape, product=True)]
        require(
            Form.RING in (x.form, y.form) and {x.form, y.form} <= {Form.RING, Form.PUBLIC},
            f"cannot multiply {x}, {y}",
        )
        secret = x.form is y.form
        require(
            not secret or not (x.product or y.product), "a factor is a product that has not had its round"
        )
        limit = promised(x.limit * y.limit, x.scale + y.scale, attributes)
        return [Type(Form.RING, shape, x.scale + y.scale, limit, secret or x.product or y.product)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        x, y = args
        if isinstance(x, Share) and isinstance(y, Share):
            return protocol.mul_local(x, y)
        secret, public = (x, y) if isinstance(x, Share) else (y, x)
        if not isinstance(secret, Share):
            raise PlanError("a product of two public values")
        factor = as_public(public)
        lead = (1,) * (max(len(secret.shape), factor.ndim) - len(secret.shape))
        lifted = secret.like(secret.data.reshape(secret.data.shape[0], *lead, *secret.shape))
        return protocol.mul_public(lifted, factor, scale=node.types[0].scale - secret.scale)


@kind("matmul")
class MatMul(Kind):
    """Matrix product `(m, k) @ (k, n)` along columns; rows stay."""

    along = Along.LAST
    adds_products = True
    attributes = PROMISE
    optional = frozenset(PROMISE)

    def rowwise(self, node: Node, args: Sequence[Type], position: int) -> bool:
        return position == 1

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        x, y = args
        require(
            len(x.shape) == 2 and len(y.shape) == 2 and x.shape[1] == y.shape[0], f"matmul of {x} and {y}"
        )
        require(x.form in (Form.RING, Form.PUBLIC) and y.form is Form.RING, f"matmul of {x} and {y}")
        limit = promised(x.limit * y.limit * reach(sizes, x.shape[1]), x.scale + y.scale, attributes)
        secret = x.form is Form.RING
        return [Type(Form.RING, (x.shape[0], y.shape[1]), x.scale + y.scale, limit, secret)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        x, y = args
        if not isinstance(y, Share):
            raise PlanError("matmul with a public right side")
        if isinstance(x, Share):
            return protocol.matmul_local(x, y)
        return protocol.matmul_public(x, y, scale=node.types[0].scale - y.scale)


@kind("dot")
class Dot(Kind):
    """Product over rows `(d, n), (e, n) -> (d, e)`."""

    along = Along.SUM
    adds_products = True
    attributes = PROMISE
    optional = frozenset(PROMISE)
    tiling = Tiling.REDUCE

    def rowwise(self, node: Node, args: Sequence[Type], position: int) -> bool:
        return True

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        x, y = args
        require_ring(x, "dot")
        require_ring(y, "dot")
        require(len(x.shape) == 2 and len(y.shape) == 2 and x.rows == y.rows, f"dot of {x} and {y}")
        limit = promised(x.limit * y.limit * reach(sizes, x.rows), x.scale + y.scale, attributes)
        return [Type(Form.RING, (x.shape[0], y.shape[0]), x.scale + y.scale, limit, product=True)]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Share:
        x, y = (arg for arg in args if isinstance(arg, Share))
        return protocol.dot_local(x, y)
