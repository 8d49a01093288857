"""Properties of operations, over domains, shapes, scales and edges that hypothesis makes up.

Each strategy draws one operation, described in words, with its secrets; what it draws is small, for the
suite runs many. A failure is shrunk to the smallest case and ends as one sentence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes
from tercet.protocols.base import Op, Protocol, Shape, Share
from tercet.protocols.domains import BITS, Z64, Domain, Words, packed_words
from tercet.testing.correctness import check_case
from tercet.testing.operations import Operation, Secret, Values, edges, revealed, uniform
from tercet.testing.watch import new_session

EXAMPLES = 120
MOST_ROWS = 130

Draw = Any
Case = tuple[Operation, list[Secret], int]
"""An operation, its secrets, and how many packed rows its result has."""


def check_properties(cls: type[Protocol], *, parties: int, examples: int = EXAMPLES) -> None:
    """Check values and costs of operations that hypothesis makes up; raises ProtocolError."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(), dealer=st.integers(0, parties - 1))
    def check(case: Case, dealer: int) -> None:
        operation, secrets, rows = case
        # The same keys every time, so that a failure repeats while hypothesis shrinks it.
        session = new_session(cls, parties, seed=b"properties")
        check_case(session, operation, secrets, rows, where=operation.name, dealer=dealer)

    try:
        check()
    except ProtocolError as error:
        raise ProtocolError(str(error)) from error.__cause__
    except BaseExceptionGroup as group:  # a failure that did not repeat, for it hangs on the dealt shares
        found = group.subgroup(ProtocolError)
        if found is None:
            raise
        raise ProtocolError(str(_first(found))) from group


def _first(group: BaseExceptionGroup[ProtocolError]) -> ProtocolError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def cases() -> st.SearchStrategy[Case]:
    """Any of the operations below."""
    return st.one_of(
        linear(), products(), matrices(), truncations(), bits(), openings(), reveals(), shuffles()
    )


def _values(draw: Draw) -> Values:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    make: Values = draw(st.sampled_from([edges, uniform]))(rng)
    return make


def _one(operation: Op[Any]) -> Op[list[Any]]:
    result = yield from operation
    return [result]


def _local(result: Share) -> Op[list[Any]]:
    yield from ()
    return [result]


def _case(
    name: str, secrets: list[Secret], run: Any, expected: Any, cost: Any, *, rows: int = 0, **more: Any
) -> Case:
    """An operation on fixed secrets."""
    operation = Operation(name=name, inputs=lambda *_: secrets, run=run, expected=expected, cost=cost, **more)
    return operation, secrets, rows


def _shapes(draw: Draw) -> tuple[Shape, Shape, Shape]:
    """Two shapes that broadcast, and what they broadcast to."""
    drawn = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=5))
    one, two = drawn.input_shapes
    return one, two, drawn.result_shape


@st.composite
def linear(draw: Draw) -> Case:
    """`(x + y - c) * k`, summed along an axis, in either domain."""
    domain: Domain = draw(st.sampled_from([Z64, BITS]))
    one, two, shape = _shapes(draw)
    scale, make = draw(st.integers(0, 40)), _values(draw)
    secrets = [Secret(make(s, 64), domain, scale) for s in (one, two)]
    public, factor = make(shape, 64), make((), 64)
    axis = draw(st.integers(-len(shape), len(shape) - 1)) if shape else None

    def run(p: Protocol, s: list[Share]) -> Op[list[Any]]:
        shifted = p.subtract(p.add(*s), p.constant(public, domain=domain, scale=scale))
        scaled = p.mul_public(p.add_public(shifted, public), factor)
        return _local(scaled if axis is None else p.sum(scaled, axis))

    def expected(w: list[Words]) -> list[Words]:
        scaled = domain.multiply(domain.add(*w), factor)
        return [scaled if axis is None else domain.reduce_add(scaled, axis=axis)]

    name = f"linear operations in {domain} of shapes {one} and {two}, summed along axis {axis}"
    return _case(name, secrets, run, expected, lambda p, _: p.free())


@st.composite
def products(draw: Draw) -> Case:
    """An element-wise product in either domain, with public terms added before its round."""
    domain: Domain = draw(st.sampled_from([Z64, BITS]))
    one, two, shape = _shapes(draw)
    make, scales = _values(draw), (draw(st.integers(0, 20)), draw(st.integers(0, 20)))
    secrets = [Secret(make(s, 62), domain, scale) for s, scale in zip((one, two), scales, strict=True)]
    public = make(shape, 62)

    def run(p: Protocol, s: list[Share]) -> Op[list[Any]]:
        return _one(p.reduce(p.add_public(p.mul_local(*s), public)))

    return _case(
        f"a product in {domain} of shapes {one} and {two} at scales {scales[0]} and {scales[1]}",
        secrets,
        run,
        lambda w: [domain.add(domain.multiply(*w), public)],
        lambda p, _: p.cost("reduce", p.spec(shape, domain=domain, product=True)),
    )


