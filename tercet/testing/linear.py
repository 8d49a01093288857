"""Secrecy by linear algebra: no sum of all that one party sees is a secret.

A party's view is what it holds of the inputs and results, what it receives, opens and draws, and its local
products. Words tested singly tell nothing of a secret that is told in two summands, each of which is random;
their sum does. The lowest bit of a ring word is linear over GF(2) in those that were added up, and so is
every bit of words under XOR. So each row of a table gives one equation, and a leak is a combination of the
view's bits which is, in all rows, a bit of an input or of a result, or a sum of such bits. Of operations
on two inputs, bits of secrets times bits that the party holds count as secrets too: terms of a product which
has lost half its mask are such.

If the view is independent of the secrets, a combination of k secrets' bits lies in a span of dimension d with
a chance of at most 2^(d + k - h n), where n rows leave h bits each in doubt: half as many where factors are
known, half of which are zero. The sample is widened until
that is below 2^-FALSE_ALARM_BITS. Where a sample of that size is too much traffic, the test is left out.
Where not every word is as likely (`words_uniform`), numbers are not added up as words are, and only
operations that take bits are tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Shape, Share
from tercet.protocols.domains import BITS, WORD_BITS, Words
from tercet.testing.lockstep import LockstepResult
from tercet.testing.operations import Exports, Operation, Secret, Values, zeros
from tercet.testing.watch import affordable, look, new_session, results, run, share_all

FALSE_ALARM_BITS = 40
"""A test alarms falsely with a chance below 2 to the power of minus this."""
ROWS = (512, 1024, 2048, 4096, 8192)
"""Sizes of samples, from which the first that has power is taken."""
MOST_BYTES = 1 << 24
"""What all parties may send for it."""
MOST_STACKED = 5
"""Arrays of more words for each row than that are numbers, not stacked planes of packed bits."""
_MOST_COMBINED = 10
_MOST_FACTORS, _MOST_SEEN = 40, 64
_DOUBT = 4.0
"""Standard deviations by which the frequency of a bit is taken to be off."""

Bits = npt.NDArray[np.uint8]


def check_linear(
    cls: type[Protocol], operation: Operation, *, parties: int, dealers: Sequence[int] | None = None
) -> bool:
    """Check one operation with each dealer; whether samples had power. Raises ProtocolError.

    Where results are the same in all rows, as comparisons with zero are, one run has more zeros among inputs.
    """
    if operation.discloses or not operation.is_fixed(ROWS[0]):
        return False
    if not (cls.words_uniform or _takes_bits(operation)):
        return False
    chosen = list(range(parties)) if dealers is None else dealers
    for mixed in (False, True):
        rows, again = ROWS[0], False
        for dealer in chosen[:1] if mixed else chosen:
            trial = _try(cls, operation, parties, dealer, rows, mixed=mixed)
            while trial is not None and rows < trial.wanted <= ROWS[-1]:
                rows = next(size for size in ROWS if size >= trial.wanted)
                trial = _try(cls, operation, parties, dealer, rows, mixed=mixed)
            if trial is None or trial.wanted > rows:
                return False
            again = again or trial.constant
        if not again:
            break
    return True


@attrs.frozen
class _Trial:
    """How many rows it takes to tell, and whether some result was the same in all rows."""

    wanted: int
    constant: bool


def _try(
    cls: type[Protocol], operation: Operation, parties: int, dealer: int, rows: int, *, mixed: bool
) -> _Trial | None:
    """One run, and a look at what each party saw of it; None if it takes too much traffic."""
    session = new_session(cls, parties)
    if not affordable(session[0], operation, rows, most=MOST_BYTES):
        return None
    secrets = operation.inputs(_values(np.random.default_rng(rows), mixed=mixed), rows)
    shares = share_all(session, secrets)
    with look(session) as views:
        ran, _ = run(session, operation, shares, name="linear", dealer=dealer)
    targets, constant = _targets(secrets, list(results(session, ran.results)), rows)
    if not targets.size:
        return _Trial(0, constant)
    doubt, planes = _doubt(targets), _has_planes(operation, secrets, rows)
    wanted, found = 0, []
    for party in range(parties):
        view = _matrix(_seen(ran, shares, views, party, rows, planes=planes))
        wanted = max(wanted, math.ceil((len(view) + len(targets) + FALSE_ALARM_BITS) / doubt))
        found.append((view, targets))
        held = _held(shares[party], rows)
        if len(secrets) > 1 and len(held) * len(targets) <= _MOST_FACTORS and len(view) <= _MOST_SEEN:
            # What it holds are factors that it knows: of secrets, and of each other.
            view = _matrix([view, *(one & held for one in held)])
            factors = np.concatenate([targets, *(one & targets for one in held)])
            wanted = max(wanted, math.ceil((len(view) + len(factors) + FALSE_ALARM_BITS) / (doubt / 2)))
            found[-1] = (view, factors)
    for party, (view, told) in enumerate(found if wanted <= rows else ()):
        if rank(np.concatenate([view, told])) < rank(view) + rank(_matrix([told])) - 1:
            raise ProtocolError(
                f"{cls.name}: {operation.name} with dealer {dealer}: party {party} can compute bits of "
                "inputs or results, or of their sums, from all that it holds, receives and draws"
            )
    return _Trial(wanted, constant)


def _held(shares: Sequence[Share], rows: int) -> Bits:
    """The lowest bits of what a party holds of inputs, one for each row."""
    parts = [_lowest(part, rows) for x in shares for part in x.data if part.size and part.size % rows == 0]
    return np.concatenate([np.zeros((0, rows), dtype=np.uint8), *parts])


def _takes_bits(operation: Operation) -> bool:
    return any(one.domain is BITS for one in operation.inputs(zeros, ROWS[0]))


def _has_planes(operation: Operation, secrets: Sequence[Secret], rows: int) -> bool:
    """Whether an operation takes or gives packed bits."""
    return operation.packed or any(one.words.shape == (rows // WORD_BITS,) for one in secrets)


def _values(rng: np.random.Generator, *, mixed: bool) -> Values:
    """Values of all bits, every other one of which, by chance, is zero if they are `mixed`."""

    def make(shape: Shape, bits: int) -> Words:
        size = rng.integers(0, 1 << (bits - 1), size=shape, dtype=np.uint64)
        words = np.where(rng.integers(0, 2, size=shape) == 1, np.negative(size), size)
        return np.where(rng.integers(0, 2, size=shape) == 1, np.uint64(0), words) if mixed else words

    return make


# -- bits, a column for each row of the table ----------------------------------------------------------------


def _targets(secrets: Sequence[Secret], found: Sequence[Words], rows: int) -> tuple[Bits, bool]:
    """The bits of inputs and results, and whether some of these are alike in all rows and were left out."""
    inputs = [column for one in secrets for column in _exactly(one.words, rows)]
    outputs = [column for words in found for column in _exactly(words, rows)]
    telling = [column for column in (*inputs, *outputs) if column.any() and not column.all()]
    kept = np.array(telling, dtype=np.uint8).reshape(len(telling), rows)
    return kept, any(column.all() or not column.any() for column in outputs)


def _exactly(words: Words, rows: int) -> Iterator[Bits]:
    """The lowest bits of words, if there are some for each row, or all bits if they are packed rows."""
    if words.size and words.size % rows == 0:
        yield from _lowest(words, rows)
    elif words.size and words.size % (rows // WORD_BITS) == 0 and words.shape[-1:] == (rows // WORD_BITS,):
        yield from _packed(words, rows)


def _columns(words: Words, rows: int, *, planes: bool) -> Iterator[Bits]:
    """All bits of an array which may stand for rows: the lowest bits of words, or all bits of packed rows.

    Of an array without an axis of either length, both, if the operation has `planes`.
    """
    by_row, packed = rows in words.shape, rows // WORD_BITS in words.shape
    whole = words.size and words.size % rows == 0
    if whole and (by_row or not packed):
        yield _lowest(words, rows)
    stacked = words.size and words.size % (rows // WORD_BITS) == 0 and words.size <= MOST_STACKED * rows
    if stacked and (packed or not by_row) and (planes or not whole):
        yield _packed(words, rows)


def _lanes(words: Words, size: int) -> Words:
    """Words as `(places, size)`, along the last axis of that length, or as they lie in memory."""
    axes = [axis for axis, length in enumerate(words.shape) if length == size]
    return np.ascontiguousarray(np.moveaxis(words, axes[-1], -1) if axes else words).reshape(-1, size)


def _lowest(words: Words, rows: int) -> Bits:
    return (_lanes(words, rows) & np.uint64(1)).astype(np.uint8)


def _packed(words: Words, rows: int) -> Bits:
    octets = _lanes(words, rows // WORD_BITS).astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")


def _seen(
    ran: LockstepResult[Any],
    shares: Sequence[Sequence[Share]],
    views: Sequence[Sequence[Words]],
    party: int,
    rows: int,
    *,
    planes: bool,
) -> Iterator[Bits]:
    """The bits of all that one party holds, receives, opens, draws and multiplies."""
    held = [part for x in shares[party] for part in x.data]
    for one in ran.results[party]:
        if isinstance(one, Share):
            held += list(one.data)
        elif isinstance(one, Exports):
            held += one.arrays
    for words in itertools.chain(held, (m.words for m in ran.transcript[party]), views[party]):
        yield from _columns(words, rows, planes=planes)


def _doubt(targets: Bits) -> float:
    """The bits of doubt that a row leaves, at least, of any sum of these secrets' bits."""
    sums = targets
    if len(targets) <= _MOST_COMBINED:
        picks = np.array(list(itertools.product((0, 1), repeat=len(targets)))[1:], dtype=np.int64)
        sums = (picks @ targets.astype(np.int64) & 1).astype(np.uint8)
    ones = sums.mean(axis=1)
    varied = ones[(ones > 0) & (ones < 1)]
    often = float(np.maximum(varied, 1 - varied).max()) + _DOUBT / (2 * math.sqrt(targets.shape[1]))
    return -math.log2(min(1.0, often))


# -- GF(2) ---------------------------------------------------------------------------------------------------


def _matrix(parts: Iterable[Bits]) -> Bits:
    """Some columns, each once, and the constant one."""
    found = np.concatenate(list(parts))
    ones = np.ones((1, found.shape[1]), dtype=np.uint8)
    return np.unique(np.concatenate([ones, found]), axis=0)


def rank(rows: Bits) -> int:
    """The rank over GF(2) of a matrix of zeros and ones."""
    width = -rows.shape[1] % WORD_BITS
    packed = np.packbits(np.pad(rows, ((0, 0), (0, width))), axis=1).view(np.uint64).copy()
    found = 0
    for word in range(packed.shape[1]):
        for bit in range(WORD_BITS):
            mask = np.uint64(1 << bit)
            (having,) = np.nonzero(packed[found:, word] & mask)
            if not having.size:
                continue
            pivot = found + int(having[0])
            packed[found], packed[pivot] = packed[pivot].copy(), packed[found].copy()
            (others,) = np.nonzero(packed[found + 1 :, word] & mask)
            packed[others + found + 1, word:] ^= packed[found, word:]
            found += 1
            if found == len(packed):
                return found
    return found


__all__ = ["check_linear", "rank"]
