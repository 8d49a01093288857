"""Shuffles by experiment: the order of rows is new each time, and no party alone knows it.

Orders of `ROWS` rows are compared: that of one shuffle with the rows' own, with that of another operation,
and with that of a session in which all keys are new but those of one party. Two orders are related if the
places of too many rows agree, or differ by the same (a sum, a difference or an XOR); for independent orders
that has a chance below 5e-9. All orders together must be uniform: a chi-square test, with a chance of
`FALSE_ALARM`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import BITS
from tercet.testing.lockstep import lockstep, reconstruct, share
from tercet.testing.secrecy import limit, with_keys_of
from tercet.testing.watch import new_session, observe

ROWS = 64
MOST_AGREEING = 13
"""More rows agree in a given way with a chance below 1/14!, and there are 384 ways."""
BLOCKS = 8

Order = npt.NDArray[np.int64]


def check_permutations(cls: type[Protocol], *, parties: int) -> None:
    """Check orders of shuffles with every dealer; raises ProtocolError."""
    orders: list[Order] = []
    for dealer in range(parties):
        where = f"{cls.name}: shuffle with dealer {dealer}"
        session = new_session(cls, parties)
        shares = _dealt(session)
        first, second = (_order(session, shares, dealer, name) for name in ("first", "second"))
        for one in (first, second):
            _check_unlike(f"{where}: rows keep an order that everybody knows", one, np.arange(ROWS))
        _check_unlike(f"{where}: two operations of one session move rows alike", first, second)
        orders += [first, second]
        for known in session if parties > 1 else ():
            new = observe(with_keys_of(cls, known, new_session(cls, parties)))
            other = _order(new, shares, dealer, "first")
            _check_unlike(f"{where}: party {known.party} knows the order by its keys alone", first, other)
            orders.append(other)
    _check_uniform(cls, orders)


def _dealt(session: Sequence[Protocol]) -> list[list[Share]]:
    """Each party's shares of the rows' numbers, as numbers and as bits."""
    rows = np.arange(ROWS, dtype=np.uint64)
    columns = [share(session, rows), share(session, rows, domain=BITS)]
    return [[column[party] for column in columns] for party in range(len(session))]


def _order(session: Sequence[Protocol], shares: Sequence[list[Share]], dealer: int, name: str) -> Order:
    """What row came to each place."""
    bound = [protocol.bind(name, dealer=dealer) for protocol in session]
    found = lockstep([p.shuffle(s) for p, s in zip(bound, shares, strict=True)]).results
    numbers, bits = (reconstruct(session, [one[column] for one in found]) for column in range(2))
    if not np.array_equal(numbers, bits) or not np.array_equal(np.sort(numbers), np.arange(ROWS)):
        raise ProtocolError(
            f"{session[0].name}: a shuffle does not move all columns' rows by one permutation"
        )
    return numbers.astype(np.int64)


_RELATIONS: tuple[Callable[[Order, Order], Order], ...] = (
    lambda one, two: (one - two) % ROWS,
    lambda one, two: (one + two) % ROWS,
    lambda one, two: one ^ two,
)


def _check_unlike(what: str, one: Order, two: Order) -> None:
    """Whether places of rows in two orders are unrelated, or rows at places; raises ProtocolError."""
    for a, b in ((one, two), (np.argsort(one), np.argsort(two))):
        worst = max(int(np.bincount(relation(a, b), minlength=ROWS).max()) for relation in _RELATIONS)
        if worst > MOST_AGREEING:
            raise ProtocolError(f"{what}: {worst} of {ROWS} rows agree")


def _check_uniform(cls: type[Protocol], orders: Sequence[Order]) -> None:
    """Whether rows from each block of places come to each as often; raises ProtocolError."""
    wide = ROWS // BLOCKS
    cells = np.concatenate([order // wide * BLOCKS + np.arange(ROWS) // wide for order in orders])
    counts = np.bincount(cells, minlength=BLOCKS**2)
    expected = len(orders) * ROWS / BLOCKS**2
    chi = float(np.sum((counts - expected) ** 2) / expected)
    # An order fills every block just once, so there are fewer degrees of freedom, of a little more each.
    most = limit((BLOCKS - 1) ** 2) * ROWS / (ROWS - 1)
    if chi > most:
        raise ProtocolError(
            f"{cls.name}: rows do not come to all places alike: chi-square is {chi:.0f}, above {most:.0f}"
        )


__all__ = ["check_permutations"]
