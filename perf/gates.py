"""`gates`: single operations on a million elements, as plans over stored inputs whose results are stored.

Dealing the inputs is not measured, nor is anything that a plan carries besides its operation. Results stay
secret; a sample of them is revealed by a plan of its own and compared with the same operation in the clear.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

import tercet
from perf.lakes import Conditions, drop, open_lake, repeat
from perf.machine import WORD, copy_rate, socket_cost
from perf.report import Measured
from tercet.plans import Builder, Form, Type, Value, sigmoid
from tercet.plans.results import RunResult
from tercet.plans.types import bind_shape, word_shape
from tercet.protocols.bitplanes import pack_bits
from tercet.protocols.domains import Words, encode

SAMPLE = 4096
SCALE = 16
SIGMOID_BOUND = 12.0
SIGMOID_ERROR = 1e-3
DEALT_BITS, COEFFICIENT_BITS = 20, 20
"""So many that rounding adds 10^-5 at most to the error of the series."""

Clear = npt.NDArray[np.float64]


@attrs.frozen(eq=False)
class Gate:
    """One operation: values to deal, how a plan computes it, and what a sample of the result should be.

    `expected` is given the clear inputs and the positions of sampled rows; without it the result is checked
    as a whole, by `sums` of the result and of the inputs (a shuffle moves rows to where nobody knows).
    """

    name: str
    inputs: Sequence[tuple[Type, Words]]
    compute: Callable[..., Value]
    expected: Callable[[npt.NDArray[np.int64]], Clear] | None = None
    sums: Callable[[Value], Value] | None = None
    error_of: str = "largest difference on a sample, in units of the last place"
    unit: float = 1.0


def integers(
    random: np.random.Generator, shape: tuple[int, ...], bits: int, *, scale: int = 0
) -> tuple[Type, Words]:
    """Uniform stored integers of so many bits and a sign."""
    words = random.integers(-(1 << bits), 1 << bits, shape)
    return Type(Form.RING, shape, scale, 2.0**bits), words.view(np.uint64)


def clear(words: Words, scale: int = 0) -> Clear:
    """What words stand for."""
    return np.ldexp(words.view(np.int64).astype(np.float64), -scale)


def all_gates(elements: int) -> list[Gate]:
    """The operations, on `elements` elements each."""
    random = np.random.default_rng(1)
    n, side = elements, max(2, round(math.sqrt(elements)))
    return [
        _products(random, n),
        _fixed_products(random, n),
        _comparisons(random, n),
        _equalities(random, n),
        _sigmoids(random, n),
        _conversions(random, n),
        _shuffle(random, n),
        _matmul(random, f"matmul {side}x{side}x{side}", side, side, side),
        _matmul(random, f"matmul {n}x10 by 10x1", 1, 10, n),
    ]


def _products(random: np.random.Generator, n: int) -> Gate:
    (kind, x), (_, y) = (integers(random, (n,), 25) for _ in range(2))
    return Gate("mul", [(kind, x), (kind, y)], lambda a, b: a * b, lambda i: clear((x * y)[i]))


def _fixed_products(random: np.random.Generator, n: int) -> Gate:
    (kind, x), (_, y) = (integers(random, (n,), 26, scale=SCALE) for _ in range(2))
    return Gate(
        "fixed-point mul",
        [(kind, x), (kind, y)],
        lambda a, b: (a * b).rescale(SCALE),
        lambda i: clear(x[i], SCALE) * clear(y[i], SCALE),
        unit=2.0**-SCALE,
    )


def _comparisons(random: np.random.Generator, n: int) -> Gate:
    (kind, x), (_, y) = (integers(random, (n,), 61) for _ in range(2))
    x[: n // 8] = y[: n // 8]  # neighbours and equals are where a comparison goes wrong
    x[: n // 16] += np.uint64(1)
    return Gate(
        "lt",
        [(kind, x), (kind, y)],
        lambda a, b: (a - b).is_negative(64),
        lambda i: (x.view(np.int64) < y.view(np.int64))[i].astype(np.float64),
        error_of="largest difference on a sample",
    )


def _equalities(random: np.random.Generator, n: int) -> Gate:
    (kind, x), (_, y) = (integers(random, (n,), 61) for _ in range(2))
    x[: n // 2] = y[: n // 2]
    x[: n // 4] += np.uint64(1) << random.integers(0, 61, n // 4).astype(np.uint64)
    return Gate(
        "eq",
        [(kind, x), (kind, y)],
        lambda a, b: (a - b).is_zero(),
        lambda i: (x == y)[i].astype(np.float64),
        error_of="largest difference on a sample",
    )


def _sigmoids(random: np.random.Generator, n: int) -> Gate:
    reals = random.uniform(-SIGMOID_BOUND, SIGMOID_BOUND, n)
    x = encode(reals, SCALE)
    series = sigmoid(SIGMOID_BOUND, SIGMOID_ERROR)

    def compute(a: Value) -> Value:
        return a.fourier(series, dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS)[0]

    return Gate(
        "sigmoid",
        [(Type(Form.RING, (n,), SCALE, SIGMOID_BOUND * 2.0**SCALE), x)],
        compute,
        lambda i: 1 / (1 + np.exp(-reals[i])),
        error_of=f"largest difference on a sample, |x| <= {SIGMOID_BOUND:g}",
    )


def _conversions(random: np.random.Generator, n: int) -> Gate:
    bits = random.integers(0, 2, n).astype(np.uint8)
    return Gate(
        "bit-to-arithmetic",
        [(Type(Form.BITS, (n,)), pack_bits(bits))],
        lambda a: a.to_ring(),
        lambda i: bits[i].astype(np.float64),
        error_of="largest difference on a sample",
    )


def _shuffle(random: np.random.Generator, n: int) -> Gate:
    kind, x = integers(random, (8, n), 15)
    return Gate(
        f"shuffle {n}x8",
        [(kind, x)],
        lambda a: a.builder.apply("shuffle", a),
        sums=lambda a: a.dot(a, magnitude=2.0**30 * n),
        error_of="largest difference of a cross moment of two columns",
    )


def _matmul(random: np.random.Generator, name: str, m: int, k: int, n: int) -> Gate:
    (left, a), (right, b) = integers(random, (m, k), 18), integers(random, (k, n), 18)
    return Gate(name, [(left, a), (right, b)], lambda x, y: x @ y, lambda i: clear(a @ b[:, i]))


# -- running them ----------------------------------------------------------------------------------------


@attrs.frozen
class Limits:
    """What this machine can do.

    Bytes a second that a core copies, seconds of a core that a byte takes through a socket, and cores.
    """

    copied: float
    sent: float
    cores: int

    @classmethod
    def measure(cls) -> Limits:
        """Measure them."""
        return cls(copy_rate(), socket_cost(), len(os.sched_getaffinity(0)))

    def stream(self, shares: float, messages: float) -> float:
        """Seconds in which one core streams what one party has to touch: shares, and messages both ways."""
        return (shares + 2 * messages) / self.copied

    def shared(self, shares: float, messages: float, parties: int) -> float:
        """Seconds in which all parties stream their shares and send their messages, sharing the cores."""
        return parties * (shares / self.copied + messages * self.sent) / min(self.cores, parties)


def minimal_bytes(gate: Gate, stored: Type, result: RunResult, held: int) -> tuple[float, float]:
    """The least that one party has to touch: its shares of inputs and results, and what it sends.

    A party holds `held` words of every shared one. Messages are those of a mean party. Randomness is not
    counted: it is drawn in the cache.
    """
    kinds = [kind for kind, _ in gate.inputs] + [stored]
    words = sum(math.prod(word_shape(kind, {})) for kind in kinds)
    return held * WORD * words, sum(result.bytes_sent) / len(result.bytes_sent)


async def run(elements: int, conditions: Conditions, only: Sequence[str] = ()) -> list[Measured]:
    """Measure every gate whose name contains one of `only`, or all."""
    gates = [gate for gate in all_gates(elements) if not only or any(part in gate.name for part in only)]
    return await measure(gates, conditions)


async def measure(gates: Sequence[Gate], conditions: Conditions) -> list[Measured]:
    """Measure some gates, one after the other, on one lake."""
    limits = Limits.measure()
    async with open_lake(conditions) as lake:
        return [await _measure(lake, gate, conditions, limits) for gate in gates]


async def _measure(lake: tercet.AsyncLake, gate: Gate, conditions: Conditions, limits: Limits) -> Measured:
    client = lake.cluster.client
    handles = [lake.handle(f"{gate.name}.input") for _ in gate.inputs]
    for handle, (kind, words) in zip(handles, gate.inputs, strict=True):
        await client.put(handle, kind, words)

    def inputs(builder: Builder) -> list[Value]:
        return [builder.input(handle, kind) for handle, (kind, _) in zip(handles, gate.inputs, strict=True)]

    async def compute() -> RunResult:
        builder = lake.builder(gate.name)
        gate.compute(*inputs(builder)).store(lake.handle(gate.name))
        return await lake.run(builder.plan())

    spent = await repeat(lake, compute, conditions, forget=lambda result: list(result.stored))
    result: RunResult = spent.result
    ((handle, stored),) = result.stored.items()
    seconds = spent.plan_seconds
    least = minimal_bytes(gate, stored, result, client.protocol.held)
    error = await _error(lake, gate, handle, stored, inputs)
    await drop(lake, [*handles, handle])
    kinds = [kind for kind, _ in gate.inputs] + [stored]
    elements = max(math.prod(bind_shape(kind.shape, {})) for kind in kinds)
    return Measured(
        name=gate.name,
        seconds=seconds,
        rounds=result.rounds,
        bytes_per_party=spent.bytes_per_party,
        limit_ratio=seconds / limits.stream(*least),
        peak_rss_mb=spent.peak_rss_mb,
        error=error,
        error_of=gate.error_of,
        more={
            "shared_limit_ratio": seconds / limits.shared(*least, client.parties),
            "bytes_per_element": spent.bytes_per_party / elements,
        },
    )


async def _error(
    lake: tercet.AsyncLake, gate: Gate, handle: str, stored: Type, inputs: Callable[[Builder], list[Value]]
) -> float:
    """How far the stored result is from what it should be."""
    builder = lake.builder(f"check {gate.name}")
    found = builder.input(handle, stored)
    if gate.expected is None:
        assert gate.sums is not None
        gate.sums(found).reveal("found", to="analyst")
        (given,) = inputs(builder)
        gate.sums(given).reveal("expected", to="analyst")
        result = await lake.run(builder.plan())
        return _largest(result.revealed["found"] - result.revealed["expected"])
    rows = int(stored.rows)
    positions = np.sort(np.random.default_rng(2).choice(rows, min(rows, SAMPLE), replace=False))
    whole = found.to_ring() if stored.form is Form.BITS else found
    builder.apply("take", whole, builder.constant(positions[None]), table=0).reveal("sample", to="analyst")
    result = await lake.run(builder.plan())
    return _largest(result.revealed["sample"] - gate.expected(positions)) / gate.unit


def _largest(difference: Any) -> float:
    return float(np.max(np.abs(difference)))
