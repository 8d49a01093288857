"""The operations that every protocol offers, as a table: inputs, how to run them, results, costs.

One table serves the conformance suite (`tercet.testing.protocols`), the tests and the page of costs, so that
no operation is tested but not documented, or the other way round. An entry that talks to nobody in some
protocol simply costs nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.protocols import bitplanes, circuits, ranking, word_order
from tercet.protocols.base import Cost, Op, Protocol, Shape, Share
from tercet.protocols.domains import BITS, WORD_BITS, Z64, Domain, Words, decode, encode, packed_words
from tercet.protocols.fourier import Series, sigmoid, union
from tercet.protocols.kernels import Indices

SCALE = 16
DEALT_BITS, COEFFICIENT_BITS = 20, 14
_SORTED_BITS = 24
_FEW_SORTED = 11
"""Rows all comparisons of which are one word, and so are other words in other orders."""
_KEY = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], dtype=np.uint64)


@attrs.frozen(eq=False)
class Secret:
    """One secret input: words, where they live, and their fractional bits."""

    words: Words
    domain: Domain = Z64
    scale: int = 0


Values = Callable[[Shape, int], Words]
"""Makes ring words of a shape, each below 2^(bits-1) in size."""


@attrs.frozen(eq=False)
class Exports:
    """What one party sends of a value to a receiver outside, for `Protocol.combine`."""

    arrays: list[Words]
    domain: Domain
    shape: Shape


@attrs.frozen(eq=False, kw_only=True)
class Operation:
    """One entry of the table, for values of `n` rows.

    `inputs(values, n)` makes the secrets; `run(protocol, shares)` is the operation, which gives shares, words
    that were opened, or `Exports`; `expected(secrets)` are the words that must come out, each to within
    `tolerance` units; `cost(protocol, shares)` is its declared cost.
    """

    name: str
    inputs: Callable[[Values, int], list[Secret]]
    run: Callable[[Protocol, list[Share]], Op[list[Any]]]
    expected: Callable[[list[Words]], list[Words]]
    cost: Callable[[Protocol, list[Share]], Cost]
    tolerance: Callable[[Protocol], int] = lambda _: 0
    packed: bool = False
    """Whether the result is packed bits, of which only the first n count."""
    unordered: bool = False
    """Whether the rows of the results come in any order, alike for all results."""
    rowwise: bool = True
    """Whether tiles of the rows give tiles of the results."""
    discloses: bool = False
    """Whether the results are opened to all parties."""
    openings: Callable[[list[Share]], int] = lambda _: 0
    """Words that it may open."""
    drawn: bool = False
    """Whether the results are random words, so that `expected` tells only their shapes."""
    fixed_up_to: int | None = None
    """Rows up to which chance does not decide what is sent; `cost` is a mean beyond. None for all."""

    def is_fixed(self, rows: int) -> bool:
        """Whether lengths and costs are the same in every run."""
        return self.fixed_up_to is None or rows <= self.fixed_up_to


def uniform(rng: np.random.Generator) -> Values:
    """Values of every size: a random number of bits each."""

    def make(shape: Shape, bits: int) -> Words:
        words = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
        shifts = rng.integers(65 - bits, 64, size=shape, endpoint=True, dtype=np.uint64)
        signs = rng.integers(0, 2, size=shape, dtype=np.uint64)
        size = words >> shifts
        return np.where(signs == 1, np.negative(size), size)

    return make


def edges(rng: np.random.Generator) -> Values:
    """Values at the edges of what is allowed: zero, and powers of two and their neighbours, of both signs."""

    def make(shape: Shape, bits: int) -> Words:
        sizes = {0, *(abs(2**k + d) for k in range(bits) for d in (-1, 0, 1))}
        allowed = sorted(size for size in sizes if size < 2 ** (bits - 1))
        chosen = rng.choice(np.array(allowed, dtype=np.uint64), size=shape)
        signs = rng.integers(0, 2, size=shape, dtype=np.uint64)
        return np.where(signs == 1, np.negative(chosen), chosen)

    return make


def zeros(shape: Shape, bits: int) -> Words:
    """Nothing but zeros."""
    _ = bits
    return np.zeros(shape, dtype=np.uint64)


def extremes(shape: Shape, bits: int) -> Words:
    """The largest value throughout."""
    return np.full(shape, 2 ** (bits - 1) - 1, dtype=np.uint64)


def _signed(words: Words) -> Any:
    return words.view(np.int64)


def _each(operation: Op[Any]) -> Op[list[Any]]:
    result = yield from operation
    return [result]


def _local(result: Share) -> Op[list[Any]]:
    yield from ()
    return [result]


def revealed(protocol: Protocol, x: Share) -> Op[list[Exports]]:
    """A reveal, as an operation of the table runs it."""
    arrays = yield from protocol.reveal(x)
    return [Exports(arrays, x.domain, x.shape)]


@functools.cache
def _series() -> tuple[Series, Series]:
    function = sigmoid(6.0, 1e-3)
    return function, function.derivative()


def _fourier(protocol: Protocol, x: Share) -> Op[list[Share]]:
    return protocol.fourier(x, _series(), dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS)


def _fourier_cost(protocol: Protocol, x: Share) -> Cost:
    return protocol.cost("fourier", x, _series(), dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS)


def _fourier_expected(words: Words, scale: int) -> list[Words]:
    return [encode(one(decode(words, scale)), DEALT_BITS + COEFFICIENT_BITS) for one in _series()]


def _fourier_tolerance(protocol: Protocol) -> int:
    errors = union(*_series()).rounding(DEALT_BITS, COEFFICIENT_BITS)
    return math.ceil(math.ldexp(max(errors), DEALT_BITS + COEFFICIENT_BITS)) + protocol.truncation_error


def _by_words(words: Words) -> Indices:
    """The order of rows by the prefix of two words that decides where they are random."""
    number = max(words.shape[1] - 1, 0).bit_length()
    bits = max(0, 2 * number + word_order.UNLIKELY - WORD_BITS)
    lower = words[0] >> np.uint64(WORD_BITS - bits) if bits else words[0] * np.uint64(0)
    return np.lexsort((lower, words[1]))


def _sides(words: Words) -> Words:
    """Words with others above them, which are distinct in each half of the rows, as far apart as can be."""
    numbers = np.arange(words.shape[1], dtype=np.uint64) % np.uint64(max(words.shape[1] // 2, 1) + 1)
    return np.stack([words[0], numbers * np.uint64(0x9E3779B97F4A7C15)])


def _side(words: Share) -> int:
    """How many rows are the first side."""
    return words.shape[-1] // 2


def _ascon(words: Sequence[Words]) -> list[Words]:
    key, message = words
    state = [
        np.full(message.shape[1], circuits.PRF_SHORT_IV, dtype=np.uint64),
        *(np.full_like(message[0], k) for k in key),
    ]
    state += [message[0].copy(), message[1].copy()]
    for constant in circuits.ROUND_CONSTANTS:
        state[2] = state[2] ^ np.uint64(constant)
        state[0], state[4], state[2] = state[0] ^ state[4], state[4] ^ state[3], state[2] ^ state[1]
        state = [state[i] ^ (~state[(i + 1) % 5] & state[(i + 2) % 5]) for i in range(5)]
        state[1], state[0], state[3], state[2] = (
            state[1] ^ state[0],
            state[0] ^ state[4],
            state[3] ^ state[2],
            ~state[2],
        )
        turns = ((19, 28), (61, 39), (1, 6), (10, 17), (7, 41))
        state = [x ^ _rotated(x, a) ^ _rotated(x, b) for x, (a, b) in zip(state, turns, strict=True)]
    return [np.stack([state[3] ^ key[0], state[4] ^ key[1]])]


def _rotated(words: Words, by: int) -> Words:
    rotated: Words = (words >> np.uint64(by)) | (words << np.uint64(64 - by))
    return rotated


def _bits(words: Words) -> Words:
    return words.astype(np.uint64)


OPERATIONS = (
    Operation(
        name="open",
        inputs=lambda v, n: [Secret(v((n,), 64))],
        run=lambda p, s: _each(p.open(s[0])),
        expected=lambda w: [w[0]],
        cost=lambda p, s: p.cost("open", s[0]),
        openings=lambda s: s[0].size,
        discloses=True,
    ),
    Operation(
        name="open packed bits",
        inputs=lambda v, n: [Secret(v((packed_words(n),), 64), BITS)],
        run=lambda p, s: _each(p.open(s[0])),
        expected=lambda w: [w[0]],
        cost=lambda p, s: p.cost("open", s[0]),
        openings=lambda s: s[0].size,
        discloses=True,
    ),
    Operation(
        name="reveal",
        inputs=lambda v, n: [Secret(v((n,), 64))],
        run=lambda p, s: revealed(p, s[0]),
        expected=lambda w: [w[0]],
        cost=lambda p, s: p.cost("reveal", s[0]),
    ),
    Operation(
        name="add, subtract, sum, public factors and summands",
        inputs=lambda v, n: [Secret(v((2, n), 64)), Secret(v((n,), 64))],
        run=lambda p, s: _local(
            p.sum(
                p.subtract(p.mul_public(p.add(s[0], s[1]), np.arange(2, dtype=np.uint64)[:, None]), s[1]),
                axis=0,
            )
        ),
        expected=lambda w: [w[0][1] - w[1]],
        cost=lambda p, _: p.free(),
    ),
    Operation(
        name="mul",
        inputs=lambda v, n: [Secret(v((n,), 64)), Secret(v((n,), 64))],
        run=lambda p, s: _each(p.mul(s[0], s[1])),
        expected=lambda w: [w[0] * w[1]],
        cost=lambda p, s: p.cost("mul", s[0], s[1]),
    ),
    Operation(
        name="mul, (3, n) by (n,)",
        inputs=lambda v, n: [Secret(v((3, n), 64)), Secret(v((n,), 64))],
        run=lambda p, s: _each(p.mul(s[0], s[1])),
        expected=lambda w: [w[0] * w[1]],
        cost=lambda p, s: p.cost("mul", s[0], s[1]),
    ),
    Operation(
        name="AND of 64 bits",
        inputs=lambda v, n: [Secret(v((n,), 64), BITS), Secret(v((n,), 64), BITS)],
        run=lambda p, s: _each(p.mul(s[0], s[1])),
        expected=lambda w: [w[0] & w[1]],
        cost=lambda p, s: p.cost("mul", s[0], s[1]),
    ),
    Operation(
        name="matmul, (3, 5) @ (5, n)",
        inputs=lambda v, n: [Secret(v((3, 5), 62)), Secret(v((5, n), 62))],
        run=lambda p, s: _each(p.reduce(p.matmul_local(s[0], s[1]))),
        expected=lambda w: [np.matmul(w[0], w[1])],
        cost=lambda p, s: p.cost("reduce", p.spec((3, s[1].shape[1]), product=True)),
    ),
    Operation(
        name="dot over rows, (2, n) by (3, n)",
        inputs=lambda v, n: [Secret(v((2, n), 56)), Secret(v((3, n), 56))],
        run=lambda p, s: _each(p.reduce(p.dot_local(s[0], s[1]))),
        expected=lambda w: [np.matmul(w[0], w[1].T)],
        cost=lambda p, _: p.cost("reduce", p.spec((2, 3), product=True)),
        rowwise=False,
    ),
    Operation(
        name="truncate",
        inputs=lambda v, n: [Secret(v((n,), 63), scale=SCALE)],
        run=lambda p, s: _each(p.truncate(s[0], SCALE)),
        expected=lambda w: [((_signed(w[0]) + (1 << (SCALE - 1))) >> SCALE).view(np.uint64)],
        cost=lambda p, s: p.cost("truncate", s[0], SCALE),
        tolerance=lambda p: p.truncation_error,
    ),
    Operation(
        name="mul and truncate",
        inputs=lambda v, n: [Secret(v((n,), 32), scale=SCALE), Secret(v((n,), 32), scale=SCALE)],
        run=lambda p, s: _each(p.truncate(p.mul_local(s[0], s[1]), SCALE)),
        expected=lambda w: [((_signed(w[0] * w[1]) + (1 << (SCALE - 1))) >> SCALE).view(np.uint64)],
        cost=lambda p, s: p.cost("truncate", p.spec(s[0].shape, product=True), SCALE),
        tolerance=lambda p: p.truncation_error,
    ),
    Operation(
        name="nearest",
        inputs=lambda v, n: [Secret(v((n,), 62), scale=SCALE)],
        run=lambda p, s: _each(p.nearest(s[0], SCALE)),
        expected=lambda w: [((_signed(w[0]) + (1 << (SCALE - 1))) >> SCALE).view(np.uint64)],
        cost=lambda p, s: p.cost("nearest", s[0], SCALE),
    ),
    Operation(
        name="fourier, sigmoid and its slope",
        inputs=lambda v, n: [Secret(v((n,), SCALE + 3), scale=SCALE)],
        run=lambda p, s: _fourier(p, s[0]),
        expected=lambda w: _fourier_expected(w[0], SCALE),
        cost=lambda p, s: _fourier_cost(p, s[0]),
        tolerance=_fourier_tolerance,
    ),
    Operation(
        name="mul and fourier",
        inputs=lambda v, n: [
            Secret(v((n,), SCALE + 1), scale=SCALE),
            Secret(v((n,), SCALE + 3), scale=SCALE),
        ],
        run=lambda p, s: _fourier(p, p.mul_local(s[0], s[1])),
        expected=lambda w: _fourier_expected(w[0] * w[1], 2 * SCALE),
        cost=lambda p, s: _fourier_cost(p, p.spec(s[0].shape, scale=2 * SCALE, product=True)),
        tolerance=_fourier_tolerance,
    ),
    Operation(
        name="bits_to_ring",
        inputs=lambda v, n: [Secret(v((packed_words(n),), 64), BITS), Secret(zeros((n,), 64))],
        run=lambda p, s: _each(p.bits_to_ring(s[0], s[1].shape[0])),
        expected=lambda w: [bitplanes.unpack_bits(w[0], w[1].shape[0]).astype(np.uint64)],
        cost=lambda p, s: p.cost("bits_to_ring", s[0], s[1].shape[0]),
    ),
    Operation(
        name="is_negative",
        inputs=lambda v, n: [Secret(v((n,), 64))],
        run=lambda p, s: _each(p.is_negative(s[0])),
        expected=lambda w: [_bits(_signed(w[0]) < 0)],
        cost=lambda p, s: p.cost("is_negative", s[0]),
        packed=True,
    ),
    Operation(
        name="is_negative of 40 bits",
        inputs=lambda v, n: [Secret(v((n,), 40))],
        run=lambda p, s: _each(p.is_negative(s[0], 40)),
        expected=lambda w: [_bits(_signed(w[0]) < 0)],
        cost=lambda p, s: p.cost("is_negative", s[0], 40),
        packed=True,
    ),
    Operation(
        name="is_zero",
        inputs=lambda v, n: [Secret(v((n,), 64))],
        run=lambda p, s: _each(p.is_zero(s[0])),
        expected=lambda w: [_bits(w[0] == 0)],
        cost=lambda p, s: p.cost("is_zero", s[0]),
        packed=True,
    ),
    Operation(
        name="shuffle of one column of numbers and two of words",
        inputs=lambda v, n: [Secret(v((n,), 64)), Secret(v((2, n), 64), BITS)],
        run=lambda p, s: p.shuffle(s),
        expected=lambda w: w,
        cost=lambda p, s: p.cost("shuffle", s),
        unordered=True,
        rowwise=False,
    ),
    Operation(
        name="Ascon-PRFshort",
        inputs=lambda v, n: [Secret(_KEY, BITS), Secret(v((2, n), 64), BITS)],
        run=lambda p, s: _each(circuits.ascon_prf_short(p, s[0], s[1])),
        expected=_ascon,
        cost=lambda p, s: circuits.ascon_prf_short_cost(p, s[0], s[1]),
    ),
    Operation(
        name="fresh",
        inputs=lambda _, n: [Secret(zeros((n,), 64))],
        run=lambda p, s: _each(p.fresh(s[0].shape)),
        expected=lambda w: w,
        cost=lambda p, s: p.cost("fresh", s[0].shape),
        rowwise=False,
        drawn=True,
    ),
    Operation(
        name="fresh, bits of shape (2, n)",
        inputs=lambda _, n: [Secret(zeros((2, n), 64), BITS)],
        run=lambda p, s: _each(p.fresh(s[0].shape, domain=BITS)),
        expected=lambda w: w,
        cost=lambda p, s: p.cost("fresh", s[0].shape, domain=BITS),
        rowwise=False,
        drawn=True,
    ),
    Operation(
        name="sort by keys of 24 bits",
        inputs=lambda v, n: [Secret(v((n,), _SORTED_BITS)), Secret(v((2, n), 64), BITS)],
        run=lambda p, s: ranking.sort_rows(p, s, _SORTED_BITS),
        expected=lambda w: [one[..., np.argsort(_signed(w[0]), kind="stable")] for one in w],
        cost=lambda p, s: ranking.sort_rows_cost(p, s, _SORTED_BITS),
        openings=lambda s: ranking.openings(s[0].size),
        rowwise=False,
        fixed_up_to=_FEW_SORTED + 1,
    ),
    Operation(
        name="sort by two words",
        inputs=lambda v, n: [Secret(v((2, n), 64), BITS), Secret(v((n,), 64))],
        run=lambda p, s: word_order.sort_by_words(p, s),
        expected=lambda w: [one[..., _by_words(w[0])] for one in w],
        cost=lambda p, s: word_order.sort_by_words_cost(p, s),
        openings=lambda s: ranking.openings(s[0].shape[-1]),
        rowwise=False,
        fixed_up_to=_FEW_SORTED,
    ),
    Operation(
        name="sort two sides by words",
        inputs=lambda v, n: [Secret(_sides(v((2, n), 64)), BITS), Secret(v((n,), 64))],
        run=lambda p, s: word_order.sort_by_words(p, s, _side(s[0])),
        expected=lambda w: [one[..., np.argsort(w[0][1], kind="stable")] for one in w],
        cost=lambda p, s: word_order.sort_by_words_cost(p, s, _side(s[0])),
        openings=lambda s: ranking.openings(s[0].shape[-1]),
        rowwise=False,
        fixed_up_to=_FEW_SORTED,
    ),
)
"""Every operation, with its inputs, its result and its cost."""

__all__ = [
    "OPERATIONS",
    "WORD_BITS",
    "Exports",
    "Operation",
    "Secret",
    "edges",
    "extremes",
    "revealed",
    "uniform",
    "zeros",
]
