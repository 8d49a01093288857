"""Arithmetic on blocks of 64-bit words, compiled for the machine it runs on.

Everything here is a pure function of arrays: no shares, no parties, no randomness of its own. The protocols
say what is computed; this module says how to do it at the speed of the memory, without temporaries of full
length and without the GIL, so that worker threads of one party run side by side. Arrays are C-contiguous
uint64 (inputs may be read-only or unaligned, as received buffers are), the last axis counts rows, and all
arithmetic wraps modulo 2^64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.compiled import INT64, UINT64, Array, inline, instruction, kernel

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def words_in(ndim: int) -> Array:
    """The type of an input of words: may be read-only or unaligned."""
    return Array(UINT64, ndim, readonly=True, aligned=False)


def words_out(ndim: int) -> Array:
    """The type of an output of words."""
    return Array(UINT64, ndim)


IN, IN2, OUT, OUT2 = words_in(1), words_in(2), words_out(1), words_out(2)
INDEX_IN = Array(INT64, 1, readonly=True)
INDEX_OUT = Array(INT64, 1)


def _flat(*arrays: Words, out: Words) -> list[Words]:
    """All arrays, `out` last, as one axis; refuses unlike sizes and an `out` that is not contiguous."""
    if not out.flags.c_contiguous or any(array.size != out.size for array in arrays):
        shapes = [array.shape for array in (*arrays, out)]
        raise ValueError(f"arrays of shapes {shapes}: sizes must agree and the output be contiguous")
    return [array.reshape(-1) for array in (*arrays, out)]


# -------------------------------------------------------------------- permutations


@kernel(IN, INDEX_OUT)
def _fisher_yates(random: Words, index: Indices) -> None:
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    n = index.shape[0]
    for i in range(n):
        index[i] = i
    for i in range(n - 1, 0, -1):
        # The high word of random * (i + 1), from halves: exact while i + 1 < 2^32.
        span = np.uint64(i + 1)
        word = random[i]
        j = np.int64(((word >> half) * span + (((word & low) * span) >> half)) >> half)
        index[i], index[j] = index[j], index[i]


def permutation(random: Words, out: Indices | None = None) -> Indices:
    """A permutation of range(n) from n uniform words, uniform to within n^2 / 2^64 (Fisher and Yates)."""
    if random.size >= 1 << 32:
        raise ValueError(f"a permutation of {random.size} elements needs ranges beyond 32 bits")
    index = np.empty(random.size, dtype=np.int64) if out is None else out
    if index.shape != (random.size,):
        raise ValueError(f"a permutation of {random.size} elements does not fit {index.shape}")
    _fisher_yates(random.reshape(-1), index)
    return index


@kernel(INDEX_IN, INT64)
def _inside(index: Indices, n: int) -> bool:
    size = np.uint64(n)
    inside = True
    for i in range(index.shape[0]):
        inside = inside & bool(np.uint64(index[i]) < size)
    return inside


@kernel(IN2, INDEX_IN, OUT2)
def _take(data: Words, index: Indices, out: Words) -> None:
    for row in range(data.shape[0]):
        source, target = data[row, :], out[row, :]
        for i in range(index.shape[0]):
            target[i] = source[np.uint64(index[i])]


def take_columns(data: Words, index: Indices, out: Words | None = None) -> Words:
    """`data[:, index]`, [k, n] to [k, m]: 24 bytes moved an element, 8 of them at random."""
    shape = (data.shape[0], index.size)
    if out is None:
        out = np.empty(shape, dtype=np.uint64)
    # Checks that keep the kernel inside its arrays.
    if out.shape != shape:
        raise ValueError(f"a gather of {index.size} columns from {data.shape} does not fit {out.shape}")
    if not _inside(index, data.shape[1]):
        raise IndexError(f"a column number lies outside the {data.shape[1]} columns there are")
    _take(data, index, out)
    return out


# -------------------------------------------------------------------- local products


@kernel(IN, IN, IN, IN, OUT)
def _mul3(x0: Words, x1: Words, y0: Words, y1: Words, out: Words) -> None:
    for i in range(out.shape[0]):
        out[i] = x0[i] * (y0[i] + y1[i]) + x1[i] * y0[i]


@kernel(IN, IN, IN, IN, IN, IN, OUT)
def _mul3_zero(x0: Words, x1: Words, y0: Words, y1: Words, a: Words, b: Words, out: Words) -> None:
    for i in range(out.shape[0]):
        out[i] = x0[i] * (y0[i] + y1[i]) + x1[i] * y0[i] + a[i] - b[i]


@kernel(IN, IN, IN, IN, OUT)
def _and3(x0: Words, x1: Words, y0: Words, y1: Words, out: Words) -> None:
    for i in range(out.shape[0]):
        out[i] = (x0[i] & (y0[i] ^ y1[i])) ^ (x1[i] & y0[i])


@kernel(IN, IN, IN, IN, IN, IN, OUT)
def _and3_zero(x0: Words, x1: Words, y0: Words, y1: Words, a: Words, b: Words, out: Words) -> None:
    for i in range(out.shape[0]):
        out[i] = (x0[i] & (y0[i] ^ y1[i])) ^ (x1[i] & y0[i]) ^ a[i] ^ b[i]


def mul3(x0: Words, x1: Words, y0: Words, y1: Words, out: Words) -> Words:
    """One party's part of a replicated product, `x0 y0 + x0 y1 + x1 y0`: moves 40 bytes an element."""
    _mul3(*_flat(x0, x1, y0, y1, out=out))
    return out


