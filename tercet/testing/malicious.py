"""Lies by experiment: with a protocol against a party that cheats, no lie goes unnoticed.

`check_malicious(MyProtocol)` lets one party lie, every party in turn, in every message of every operation:
each word and each tag is changed in one bit and in all, arrays are cut, lengthened, swapped, left out, and
replaced by what the party said in another round or in another session. Whoever is lied to has to stop before
it says anything more: that somebody notices in the end is not enough, for what honest parties say meanwhile
tells secrets (eprint 2026/234). A party that works on a share which it changed has to be caught too, or to
change nothing.

A run is recorded once, and then played again for the party that is lied to alone, with one lie in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import ProtocolError, TercetError
from tercet.protocols.base import Op, Protocol, Received, Round, Share
from tercet.protocols.domains import Words
from tercet.testing.correctness import check_result
from tercet.testing.lockstep import lockstep, parties
from tercet.testing.operations import OPERATIONS, Operation, edges
from tercet.testing.watch import results, share_all

ROWS = 3
POSITIONS = 24
"""Words of an array that are changed, spread over it, unless all are asked for."""
_SEED = b"malicious"


@attrs.frozen(eq=False)
class Lie:
    """What one party says in the place of the truth."""

    what: str
    arrays: Sequence[Words]


def check_malicious(
    cls: type[Protocol],
    parties: int | None = None,
    *,
    operations: Sequence[Operation] = OPERATIONS,
    positions: int | None = POSITIONS,
) -> int:
    """Check that every lie of one party is noticed at once; returns how many were told.

    `positions` is the number of words that are changed in each array, None for all. Raises ProtocolError that
    names the operation and the lie.
    """
    count = cls.sizes[0] if parties is None else parties
    if not cls.malicious:
        raise ProtocolError(
            f"{cls.name} does not claim to withstand a party that lies; see `Protocol.malicious`"
        )
    told = 0
    for number, operation in enumerate(operations):
        told += _check_messages(cls, operation, count, number % count, positions)
        told += _check_shares(cls, operation, count, number % count)
    return told


# -- a run, on record ----------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Record:
    """A run of an operation: what each party got in each round, and what it expected."""

    cls: type[Protocol]
    operation: Operation
    dealer: int
    shares: Sequence[list[Share]]
    expected: Sequence[Words]
    rounds: Sequence[Sequence[tuple[Round, Received]]]
    """By party, then by round."""

    def begin(self, party: int, *, seed: bytes = _SEED) -> Op[list[Any]]:
        """One party's part, from the start, with the keys of the session that is on record."""
        protocol = parties(self.cls, len(self.shares), seed=seed)[party]
        return self.operation.run(_bound(protocol, self), list(self.shares[party]))

    def said(self, number: int, sender: int, receiver: int) -> Sequence[Words]:
        """What one party said to another in a round."""
        return self.rounds[receiver][number][1].get(sender, [])


def _bound(protocol: Protocol, record: _Record) -> Protocol:
    allowance = record.operation.openings(list(record.shares[protocol.party]))
    return protocol.bind("lies", dealer=record.dealer, openings=allowance)


def _noted(operation: Op[Any], log: list[tuple[Round, Received]]) -> Op[Any]:
    try:
        step = next(operation)
        while True:
            got = yield step
            log.append((step, {peer: list(arrays) for peer, arrays in got.items()}))
            step = operation.send(got)
    except StopIteration as stop:
        return stop.value


def _record(
    cls: type[Protocol], operation: Operation, count: int, dealer: int, seed: bytes = _SEED
) -> _Record:
    session = parties(cls, count, seed=seed)
    secrets = operation.inputs(edges(np.random.default_rng(3)), ROWS)
    logs: list[list[tuple[Round, Received]]] = [[] for _ in session]
    expected = operation.expected([secret.words for secret in secrets])
    record = _Record(cls, operation, dealer, share_all(session, secrets), expected, logs)
    running = [_noted(record.begin(party, seed=seed), log) for party, log in enumerate(logs)]
    lockstep(running)
    return record


# -- lies in messages ----------------------------------------------------------------------------------------


def _check_messages(
    cls: type[Protocol], operation: Operation, count: int, dealer: int, positions: int | None
) -> int:
    record = _record(cls, operation, count, dealer)
    other = _record(cls, operation, count, dealer, b"another session")
    told = 0
    for receiver, steps in enumerate(record.rounds):
        for number in range(len(steps)):
            for sender, arrays in steps[number][1].items():
                for lie in _lies(record, other, number, sender, receiver, positions):
                    told += 1
                    if not _noticed(record, receiver, number, sender, lie.arrays):
                        raise ProtocolError(
                            f"{cls.name}: {operation.name} with dealer {dealer}: party {receiver} goes on "
                            f"after round {number} though party {sender} {lie.what} of {len(arrays)} for it"
                        )
    return told


