"""Order by experiment: results must not depend on what else runs, when, or in which tiles.

A scheduler starts operations in whatever order their inputs arrive, merges the rounds of those under way, and
cuts rows into tiles; parties need not do that alike. Since all randomness has names, two sessions with the
same keys must end in the very same shares whatever the order; and tiles side by side must be the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Share, gather
from tercet.protocols.domains import WORD_BITS, Words
from tercet.testing.correctness import check_result
from tercet.testing.lockstep import lockstep
from tercet.testing.operations import OPERATIONS, Exports, Operation, uniform
from tercet.testing.watch import new_session, results, run, share_all

ROWS = 3 * WORD_BITS
TILES = (slice(0, 2), slice(2, 3))
"""Tiles of `ROWS`, in words of packed bits."""
_SEED = b"order"


def check_order(cls: type[Protocol], *, parties: int) -> None:
    """Run all operations forwards, backwards, side by side and in tiles; raises ProtocolError."""
    rng = np.random.default_rng(7)
    dealt = new_session(cls, parties, seed=_SEED)
    secrets = [operation.inputs(uniform(rng), ROWS) for operation in OPERATIONS]
    shares = [share_all(dealt, one) for one in secrets]
    forwards = _in_order(cls, parties, shares, list(range(len(OPERATIONS))))
    backwards = _in_order(cls, parties, shares, list(reversed(range(len(OPERATIONS)))))
    beside = _side_by_side(cls, parties, shares)
    for number, operation in enumerate(OPERATIONS):
        for found, how in ((backwards, "after others"), (beside, "beside others")):
            if not _same(forwards[number], found[number]):
                raise ProtocolError(
                    f"{cls.name}: {operation.name} gives other shares when it runs {how}; draw all "
                    "randomness from `stream`, by names from `tag`"
                )
    session = new_session(cls, parties)
    for operation, one, held in zip(OPERATIONS, secrets, shares, strict=True):
        if operation.rowwise:
            _check_tiles(session, operation, [secret.words for secret in one], held)


def _in_order(
    cls: type[Protocol], parties: int, shares: Sequence[Sequence[list[Share]]], order: Sequence[int]
) -> dict[int, list[list[Any]]]:
    session = new_session(cls, parties, seed=_SEED)
    return {
        number: run(session, OPERATIONS[number], shares[number], name=f"op {number}", dealer=number)[
            0
        ].results
        for number in order
    }


def _side_by_side(
    cls: type[Protocol], parties: int, shares: Sequence[Sequence[list[Share]]]
) -> dict[int, list[list[Any]]]:
    session = new_session(cls, parties, seed=_SEED)
    all_of_party = []
    for party, protocol in enumerate(session):
        begun = []
        for number, operation in enumerate(OPERATIONS):
            held = list(shares[number][party])
            bound = protocol.bind(f"op {number}", dealer=number, openings=operation.openings(held))
            begun.append(operation.run(bound, held))
        all_of_party.append(gather(*begun))
    found = lockstep(all_of_party).results
    return {number: [found[party][number] for party in range(parties)] for number in range(len(OPERATIONS))}


def _same(one: Sequence[list[Any]], two: Sequence[list[Any]]) -> bool:
    return all(
        np.array_equal(_words(a), _words(b))
        for left, right in zip(one, two, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def _words(result: Share | Exports | Words) -> Words:
    if isinstance(result, Exports):
        return np.concatenate([part.reshape(-1) for part in result.arrays])
    return result.data if isinstance(result, Share) else result


def _check_tiles(
    session: Sequence[Protocol], operation: Operation, secrets: list[Words], shares: Sequence[list[Share]]
) -> None:
    where = f"{session[0].name}: {operation.name} in tiles"
    parts: list[list[Words]] = []
    for number, tile in enumerate(TILES):
        cut = [[_tile(x, tile) for x in held] for held in shares]
        ran, _ = run(session, operation, cut, name=f"{where} {number}", dealer=number)
        parts.append(list(results(session, ran.results)))
    whole = [np.concatenate(tiles, axis=-1) for tiles in zip(*parts, strict=True)]
    check_result(where, operation, whole, operation.expected(secrets), ROWS, operation.tolerance(session[0]))


def _tile(x: Share, tile: slice) -> Share:
    """Some rows of what has `ROWS` rows, packed or not; anything else whole."""
    steps = {ROWS: WORD_BITS, ROWS // WORD_BITS: 1}
    if not x.shape or x.shape[-1] not in steps:
        return x
    step = steps[x.shape[-1]]
    return x.like(x.data[..., tile.start * step : tile.stop * step])


__all__ = ["check_order"]