def mul3_zero(x0: Words, x1: Words, y0: Words, y1: Words, a: Words, b: Words, out: Words) -> Words:
    """`mul3` plus a zero share `a - b` of stream buffers; out may be one of them. 56 bytes an element."""
    _mul3_zero(*_flat(x0, x1, y0, y1, a, b, out=out))
    return out


def and3(x0: Words, x1: Words, y0: Words, y1: Words, out: Words) -> Words:
    """One party's part of a replicated AND, `x0 y0 ^ x0 y1 ^ x1 y0`: 40 bytes a word."""
    _and3(*_flat(x0, x1, y0, y1, out=out))
    return out


def and3_zero(x0: Words, x1: Words, y0: Words, y1: Words, a: Words, b: Words, out: Words) -> Words:
    """`and3` with zero share `a ^ b` of stream buffers; out may be one of them. 56 bytes a word."""
    _and3_zero(*_flat(x0, x1, y0, y1, a, b, out=out))
    return out


@kernel(IN, IN, IN, IN, IN, IN, OUT2, INT64, INT64)
def _quad_mul(
    x0: Words, x1: Words, x2: Words, y0: Words, y1: Words, y2: Words, z: Words, start: int, stop: int
) -> None:
    z0, z1, z2 = z[0], z[1], z[2]
    for i in range(start, stop):
        z0[i] = x2[i] * (y2[i] + y1[i]) + x1[i] * y2[i]
        z1[i] = x0[i] * y2[i] + x2[i] * y0[i]
        z2[i] = x1[i] * (y1[i] + y0[i]) + x0[i] * y1[i]


@kernel(IN, IN, IN, IN, IN, IN, OUT2, INT64, INT64)
def _quad_and(
    x0: Words, x1: Words, x2: Words, y0: Words, y1: Words, y2: Words, z: Words, start: int, stop: int
) -> None:
    z0, z1, z2 = z[0], z[1], z[2]
    for i in range(start, stop):
        z0[i] = (x2[i] & (y2[i] ^ y1[i])) ^ (x1[i] & y2[i])
        z1[i] = (x0[i] & y2[i]) ^ (x2[i] & y0[i])
        z2[i] = (x1[i] & (y1[i] ^ y0[i])) ^ (x0[i] & y1[i])


