"""Values and costs by experiment: an operation's results and traffic against what it promises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tercet.errors import ProtocolError, TercetError
from tercet.protocols import bitplanes
from tercet.protocols.base import Protocol
from tercet.protocols.domains import Words
from tercet.testing.operations import Operation, Secret, edges, uniform
from tercet.testing.watch import affordable, new_session, results, run, share_all

SIZES = (0, 1, 63, 64, 65, 1000)


def check_values(
    cls: type[Protocol], operation: Operation, *, parties: int, dealer: int = 0, sizes: Sequence[int] = SIZES
) -> None:
    """Check results and costs of one operation; raises ProtocolError."""
    rng = np.random.default_rng(20240229)
    session = new_session(cls, parties)
    for rows in (rows for rows in sizes if affordable(session[0], operation, rows)):
        for kind, values in (("edges", edges(rng)), ("uniform", uniform(rng))):
            where = f"{operation.name} of {rows} rows ({kind}) with dealer {dealer}"
            check_case(session, operation, operation.inputs(values, rows), rows, where=where, dealer=dealer)


def check_case(
    session: Sequence[Protocol],
    operation: Operation,
    secrets: Sequence[Secret],
    rows: int,
    *,
    where: str,
    dealer: int = 0,
) -> None:
    """Check result and cost of an operation on given secrets; `where` begins the sentence of an error."""
    where = f"{session[0].name}: {where}"
    shares = share_all(session, secrets)
    try:
        ran, bound = run(session, operation, shares, name=where, dealer=dealer)
        found = list(results(session, ran.results))
    except TercetError as cause:
        raise ProtocolError(f"{where}: {cause}") from cause
    except Exception as cause:
        raise ProtocolError(f"{where}: it raises {type(cause).__name__}: {cause}") from cause
    expected = operation.expected([secret.words for secret in secrets])
    check_result(where, operation, found, expected, rows, operation.tolerance(session[0]))
    declared = operation.cost(bound[0], shares[0])
    if operation.is_fixed(rows) and (ran.rounds, ran.sent) != (declared.rounds, declared.sent):
        raise ProtocolError(
            f"{where}: it took {ran.rounds} rounds and sent {ran.sent} bytes, but declares "
            f"{declared.rounds} rounds and {declared.sent} bytes"
        )


def check_result(
    where: str,
    operation: Operation,
    results: list[Words],
    expected: list[Words],
    rows: int,
    tolerance: int,
) -> None:
    """Compare results with what is expected, each word to within `tolerance` units; raises ProtocolError."""
    if operation.packed:
        results = [bitplanes.unpack_bits(words, rows).astype(np.uint64) for words in results]
    if [words.shape for words in results] != [words.shape for words in expected]:
        shapes = [words.shape for words in results], [words.shape for words in expected]
        raise ProtocolError(f"{where}: the results have shapes {shapes[0]}, not {shapes[1]}")
    if operation.drawn:
        return
    if operation.unordered:
        results, expected = _in_order(results), _in_order(expected)
    for got, want in zip(results, expected, strict=True):
        off = np.abs((got - want).view(np.int64)) if got.size else np.zeros(1, dtype=np.int64)
        worst = int(off.view(np.uint64).max())
        if worst > tolerance:
            place = int(off.view(np.uint64).argmax())
            raise ProtocolError(
                f"{where}: element {place} is off by {worst} units, of which {tolerance} are "
                f"allowed: {_number(got, place)} for {_number(want, place)}"
            )


def _number(words: Words, place: int) -> int:
    return int(words.reshape(-1).view(np.int64)[place])


def _in_order(columns: list[Words]) -> list[Words]:
    rows = np.concatenate(
        [words.reshape(math.prod(words.shape[:-1]), -1 if words.size else 0) for words in columns]
    )
    return [rows[:, np.lexsort(rows)]]
