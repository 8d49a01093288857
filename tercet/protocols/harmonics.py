"""The two kernels of a Fourier gate: deal the harmonics of a mask, recombine their shares at an opened value.

A masked-opening gate evaluates `f(x) = constant + sum_k a_k cos(k w x) + b_k sin(k w x)` at `x = c - r`,
where c is open and r is the dealer's mask (Boura, Chillotti, Gama, Jetchev, Peceny, Petric 2018). The dealer
shares `cos(k w r)` and `sin(k w r)`; the angle addition formulas make f(x) linear in these, with coefficients
that depend on c only. The period is a power of two in ring units, so reducing an angle is exact integer
arithmetic.

Both parties that recombine must arrive at the same integer coefficients, or their shares no longer cancel.
Hence no call of a mathematical library here and no arithmetic that a compiler may contract: sine and cosine
are polynomials, every fused multiply-add is explicit, and all bits are the same on every IEEE machine. For
the same reason weights are part of the plan, never fitted again by each party.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.compiled import FLOAT64, INT64, Array, inline, instruction, kernel
from tercet.protocols.kernels import IN, IN2, OUT2, Indices, Words, words_out

Reals = npt.NDArray[np.float64]

BLOCK = 512
"""Elements worked on at a time: the six scratch rows, 24 KiB, stay in the first-level cache."""
COEFFICIENT_LIMIT = 31
"""Bits of a rounded coefficient: 32 with the sign, so that a product with a word is two of halves."""

_ROUND = 1.5 * 2.0**52
"""Adding this rounds a float64 below 2^51 to an integer, to be read from the low bits of the sum."""
_ROUND_BITS = np.uint64(0x4338000000000000)
_ROUND_BIASED = _ROUND + 2.0**31
_LOW_HALF = np.uint64(0xFFFFFFFF)
_ONE_BITS = np.uint64(0x3FF0000000000000)

# Taylor series of sin and cos of 2 pi y for |y| <= 1/8: the first terms left out are below 3e-16. Written
# out, because a power taken at run time may differ in its last bit between machines.
_S0, _S1, _S2, _S3 = 6.283185307179586, -41.34170224039976, 81.60524927607506, -76.70585975306139
_S4, _S5, _S6, _S7 = 42.058693944897655, -15.09464257682299, 3.819952584848282, -0.7181223017785006
_C1, _C2, _C3, _C4 = -19.739208802178716, 64.9393940226683, -85.45681720669373, 60.24464137187666
_C5, _C6, _C7, _C8 = -26.4262567833744, 7.903536371318469, -1.714390711088672, 0.28200596845579123


@instruction
def _bits(_context: Any, _number: Any) -> Any:
    """The bits of a float64, as a word."""
    from numba import types

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), emit


@instruction
def _real(_context: Any, _word: Any) -> Any:
    """The float64 whose bits are a word."""
    from numba import types

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), emit


@instruction
def _fma(_context: Any, _x: Any, _y: Any, _z: Any) -> Any:
    """`x y + z`, rounded once on every machine."""
    from numba import types

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), emit


@inline
def _unit_angles(words: Words, period_bits: int, cosine: Reals, sine: Reals) -> None:
    """Cosine and sine of `2 pi word / 2^period_bits`, within 2e-15; angles beyond 52 bits are truncated."""
    shift = np.uint64(64 - period_bits)
    for i in range(words.shape[0]):
        # The low period_bits as a fraction of a turn in [0, 1): the mantissa of a number in [1, 2), less 1.
        turn = _real(((words[i] << shift) >> np.uint64(12)) | _ONE_BITS) - 1.0
        nearest = 4.0 * turn + _ROUND
        quadrant = _bits(nearest)
        y = _fma(nearest - _ROUND, -0.25, turn)
        z = y * y
        s = (
            _fma(
                _fma(_fma(_fma(_fma(_fma(_fma(_S7, z, _S6), z, _S5), z, _S4), z, _S3), z, _S2), z, _S1),
                z,
                _S0,
            )
            * y
        )
        c = _fma(
            _fma(_fma(_fma(_fma(_fma(_fma(_C8, z, _C7), z, _C6), z, _C5), z, _C4), z, _C3), z, _C2), z, _C1
        )
        c = _fma(c, z, 1.0)
        odd = (quadrant & np.uint64(1)) != np.uint64(0)
        sine_bits, cosine_bits = _bits(c if odd else s), _bits(s if odd else c)
        sine[i] = _real(sine_bits ^ ((quadrant & np.uint64(2)) << np.uint64(62)))
        cosine[i] = _real(cosine_bits ^ (((quadrant + np.uint64(1)) & np.uint64(2)) << np.uint64(62)))


@inline
def _rotate(cosine: Reals, sine: Reals, by_cosine: Reals, by_sine: Reals) -> None:
    """Turn every (cosine, sine) by its own angle."""
    for i in range(cosine.shape[0]):
        c, s = cosine[i], sine[i]
        cosine[i] = _fma(c, by_cosine[i], -(s * by_sine[i]))
        sine[i] = _fma(s, by_cosine[i], c * by_sine[i])


@inline
def _advance(scratch: Reals, size: int, gap: int, step: int) -> int:
    """Turn the angles in rows 0 and 1 by `gap` times those in rows 2 and 3, and return `gap`.

    Rows 4 and 5 hold `step` times the base angle, from the previous call: harmonics are mostly evenly spaced.
    """
    if gap != step:
        scratch[4, :size] = scratch[2, :size]
        scratch[5, :size] = scratch[3, :size]
        for _ in range(gap - 1):
            _rotate(scratch[4, :size], scratch[5, :size], scratch[2, :size], scratch[3, :size])
    _rotate(scratch[0, :size], scratch[1, :size], scratch[4, :size], scratch[5, :size])
    return gap


@inline
def _subtract_from(values: Reals, factor: float, out: Words) -> None:
    for i in range(out.shape[0]):
        out[i] = _bits(values[i] * factor + _ROUND) - _ROUND_BITS - out[i]


_HARMONICS = Array(INT64, 1, readonly=True)
_WEIGHTS = Array(FLOAT64, 2, readonly=True)


@kernel(IN, INT64, _HARMONICS, FLOAT64, OUT2)
def _deal(r: Words, period_bits: int, harmonics: Indices, factor: float, out: Words) -> None:
    scratch = np.empty((6, BLOCK))
    n = r.shape[0]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        size = stop - start
        _unit_angles(r[start:stop], period_bits, scratch[2, :size], scratch[3, :size])
        scratch[0, :] = 1.0
        scratch[1, :] = 0.0
        last, step = 0, 0
        for i in range(harmonics.shape[0]):
            step = _advance(scratch, size, harmonics[i] - last, step)
            last = harmonics[i]
            _subtract_from(scratch[0, :size], factor, out[2 * i, start:stop])
            _subtract_from(scratch[1, :size], factor, out[2 * i + 1, start:stop])


@inline
def _weigh(
    cosine: Reals, sine: Reals, a: float, b: float, dealt_c: Words, dealt_s: Words, out: Words
) -> None:
    """Add to out the dealt shares times the rounded `a cos + b sin` and `a sin - b cos`.

    The rounded coefficients carry a bias of 2^31 that makes them unsigned 32-bit numbers; it is taken off
    afterwards.
    """
    for i in range(out.shape[0]):
        on_c = _bits(_fma(a, cosine[i], b * sine[i]) + _ROUND_BIASED) & _LOW_HALF
        on_s = _bits(_fma(a, sine[i], -(b * cosine[i])) + _ROUND_BIASED) & _LOW_HALF
        out[i] += on_c * dealt_c[i] + on_s * dealt_s[i] - ((dealt_c[i] + dealt_s[i]) << np.uint64(31))


@kernel(IN, IN2, INT64, _HARMONICS, _WEIGHTS, _WEIGHTS, IN, OUT2)
def _combine(
    c: Words,
    shares: Words,
    period_bits: int,
    harmonics: Indices,
    cosine_weights: Reals,
    sine_weights: Reals,
    constants: Words,
    out: Words,
) -> None:
    scratch = np.empty((6, BLOCK))
    n = c.shape[0]
    functions = out.shape[0]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        size = stop - start
        _unit_angles(c[start:stop], period_bits, scratch[2, :size], scratch[3, :size])
        scratch[0, :] = 1.0
        scratch[1, :] = 0.0
        for f in range(functions):
            out[f, start:stop] = constants[f]
        last, step = 0, 0
        for i in range(harmonics.shape[0]):
            step = _advance(scratch, size, harmonics[i] - last, step)
            last = harmonics[i]
            for f in range(functions):
                a, b = cosine_weights[f, i], sine_weights[f, i]
                if a != 0.0 or b != 0.0:
                    dealt_c, dealt_s = shares[2 * i, start:stop], shares[2 * i + 1, start:stop]
                    _weigh(scratch[0, :size], scratch[1, :size], a, b, dealt_c, dealt_s, out[f, start:stop])


@kernel(IN, INT64, _HARMONICS, _WEIGHTS, _WEIGHTS, words_out(3))
def _coefficients(
    c: Words,
    period_bits: int,
    harmonics: Indices,
    cosine_weights: Reals,
    sine_weights: Reals,
    out: Words,
) -> None:
    scratch = np.empty((6, BLOCK))
    for start in range(0, c.shape[0], BLOCK):
        stop = min(start + BLOCK, c.shape[0])
        size = stop - start
        _unit_angles(c[start:stop], period_bits, scratch[2, :size], scratch[3, :size])
        scratch[0, :] = 1.0
        scratch[1, :] = 0.0
        last, step = 0, 0
        for i in range(harmonics.shape[0]):
            step = _advance(scratch, size, harmonics[i] - last, step)
            last = harmonics[i]
            for f in range(out.shape[0]):
                a, b = cosine_weights[f, i], sine_weights[f, i]
                for j in range(size):
                    cosine, sine = scratch[0, j], scratch[1, j]
                    out[f, 2 * i, start + j] = _bits(_fma(a, cosine, b * sine) + _ROUND) - _ROUND_BITS
                    out[f, 2 * i + 1, start + j] = _bits(_fma(a, sine, -(b * cosine)) + _ROUND) - _ROUND_BITS


def _checked(harmonics: npt.ArrayLike, period_bits: int) -> Indices:
    checked = np.ascontiguousarray(harmonics, dtype=np.int64)
    if not 1 <= period_bits <= 64:
        raise ValueError(f"a period of 2^{period_bits} ring units is not within 2^1 to 2^64")
    if checked.ndim != 1 or (checked[:1] <= 0).any() or (checked[1:] <= checked[:-1]).any():
        raise ValueError(f"harmonics {checked.tolist()} are not positive and increasing")
    return checked


def deal_harmonics(
    r: Words, period_bits: int, harmonics: npt.ArrayLike, dealt_bits: int, out: Words
) -> Words:
    """The other share of the harmonics of masks r [n]: replaces out [2K, n] by `g - out` and returns it.

    `g[2i] = round(2^dealt_bits cos(k_i theta))` and `g[2i + 1]` likewise with sin, in two's complement, where
    `theta = 2 pi r / 2^period_bits`; off by at most 0.501 units. harmonics are positive and increasing;
    dealt_bits is at most 40. Moves 8 + 32 K bytes an element.
    """
    checked = _checked(harmonics, period_bits)
    if not 0 <= dealt_bits <= 40:
        raise ValueError(f"dealt values with {dealt_bits} fractional bits; 0 to 40 are exact")
    if r.ndim != 1 or out.shape != (2 * checked.size, r.size):
        raise ValueError(
            f"out has shape {out.shape}; {checked.size} harmonics of {r.shape} masks were asked for"
        )
    _deal(r, period_bits, checked, float(1 << dealt_bits), out)
    return out


def combine_harmonics(
    c: Words,
    shares: Words,
    period_bits: int,
    harmonics: npt.ArrayLike,
    cosine_weights: Reals,
    sine_weights: Reals,
    coefficient_bits: int,
    constants: Words,
    out: Words | None = None,
) -> Words:
    """This party's shares, [F, n], of F functions at `c - r`, from its shares [2K, n] of the harmonics of r.

    Function f is `sum_i A[f, i] cos(k_i w x) + B[f, i] sin(k_i w x)` with A, B the weights [F, K].
    Coefficients are rounded to coefficient_bits, so the scale of the result is that of the dealt values plus
    coefficient_bits. constants [F] is added to every element: the constant term at that scale at one party,
    zeros at the other. Moves 8 + 16 K F + 8 F bytes an element, the shares once for F = 1. Raises ValueError
    if a coefficient exceeds 31 bits.
    """
    checked = _checked(harmonics, period_bits)
    A, B = (np.ascontiguousarray(weights, dtype=np.float64) for weights in (cosine_weights, sine_weights))
    shape = (constants.size, checked.size)
    if A.shape != shape or B.shape != shape or c.ndim != 1 or shares.shape != (2 * checked.size, c.size):
        raise ValueError(
            f"weights {A.shape} and {B.shape}, constants {constants.shape}, shares {shares.shape} "
            f"and values {c.shape} do not fit {checked.size} harmonics"
        )
    scale = 2.0**coefficient_bits
    if A.size and not float(np.max(np.hypot(A, B))) * scale < 2.0**COEFFICIENT_LIMIT - 1:
        raise ValueError(
            f"coefficients with {coefficient_bits} fractional bits exceed {COEFFICIENT_LIMIT} bits"
        )
    if out is None:
        out = np.empty((constants.size, c.size), dtype=np.uint64)
    elif out.shape != (constants.size, c.size):
        raise ValueError(f"out has shape {out.shape}, not {(constants.size, c.size)}")
    _combine(c, shares, period_bits, checked, A * scale, B * scale, constants, out)
    return out


def angle_coefficients(
    c: Words,
    period_bits: int,
    harmonics: npt.ArrayLike,
    cosine_weights: Reals,
    sine_weights: Reals,
    coefficient_bits: int,
) -> Words:
    """What the harmonics of r are multiplied by to make F functions at `c - r`: integers [F, 2K, n].

    Rows 2i and 2i+1 are for cosine and sine of harmonic k_i: `A cos + B sin` and `A sin - B cos` at c, for
    weights A, B [F, K], rounded to coefficient_bits, in two's complement. For protocols whose shares are no
    words; `combine_harmonics` does this and the sum in one pass. Moves 16 K F bytes an element.
    """
    checked = _checked(harmonics, period_bits)
    A, B = (
        np.ascontiguousarray(np.asarray(weights, dtype=np.float64) * 2.0**coefficient_bits)
        for weights in (cosine_weights, sine_weights)
    )
    if c.ndim != 1 or A.shape != B.shape or A.shape[1:] != checked.shape:
        raise ValueError(f"weights {A.shape} and {B.shape} do not fit {checked.size} harmonics of {c.shape}")
    if A.size and not float(np.max(np.hypot(A, B))) < 2.0**COEFFICIENT_LIMIT - 1:
        raise ValueError(
            f"coefficients with {coefficient_bits} fractional bits exceed {COEFFICIENT_LIMIT} bits"
        )
    out = np.empty((A.shape[0], 2 * checked.size, c.size), dtype=np.uint64)
    _coefficients(np.ascontiguousarray(c), period_bits, checked, A, B, out)
    return out