@st.composite
def matrices(draw: Draw) -> Case:
    """A matrix product, or one over rows, of numbers of 56 bits."""
    m, k, n = (draw(st.integers(1, 6)) for _ in range(3))
    make, over_rows = _values(draw), draw(st.booleans())
    shapes: tuple[Shape, Shape] = ((m, k), (n, k) if over_rows else (k, n))
    secrets = [Secret(make(shape, 56)) for shape in shapes]

    def run(p: Protocol, s: list[Share]) -> Op[list[Any]]:
        return _one(p.reduce(p.dot_local(*s) if over_rows else p.matmul_local(*s)))

    return _case(
        f"a {'product over rows' if over_rows else 'matrix product'} of {shapes[0]} and {shapes[1]}",
        secrets,
        run,
        lambda w: [w[0] @ (w[1].T if over_rows else w[1])],
        lambda p, _: p.cost("reduce", p.spec((m, n), product=True)),
    )


@st.composite
def truncations(draw: Draw) -> Case:
    """A truncation, or rounding to the nearest, of a sharing or of a product."""
    kind = draw(st.sampled_from(["truncate", "nearest"]))
    width = 63 if kind == "truncate" else 62
    by, scale = draw(st.integers(1, width - 2)), draw(st.integers(0, 40))
    shape, make = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)), _values(draw)
    product = draw(st.booleans())
    factors = [Secret(make(shape, width), scale=scale)]
    if product:
        factors = [Secret(make(shape, width // 2), scale=scale), Secret(make(shape, width // 2))]

    def run(p: Protocol, s: list[Share]) -> Op[list[Any]]:
        return _one(getattr(p, kind)(p.mul_local(*s) if product else s[0], by))

    def expected(w: list[Words]) -> list[Words]:
        x = (w[0] * w[1] if product else w[0]).view(np.int64)
        return [((x >> (by - 1)) + 1 >> 1).view(np.uint64)]

    return _case(
        f"{kind} by {by} bits of a {'product' if product else 'sharing'} of shape {shape}",
        factors,
        run,
        expected,
        lambda p, _: p.cost(kind, p.spec(shape, product=product), by),
        tolerance=lambda p: p.truncation_error if kind == "truncate" else 0,
    )


@st.composite
def bits(draw: Draw) -> Case:
    """A comparison of some width, an equality, or packed bits to numbers."""
    n, make = draw(st.integers(0, MOST_ROWS)), _values(draw)
    width = draw(st.integers(2, 64))
    kind = draw(st.sampled_from(["is_negative", "is_zero", "bits_to_ring"]))
    if kind == "bits_to_ring":
        return _case(
            f"bits_to_ring of {n} rows",
            [Secret(make((packed_words(n),), 64), BITS)],
            lambda p, s: _one(p.bits_to_ring(s[0], n)),
            lambda w: [bitplanes.unpack_bits(w[0], n).astype(np.uint64)],
            lambda p, s: p.cost("bits_to_ring", s[0], n),
        )
    arguments = [width] if kind == "is_negative" else []
    return _case(
        f"{kind} of {n} rows" + (f" of {width} bits" if arguments else ""),
        [Secret(make((n,), width))],
        lambda p, s: _one(getattr(p, kind)(s[0], *arguments)),
        lambda w: [((w[0].view(np.int64) < 0) if arguments else (w[0] == 0)).astype(np.uint64)],
        lambda p, s: p.cost(kind, s[0], *arguments),
        rows=n,
        packed=True,
    )


@st.composite
def openings(draw: Draw) -> Case:
    """An opening of any shape, in either domain."""
    domain: Domain = draw(st.sampled_from([Z64, BITS]))
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    return _case(
        f"an opening in {domain} of shape {shape}",
        [Secret(_values(draw)(shape, 64), domain)],
        lambda p, s: _one(p.open(s[0])),
        lambda w: w,
        lambda p, s: p.cost("open", s[0]),
        openings=lambda s: s[0].size,
        discloses=True,
    )


@st.composite
def reveals(draw: Draw) -> Case:
    """A reveal of any shape, in either domain."""
    domain: Domain = draw(st.sampled_from([Z64, BITS]))
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    return _case(
        f"a reveal in {domain} of shape {shape}",
        [Secret(_values(draw)(shape, 64), domain)],
        lambda p, s: revealed(p, s[0]),
        lambda w: w,
        lambda p, s: p.cost("reveal", s[0]),
    )


@st.composite
def shuffles(draw: Draw) -> Case:
    """A shuffle of a few columns of either domain."""
    n, make = draw(st.integers(0, 12)), _values(draw)
    places = draw(
        st.lists(st.tuples(st.sampled_from([Z64, BITS]), st.integers(1, 3)), min_size=1, max_size=3)
    )
    return _case(
        f"a shuffle of {n} rows of {' and '.join(f'{k} places in {d}' for d, k in places)}",
        [Secret(make((k, n), 64), domain) for domain, k in places],
        lambda p, s: p.shuffle(s),
        lambda w: w,
        lambda p, s: p.cost("shuffle", s),
        unordered=True,
    )


__all__ = ["check_properties"]
