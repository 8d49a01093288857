"""Bit planes: words of 64 rows, one for each bit, in which an AND of words is an AND of 64 rows at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tercet.compiled import inline, kernel
from tercet.protocols.kernels import IN, IN2, INDEX_IN, OUT, OUT2, Indices, Words, words_out

_OUT3 = words_out(3)
WORD = 64
LANES = 64
"""Blocks of 64 words transposed side by side: a tile of 32 KiB, and runs of 512 bytes in every plane."""
_STAGE_MASKS = (2**64 - 1) // np.array([2**32 + 1, 2**16 + 1, 2**8 + 1, 17, 5, 3], dtype=np.uint64)
"""Words with every second run of 32, 16, ... 1 bits set, starting with the lowest."""


@inline
def _transpose(tile: Words, rows: int) -> None:
    """Transpose LANES matrices of 64x64 bits, bit b of row j of lane l in `tile[j * LANES + l]`.

    Only the first `rows` rows (a power of two) of the result are made. Hacker's Delight 7-3: each stage swaps
    one bit of the row number with the same bit of the column number, over contiguous halves so that it
    vectorises.
    """
    for stage in range(6):
        mask = _STAGE_MASKS[stage]
        step = 32 >> stage
        shift = np.uint64(step)
        half = step * LANES
        if step >= rows:
            low = tile[:half]
            high = tile[half : 2 * half]
            for i in range(half):
                low[i] = (low[i] & mask) | ((high[i] & mask) << shift)
        else:
            for base in range(0, rows * LANES, 2 * half):
                low = tile[base : base + half]
                high = tile[base + half : base + 2 * half]
                for i in range(half):
                    swap = ((low[i] >> shift) ^ high[i]) & mask
                    high[i] ^= swap
                    low[i] ^= swap << shift


@kernel(IN, OUT2)
def _to_planes(words: Words, planes: Words) -> None:
    bits, width = planes.shape
    n = words.shape[0]
    rows = 1
    while rows < bits:
        rows *= 2
    tile = np.empty(WORD * LANES, dtype=np.uint64)
    for start in range(0, width, LANES):
        lanes = min(LANES, width - start)
        if (start + LANES) * WORD <= n:
            block = words[start * WORD : (start + LANES) * WORD]
            for j in range(WORD):
                for lane in range(LANES):
                    tile[j * LANES + lane] = block[lane * WORD + j]
        else:
            tile[:] = 0
            block = words[start * WORD :]
            for i in range(block.shape[0]):
                tile[(i % WORD) * LANES + i // WORD] = block[i]
        _transpose(tile, rows)
        for b in range(bits):
            plane, row = planes[b, start : start + lanes], tile[b * LANES : b * LANES + lanes]
            for lane in range(lanes):
                plane[lane] = row[lane]


@kernel(IN2, OUT)
def _from_planes(planes: Words, words: Words) -> None:
    bits, width = planes.shape
    n = words.shape[0]
    tile = np.empty(WORD * LANES, dtype=np.uint64)
    for start in range(0, width, LANES):
        lanes = min(LANES, width - start)
        for b in range(bits):
            plane, row = planes[b, start : start + lanes], tile[b * LANES : b * LANES + lanes]
            for lane in range(lanes):
                row[lane] = plane[lane]
        tile[bits * LANES :] = 0
        _transpose(tile, WORD)
        if (start + LANES) * WORD <= n:
            block = words[start * WORD : (start + LANES) * WORD]
            for lane in range(LANES):
                for j in range(WORD):
                    block[lane * WORD + j] = tile[j * LANES + lane]
        else:
            block = words[start * WORD :]
            for i in range(block.shape[0]):
                block[i] = tile[(i % WORD) * LANES + i // WORD]


def to_planes(words: Words, bits: int = WORD) -> Words:
    """Bit-slice words [n] into planes [bits, ceil(n/64)], zero padded.

    Bit j of word w of plane b is bit b of element 64 w + j. Moves 8 bytes in and bits/8 bytes out an element.
    """
    if not 0 <= bits <= WORD:
        raise ValueError(f"{bits} bit planes of words of {WORD} bits")
    planes = np.empty((bits, -(-words.size // WORD)), dtype=np.uint64)
    if bits:
        _to_planes(words.reshape(-1), planes)
    return planes


@kernel(IN2, INDEX_IN, INDEX_IN, INDEX_IN, _OUT3, _OUT3)
def pair_planes(
    keys: Words, left: Indices, right: Indices, places: Indices, differ: Words, second: Words
) -> None:
    """Bit-slice pairs of keys: `keys[left] ^ keys[right]` and `keys[right]`, bit b in plane `places[b]`.

    `keys` `(n, h w)` holds the w words of a key for each of h components side by side, the lowest first, so
    that a key is one access to memory; planes are `(h, bits, m / 64)`. The upper words count with all bits.
    """
    held, bits = differ.shape[0], places.shape[0]
    columns = keys.shape[1]
    words = columns // held
    lowest = bits - WORD * (words - 1)
    differs = np.empty((columns, WORD * LANES), dtype=np.uint64)
    seconds = np.empty((columns, WORD * LANES), dtype=np.uint64)
    for start in range(0, differ.shape[2], LANES):
        lanes = min(LANES, differ.shape[2] - start)
        first, count = start * WORD, min(LANES * WORD, left.shape[0] - start * WORD)
        ones, others = left[first : first + count], right[first : first + count]
        if count < LANES * WORD:
            differs[:], seconds[:] = 0, 0
        for lane in range(lanes):
            for j in range(min(WORD, count - lane * WORD)):
                one, other = keys[np.uint64(ones[lane * WORD + j])], keys[np.uint64(others[lane * WORD + j])]
                for column in range(columns):
                    differs[column, j * LANES + lane] = one[column] ^ other[column]
                    seconds[column, j * LANES + lane] = other[column]
        for column in range(columns):
            component, word = column // words, column % words
            begin = 0 if word == 0 else lowest + WORD * (word - 1)
            some = lowest if word == 0 else WORD
            rows = 1
            while rows < some:
                rows *= 2
            for tile, out in ((differs[column], differ[component]), (seconds[column], second[component])):
                _transpose(tile, rows)
                for b in range(some):
                    plane, row = out[places[begin + b]], tile[b * LANES : b * LANES + lanes]
                    for lane in range(lanes):
                        plane[start + lane] = row[lane]


def from_planes(planes: Words, n: int) -> Words:
    """The n words whose bit planes are given, [bits <= 64, ceil(n/64)]; absent high planes count as zero."""
    if planes.ndim != 2 or planes.shape[0] > WORD or planes.shape[1] != -(-n // WORD):
        raise ValueError(f"planes of shape {planes.shape} do not hold {n} words")
    words = np.empty(n, dtype=np.uint64)
    _from_planes(np.ascontiguousarray(planes), words)
    return words


def pack_bits(bits: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> Words:
    """Pack n bits (non-zero is one) into ceil(n/64) words: element 64 w + j in bit j of word w, zero padded.

    Moves 9/8 bytes a bit.
    """
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    words = np.zeros(-(-bits.size // WORD), dtype=np.dtype("<u8"))
    words.view(np.uint8)[: packed.size] = packed
    return words.astype(np.uint64, copy=False)


def unpack_bits(words: Words, n: int) -> npt.NDArray[np.uint8]:
    """The first n bits of packed words, as 0 or 1: the inverse of `pack_bits`."""
    if n > words.size * WORD:
        raise ValueError(f"{words.size} words do not hold {n} bits")
    octets = np.ascontiguousarray(words.reshape(-1), dtype=np.dtype("<u8")).view(np.uint8)
    return np.unpackbits(octets, count=n, bitorder="little")