def quad_products(x: Words, y: Words, out: Words, *, bits: bool) -> Callable[[int, int], None]:
    """What makes runs of one party's part of a product among four, of three components of each (see `rep4`).

    Summands `x2 (y2 + y1) + x1 y2`, `x0 y2 + x2 y0` and `x1 (y1 + y0) + x0 y1`, for elements from start to
    stop. Moves 72 bytes an element.
    """
    if not x.shape == y.shape == out.shape or x.shape[0] != 3:
        raise ValueError(f"factors of shapes {x.shape} and {y.shape} do not fit a product of {out.shape}")
    a, b = ([np.ascontiguousarray(component).reshape(-1) for component in factor] for factor in (x, y))
    kernel_of_domain = _quad_and if bits else _quad_mul
    return functools.partial(kernel_of_domain, a[0], a[1], a[2], b[0], b[1], b[2], out.reshape(3, -1))


# -------------------------------------------------------------------- matrices

TERMS, COLUMNS = 64, 512
"""A block of the right factor, 256 KiB: it stays in cache for all rows of the left factor."""
ROWS = 4
"""Rows of a panel: a part of the product that stays in registers while terms are added to it."""


def _vectors(context: Any) -> tuple[int, int]:
    """How many vectors a row of a panel has, and how many words a vector; none where that gains nothing.

    Vectors of 512 bits are asked for by name here: in loops that it vectorises itself, LLVM uses 256 bits on
    many processors that have longer ones.
    """
    features = context.codegen().magic_tuple()[2].split(",")  # kernels are cached by them too
    if "+avx512dq" in features:  # multiplies words, and comes with 32 registers
        return 4, 8
    return (2, 4) if "+avx2" in features else (0, 0)


