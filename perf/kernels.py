"""`kernels`: each compiled kernel against the same arithmetic in numpy, and against the speed of memory.

Blocks are as long as a tile has rows, so they lie in the caches as they do in a run; the largest exceed them.
A kernel that streams cannot take less time than a copy of as many bytes; one that computes can, and
`limit_ratio` then says how far the arithmetic is from being free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import attrs
import numpy as np

from perf.machine import WORD, copy_rate, timed
from perf.report import Measured
from tercet.protocols import bitplanes, circuits, gates, harmonics, kernels
from tercet.protocols.domains import Words
from tercet.protocols.fourier import Harmonics, sigmoid, slope, union
from tercet.protocols.prg import Stream

GBYTE = 1e9
PERIOD_BITS, DEALT_BITS = 24, 14
"""Of the Fourier kernels: the period in ring units, fractional bits of dealt values and of coefficients."""


@attrs.frozen(eq=False)
class Kernel:
    """A kernel call, what it does in numpy, the elements it works on and the bytes it has to move.

    Both calls return what they made, to be compared; None for those that have no equivalent worth comparing.
    """

    name: str
    call: Callable[[], object]
    numpy: Callable[[], object] | None
    elements: int
    bytes_moved: float
    exact: bool = True


class Bench:
    """Random operands of one length."""

    def __init__(self, elements: int) -> None:
        self.n = elements
        self.random = np.random.default_rng(3)

    def words(self, *shape: int) -> Words:
        """Uniform words."""
        return self.random.integers(0, 1 << 64, shape, dtype=np.uint64)

    def all_kernels(self) -> Iterator[Kernel]:
        """All of them, in the order of the modules."""
        yield from self.products()
        yield from self.planes()
        yield from self.permutations()
        yield from self.matrices()
        yield from self.circuits()
        yield from self.gates()
        yield from self.harmonics()
        yield from self.streams()

    def products(self) -> Iterator[Kernel]:
        """Local products, with and without a zero share."""
        n = self.n
        x0, x1, y0, y1, a, b = self.words(6, n)
        out = np.empty(n, dtype=np.uint64)
        yield Kernel(
            "mul3",
            lambda: kernels.mul3(x0, x1, y0, y1, out),
            lambda: x0 * (y0 + y1) + x1 * y0,
            n,
            5 * WORD * n,
        )
        yield Kernel(
            "mul3_zero",
            lambda: kernels.mul3_zero(x0, x1, y0, y1, a, b, out),
            lambda: x0 * (y0 + y1) + x1 * y0 + a - b,
            n,
            7 * WORD * n,
        )
        yield Kernel(
            "and3",
            lambda: kernels.and3(x0, x1, y0, y1, out),
            lambda: (x0 & (y0 ^ y1)) ^ (x1 & y0),
            n,
            5 * WORD * n,
        )
        yield Kernel(
            "and3_zero",
            lambda: kernels.and3_zero(x0, x1, y0, y1, a, b, out),
            lambda: (x0 & (y0 ^ y1)) ^ (x1 & y0) ^ a ^ b,
            n,
            7 * WORD * n,
        )

    def planes(self) -> Iterator[Kernel]:
        """Bit slicing."""
        n = self.n - self.n % 64
        words = self.words(n)

        def slice_with_numpy() -> Words:
            bits = np.unpackbits(words.view(np.uint8).reshape(n, WORD), axis=1, bitorder="little")
            return np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little").view(np.uint64)

        planes = bitplanes.to_planes(words)

        def join_with_numpy() -> Words:
            bits = np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little")
            return (
                np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
                .view(np.uint64)
                .reshape(-1)
            )

        yield Kernel("to_planes", lambda: bitplanes.to_planes(words), slice_with_numpy, n, 2 * WORD * n)
        yield Kernel(
            "to_planes, 16 bits",
            lambda: bitplanes.to_planes(words, 16),
            lambda: slice_with_numpy()[:16],
            n,
            (WORD + 2) * n,
        )
        yield Kernel(
            "from_planes", lambda: bitplanes.from_planes(planes, n), join_with_numpy, n, 2 * WORD * n
        )
        bits = self.random.integers(0, 2, n).astype(np.uint8)
        packed = bitplanes.pack_bits(bits)
        yield Kernel("pack_bits", lambda: bitplanes.pack_bits(bits), None, n, 9 / 8 * n)
        yield Kernel("unpack_bits", lambda: bitplanes.unpack_bits(packed, n), None, n, 9 / 8 * n)

    def permutations(self) -> Iterator[Kernel]:
        """Random orders, and gathers by them."""
        n, columns = self.n, 8
        random, data = self.words(n), self.words(columns, n)
        order = kernels.permutation(random)
        out = np.empty_like(data)
        yield Kernel(
            "permutation",
            lambda: kernels.permutation(random),
            lambda: np.argsort(random),
            n,
            2 * WORD * n,
            exact=False,
        )
        yield Kernel(
            "take_columns, 8 columns",
            lambda: kernels.take_columns(data, order, out),
            lambda: np.take(data, order, axis=1),
            n,
            (2 * columns + 1) * WORD * n,
        )

    def matrices(self) -> Iterator[Kernel]:
        """Ring products: of square matrices, of weights and a table, of a table with itself over rows."""
        side = max(2, round((2 * self.n) ** (1 / 3)) & ~1)
        a, b, c, d = self.words(4, side, side)
        multiplications = side**3
        least = 3 * WORD * side**2
        yield Kernel(
            f"ring_matmul, {side}x{side}x{side}",
            lambda: kernels.ring_matmul(a, b),
            lambda: a @ b,
            multiplications,
            least,
        )
        yield Kernel(
            f"matmul3, {side}x{side}x{side}",
            lambda: kernels.matmul3(a, b, c, d),
            lambda: a @ (c + d) + b @ c,
            2 * multiplications,
            5 * WORD * side**2,
        )
        n, features = self.n, 10
        w0, w1 = self.words(2, 1, features)
        x0, x1 = self.words(2, features, n)
        table = 2 * features * WORD * n
        yield Kernel(
            "matmul3, 1x10 by 10xn",
            lambda: kernels.matmul3(w0, w1, x0, x1),
            lambda: w0 @ (x0 + x1) + w1 @ x0,
            2 * features * n,
            table + WORD * n,
        )
        r0, r1 = self.words(2, 1, n)
        yield Kernel(
            "dot3, 10xn by nx1",
            lambda: kernels.dot3(x0, x1, r0, r1),
            lambda: x0 @ (r0 + r1).T + x1 @ r0.T,
            2 * features * n,
            table + 2 * WORD * n,
        )
        yield Kernel(
            "dot3, 10xn by nx10",
            lambda: kernels.dot3(x0, x1, x0, x1),
            lambda: x0 @ (x0 + x1).T + x1 @ x0.T,
            2 * features**2 * n,
            table,
        )
        yield Kernel(
            "ring_dot, 10xn by nx10",
            lambda: kernels.ring_dot(x0, x1),
            lambda: x0 @ x1.T,
            features**2 * n,
            table,
        )

    def circuits(self) -> Iterator[Kernel]:
        """One-hot nibbles, and their leaves; a word of planes is 64 elements."""
        words = max(1, self.n // 64)
        groups, one_hot = 16, circuits.ONE_HOT
        planes = self.words(64, words)
        hot = np.empty((one_hot * groups, words), dtype=np.uint64)
        generate, propagate = np.empty((2, groups, words), dtype=np.uint64)
        n = 64 * words
        per_word = WORD * words
        yield Kernel(
            "nibble_one_hot",
            lambda: circuits.nibble_one_hot(planes, hot),
            None,
            n,
            (64 + one_hot * groups) * per_word,
        )
        yield Kernel(
            "nibble_carry_leaves",
            lambda: circuits.nibble_carry_leaves(hot, planes, True, generate, propagate),
            None,
            n,
            (64 + one_hot * groups + 2 * groups) * per_word,
        )
        yield Kernel(
            "nibble_equal_leaves",
            lambda: circuits.nibble_equal_leaves(hot, planes, True, generate),
            None,
            n,
            (64 + one_hot * groups + groups) * per_word,
        )

    def gates(self) -> Iterator[Kernel]:
        """Masked-opening gates, as their dealer and as the party that adds public terms."""
        n = self.n
        for name, gate in (("truncation", gates.Truncation(16)), ("bits to ring", gates.BitsToRing())):
            opened = self.words(gate.opened(n))
            half, out = self.words(gate.dealt, n), np.empty((gate.results, n), dtype=np.uint64)
            yield Kernel(
                f"{name}, deal", _deal(gate, opened, half), None, n, WORD * (opened.size + 2 * half.size)
            )
            yield Kernel(
                f"{name}, combine",
                _combine(gate, opened, half, out),
                None,
                n,
                WORD * (opened.size + half.size + n),
            )

    def harmonics(self) -> Iterator[Kernel]:
        """The sigmoid alone, and with its slope."""
        n = self.n
        plain = sigmoid(12.0, 1e-3)
        for name, series in (("sigmoid", (plain,)), ("sigmoid and slope", (plain, slope(plain)))):
            functions = union(*series)
            count = len(functions.harmonics)
            masks, dealt = self.words(n), self.words(functions.dealt, n)
            out = np.empty((len(series), n), dtype=np.uint64)
            title = f"{name}, {count} harmonics"
            yield Kernel(
                f"deal_harmonics, {title}",
                _deal_harmonics(functions, masks, dealt),
                _deal_harmonics_with_numpy(functions, masks),
                n,
                WORD * n * (1 + 4 * count),
                exact=False,
            )
            yield Kernel(
                f"combine_harmonics, {title}",
                _combine_harmonics(functions, masks, dealt, out),
                None,
                n,
                WORD * n * (1 + 2 * count + len(series)),
            )

    def streams(self) -> Iterator[Kernel]:
        """Pseudorandom words."""
        n = self.n
        out = np.empty(n, dtype=np.uint64)
        generator = np.random.Generator(np.random.SFC64(1))
        key = hashlib.sha256(b"perf").digest()
        yield Kernel(
            "stream, AES-128 in counter mode",
            lambda: Stream(key, b"perf").fill(out),
            lambda: generator.integers(0, 1 << 64, n, dtype=np.uint64),
            n,
            WORD * n,
            exact=False,
        )


def _deal(gate: gates.Gate, opened: Words, half: Words) -> Callable[[], object]:
    return lambda: gate.deal(opened, half)


def _combine(gate: gates.Gate, opened: Words, half: Words, out: Words) -> Callable[[], object]:
    return lambda: gate.combine(opened, half, out, first=True)


def _deal_harmonics(functions: Harmonics, masks: Words, dealt: Words) -> Callable[[], object]:
    return lambda: harmonics.deal_harmonics(masks, PERIOD_BITS, functions.harmonics, DEALT_BITS, dealt)


def _deal_harmonics_with_numpy(functions: Harmonics, masks: Words) -> Callable[[], object]:
    def deal() -> object:
        angles = masks * (2 * np.pi / 2**PERIOD_BITS)
        turned = np.multiply.outer(np.array(functions.harmonics), angles)
        return np.rint(2**DEALT_BITS * np.cos(turned)), np.rint(2**DEALT_BITS * np.sin(turned))

    return deal


def _combine_harmonics(functions: Harmonics, opened: Words, dealt: Words, out: Words) -> Callable[[], object]:
    weights, constants = functions.weights(), functions.constants(2 * DEALT_BITS)

    def combine() -> object:
        return harmonics.combine_harmonics(
            opened, dealt, PERIOD_BITS, functions.harmonics, *weights, DEALT_BITS, constants, out
        )

    return combine


def run(elements: int, repeat: int) -> list[Measured]:
    """Measure every kernel; `speedup` is over numpy."""
    rate = copy_rate()
    return [_measure(kernel, repeat, rate) for kernel in Bench(elements).all_kernels()]


def _measure(kernel: Kernel, repeat: int, rate: float) -> Measured:
    seconds = timed(kernel.call, repeat=repeat)
    speedup = error = None
    if kernel.numpy is not None:
        speedup = timed(kernel.numpy, repeat=max(1, repeat // 3)) / seconds
        if kernel.exact:
            error = float(np.count_nonzero(np.asarray(kernel.call()) != np.asarray(kernel.numpy())))
    return Measured(
        name=kernel.name,
        seconds=seconds,
        limit_ratio=seconds / (kernel.bytes_moved / rate),
        error=error,
        error_of=None if error is None else "words that differ from numpy's",
        speedup=speedup,
        more={
            "ns_per_element": seconds / kernel.elements * 1e9,
            "gb_per_second": kernel.bytes_moved / seconds / GBYTE,
        },
    )