def _lies(
    record: _Record, other: _Record, number: int, sender: int, receiver: int, positions: int | None
) -> Iterator[Lie]:
    """All lies of one party to another in one round."""
    truth = record.said(number, sender, receiver)
    for index, array in enumerate(truth):

        def instead(words: Words, index: int = index) -> list[Words]:
            return [words if place == index else kept for place, kept in enumerate(truth)]

        rng = np.random.default_rng((number, sender, receiver, index))
        for position in _positions(array.size, positions):
            flips = ("a bit", np.uint64(1) << np.uint64(rng.integers(64))), ("all bits", ~np.uint64(0))
            for name, flip in flips:
                changed = array.copy()
                changed.reshape(-1)[position] ^= flip
                yield Lie(f"changes {name} of word {position} of array {index}", instead(changed))
        yield Lie(f"cuts array {index}", instead(array.reshape(-1)[:-1]))
        yield Lie(f"lengthens array {index}", instead(np.append(array.reshape(-1), np.uint64(0))))
        for place in range(index):
            swapped = list(truth)
            swapped[index], swapped[place] = swapped[place], swapped[index]
            yield Lie(f"swaps arrays {place} and {index}", swapped)
        if array.size > 1:
            yield Lie(
                f"turns array {index} round", instead(array.reshape(-1)[::-1].reshape(array.shape).copy())
            )
    if truth:
        yield Lie("sends nothing", [])
        yield Lie(
            "says in another session what it does not say in this one,", other.said(number, sender, receiver)
        )
    for earlier in range(number):
        said = record.said(earlier, sender, receiver)
        if [words.shape for words in said] == [words.shape for words in truth]:
            yield Lie(f"says again what it said in round {earlier}, in the place", said)


def _positions(size: int, most: int | None) -> Iterator[int]:
    if most is None or size <= most:
        yield from range(size)
    else:
        yield from np.linspace(0, size - 1, most).astype(int).tolist()


def _noticed(record: _Record, receiver: int, number: int, sender: int, arrays: Sequence[Words]) -> bool:
    """Whether a party that is lied to in a round stops there; lies that are true by chance are none."""
    truth = record.said(number, sender, receiver)
    if _same(truth, arrays):
        return True
    step, got = record.rounds[receiver][number]
    if [words.shape for words in arrays] != [tuple(shape) for shape in step.recv.get(sender, [])]:
        return True  # nothing of another size reaches the protocol: whoever runs it checks that
    operation = record.begin(receiver)
    next(operation)
    for _, earlier in record.rounds[receiver][:number]:
        operation.send(earlier)
    try:
        operation.send({**got, sender: [_readonly(words) for words in arrays]})
    except StopIteration:
        return False
    except ProtocolError:
        return True
    return False


def _same(one: Sequence[Words], two: Sequence[Words]) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _readonly(words: Words) -> Words:
    view = words.view()
    view.flags.writeable = False
    return view


# -- lies in what a party works on ---------------------------------------------------------------------------


def _check_shares(cls: type[Protocol], operation: Operation, count: int, dealer: int) -> int:
    """Each party in turn works on shares with one word changed: it is caught, or the result is right."""
    record = _record(cls, operation, count, dealer)
    told = 0
    for liar in range(count):
        for index, share in enumerate(record.shares[liar]):
            for component in range(len(share.data)):
                told += 1
                where = (
                    f"{cls.name}: {operation.name} with dealer {dealer}: party {liar} changes component "
                    f"{component} of its share of input {index}"
                )
                _check_lying(record, liar, index, component, where)
    return told


def _check_lying(record: _Record, liar: int, index: int, component: int, where: str) -> None:
    data = record.shares[liar][index].data.copy()
    if not data[component].size:
        return
    data[component].reshape(-1)[0] ^= np.uint64(1) << np.uint64(20)
    mine = list(record.shares[liar])
    mine[index] = mine[index].like(data)
    changed = attrs.evolve(record, shares=[mine if p == liar else s for p, s in enumerate(record.shares)])
    session = parties(record.cls, len(record.shares), seed=_SEED)
    try:
        ran = lockstep([changed.begin(party) for party in range(len(session))])
        found = _found(session, ran.results, liar)
    except TercetError:
        return
    operation = record.operation
    check_result(where, operation, found, list(record.expected), ROWS, operation.tolerance(session[0]))


def _found(session: Sequence[Protocol], ran: Sequence[list[Any]], liar: int) -> list[Words]:
    """The results; what is opened, as an honest party sees it."""
    honest = (liar + 1) % len(session)
    opened: Mapping[int, Any] = dict(enumerate(ran[honest]))
    patched = [
        [opened[index] if isinstance(value, np.ndarray) else value for index, value in enumerate(one)]
        for one in ran
    ]
    return list(results(session, patched))


__all__ = ["POSITIONS", "check_malicious"]