@instruction
def _panel_columns(_context: Any) -> Any:
    """Columns of a panel; 0 on processors that have none."""
    from numba import types

    def emit(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        count, lanes = _vectors(context)
        return context.get_constant(types.int64, count * lanes)

    return types.int64(), emit


@instruction
def _add_to_panel(_context: Any, a: Any, b: Any, out: Any, i: Any, j: Any, first: Any, last: Any) -> Any:
    """Add the product of rows of a, from i on, and of columns of b, from j on, to the panel of out there.

    Terms are those from first to last. Whoever calls it has checked that the panel lies inside.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count, lanes = _vectors(context)
        if not count:
            return context.get_dummy_value()
        vector, lane = ir.VectorType(ir.IntType(64), lanes), ir.IntType(32)
        lanes_of_first = ir.Constant(ir.VectorType(lane, lanes), [0] * lanes)
        left, right, product = (
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args[:3], arguments[:3], strict=True)
        )
        row, column, begin, end = arguments[3:]

        def address(array: Any, i: Any, j: Any) -> Any:
            width = builder.extract_value(array.shape, 1)
            return builder.gep(array.data, [builder.add(builder.mul(i, width), j)])

        def vectors(array: Any, i: Any) -> list[Any]:
            starts = [builder.add(column, column.type(lanes * k)) for k in range(count)]
            return [builder.bitcast(address(array, i, j), vector.as_pointer()) for j in starts]

        def spread(value: Any) -> Any:
            single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, lane(0))
            return builder.shuffle_vector(single, single, lanes_of_first)

        rows = [builder.add(row, row.type(k)) for k in range(ROWS)]
        places = [vectors(product, i) for i in rows]
        with builder.goto_entry_block():  # LLVM turns what is allocated there into registers
            sums = [[builder.alloca(vector) for _ in line] for line in places]
        both = [pair for lines in zip(places, sums, strict=True) for pair in zip(*lines, strict=True)]
        for place, total in both:
            builder.store(builder.load(place, align=8), total)
        with cgutils.for_range_slice(builder, begin, end, begin.type(1)) as (k, _):
            terms = [builder.load(place, align=1) for place in vectors(right, k)]  # inputs may be unaligned
            for i, line in zip(rows, sums, strict=True):
                factor = spread(builder.load(address(left, i, k), align=1))
                for total, term in zip(line, terms, strict=True):
                    builder.store(builder.add(builder.load(total), builder.mul(factor, term)), total)
        for place, total in both:
            builder.store(builder.load(total), place, align=8)
        return context.get_dummy_value()

    return types.void(a, b, out, i, j, first, last), emit


@inline
def _add_pairs(
    a: Words, b: Words, out: Words, i: int, below: int, start: int, stop: int, first: int, last: int
) -> None:
    """Add terms from first to last to rows `i:below` and columns `start:stop`, two rows by four terms."""
    width = stop - start
    for top in range(i, below, 2):
        pair = top + 1 if top + 1 < below else top
        s, t = out[top, start:stop], out[pair, start:stop]
        k = first
        while k + 4 <= last:
            b0, b1 = b[k, start:stop], b[k + 1, start:stop]
            b2, b3 = b[k + 2, start:stop], b[k + 3, start:stop]
            v0, v1, v2, v3 = a[top, k], a[top, k + 1], a[top, k + 2], a[top, k + 3]
            w0, w1, w2, w3 = a[pair, k], a[pair, k + 1], a[pair, k + 2], a[pair, k + 3]
            if pair == top:
                for j in range(width):
                    s[j] += v0 * b0[j] + v1 * b1[j] + v2 * b2[j] + v3 * b3[j]
            else:
                for j in range(width):
                    s[j] += v0 * b0[j] + v1 * b1[j] + v2 * b2[j] + v3 * b3[j]
                    t[j] += w0 * b0[j] + w1 * b1[j] + w2 * b2[j] + w3 * b3[j]
            k += 4
        for rest in range(k, last):
            for row in range(top, pair + 1):
                w0 = a[row, rest]
                s, b0 = out[row, start:stop], b[rest, start:stop]
                for j in range(width):
                    s[j] += w0 * b0[j]


@kernel(IN2, IN2, OUT2)
def _matmul(a: Words, b: Words, out: Words) -> None:
    """`out += a @ b` in panels, the rest in pairs, over blocks of b that are read from memory once."""
    m, terms = a.shape
    n, columns = b.shape[1], _panel_columns()
    for first in range(0, terms, TERMS):
        last = min(first + TERMS, terms)
        for start in range(0, n, COLUMNS):
            stop = min(start + COLUMNS, n)
            below, right = 0, start  # where panels end
            if columns > 0 and m >= ROWS and stop - start >= columns:
                below, right = m - m % ROWS, stop - (stop - start) % columns
            for i in range(0, below, ROWS):
                for j in range(start, right, columns):
                    _add_to_panel(a, b, out, i, j, first, last)
            if right < stop:
                _add_pairs(a, b, out, 0, below, right, stop, first, last)
            if below < m:
                _add_pairs(a, b, out, below, m, start, stop, first, last)


@inline
def _dot_block(xs: Words, y: Words, start: int, out: Words) -> None:
    """Add to out the products of one row xs with the columns `start:start + len(xs)` of all rows of y."""
    stop = start + xs.shape[0]
    zero = np.uint64(0)
    j = 0
    while j + 4 <= y.shape[0]:
        y0, y1, y2, y3 = y[j, start:stop], y[j + 1, start:stop], y[j + 2, start:stop], y[j + 3, start:stop]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for r in range(xs.shape[0]):
            s0 += xs[r] * y0[r]
            s1 += xs[r] * y1[r]
            s2 += xs[r] * y2[r]
            s3 += xs[r] * y3[r]
        out[j] += s0
        out[j + 1] += s1
        out[j + 2] += s2
        out[j + 3] += s3
        j += 4
    while j < y.shape[0]:
        y0 = y[j, start:stop]
        s0 = zero
        for r in range(xs.shape[0]):
            s0 += xs[r] * y0[r]
        out[j] += s0
        j += 1


@inline
def _dot_rows(d: int, e: int) -> int:
    """Rows of a block that stay in cache."""
    return min(4096, max(256, 32768 // (d + e + 1)))


@kernel(IN2, IN2, OUT2)
def _dot(x: Words, y: Words, out: Words) -> None:
    """`out += x @ y.T` in blocks of rows."""
    rows, block = x.shape[1], _dot_rows(*out.shape)
    for start in range(0, rows, block):
        for i in range(x.shape[0]):
            _dot_block(x[i, start : min(start + block, rows)], y, start, out[i])


@kernel(IN2, IN2, IN2, IN2, OUT2)
def _dot3(x0: Words, x1: Words, y0: Words, y1: Words, out: Words) -> None:
    """`out += x0 @ (y0 + y1).T + x1 @ y0.T` in blocks of rows."""
    rows, block = x0.shape[1], _dot_rows(*out.shape)
    summed = np.empty(block, dtype=np.uint64)
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        for i in range(x0.shape[0]):
            left = x0[i, start:stop]
            for r in range(stop - start):
                summed[r] = left[r] + x1[i, start + r]
            _dot_block(summed[: stop - start], y0, start, out[i])
            _dot_block(left, y1, start, out[i])


def _fits(a: Words, b: Words, axis: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[axis]:
        raise ValueError(f"matrices of shapes {a.shape} and {b.shape} do not fit each other")


def ring_matmul(a: Words, b: Words) -> Words:
    """The product of a [m, k] and b [k, n] modulo 2^64, any shape, without temporaries.

    Streams b once. Integer arithmetic throughout: exact float64 BLAS, with three limbs of 22 bits a word and
    six products of limbs, was measured to be slower from 64 to 1000 rows and columns.
    """
    _fits(a, b, 0)
    out = np.zeros((a.shape[0], b.shape[1]), dtype=np.uint64)
    _matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
    return out


def add_matmul(a: Words, b: Words, out: Words) -> None:
    """Add the product of a [m, k] and b [k, n] modulo 2^64 to out, as `ring_matmul` makes it."""
    _fits(a, b, 0)
    if out.shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"a product of {a.shape} and {b.shape} does not fit {out.shape}")
    _matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), out)


def matmul3(x0: Words, x1: Words, y0: Words, y1: Words) -> Words:
    """One party's part of a replicated matrix product, `x0 @ (y0 + y1) + x1 @ y0`.

    Streams y0 and y1 once; the only temporary is a sum of the smaller factor.
    """
    _fits(x0, y0, 0)
    x0, x1, y0, y1 = (np.ascontiguousarray(factor) for factor in (x0, x1, y0, y1))
    out = np.zeros((x0.shape[0], y0.shape[1]), dtype=np.uint64)
    a, b = (x0 + x1, y0), (x0, y1)
    if x0.size > y0.size:
        a, b = (x0, y0 + y1), (x1, y0)
    _matmul(*a, out)
    _matmul(*b, out)
    return out


def ring_dot(x: Words, y: Words) -> Words:
    """`x @ y.T` modulo 2^64 for x [d, n] and y [e, n]: contracts over rows, in blocks that stay in cache."""
    _fits(x, y, 1)
    if x.shape[0] > y.shape[0]:  # the kernel shares the loads of its first factor
        return np.ascontiguousarray(ring_dot(y, x).T)
    out = np.zeros((x.shape[0], y.shape[0]), dtype=np.uint64)
    _dot(np.ascontiguousarray(x), np.ascontiguousarray(y), out)
    return out


def dot3(x0: Words, x1: Words, y0: Words, y1: Words) -> Words:
    """One party's part of a replicated `x @ y.T` over rows, `x0 (y0 + y1)^T + x1 y0^T`, block by block."""
    _fits(x0, y0, 1)
    if x0.shape[0] > y0.shape[0]:  # the product is symmetric in x and y, up to the transpose
        return np.ascontiguousarray(dot3(y0, y1, x0, x1).T)
    x0, x1, y0, y1 = (np.ascontiguousarray(factor) for factor in (x0, x1, y0, y1))
    out = np.zeros((x0.shape[0], y0.shape[0]), dtype=np.uint64)
    _dot3(x0, x1, y0, y1, out)
    return out
