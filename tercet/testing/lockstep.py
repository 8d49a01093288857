"""Run all parties of an operation in one thread, round by round, without a network or an event loop.

The driver is what makes protocol code testable: it hands every party what the others sent, checks that what
is sent is what is expected, and keeps count. A round is one `yield`; parties that have nothing to say in it
yield all the same. What arrives is read-only, as buffers from a network are, and a party that overwrites what
it has sent is caught.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from typing import Any, Generic

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Op, Protocol, Received, Round, Share, T
from tercet.protocols.domains import Z64, Domain, Words
from tercet.protocols.prg import KEY_BYTES, derive_key


@attrs.frozen(eq=False)
class Message:
    """One array that a party received: in which round, from whom, and the words."""

    round: int
    sender: int
    words: Words


@attrs.frozen(eq=False)
class LockstepResult(Generic[T]):
    """What came of a run: results, bytes sent and messages received, each by party, and rounds."""

    results: list[T]
    rounds: int
    sent: tuple[int, ...]
    transcript: list[list[Message]]

    def received(self, party: int) -> Words:
        """All words that `party` received, in order."""
        return np.concatenate(
            [np.empty(0, np.uint64), *(m.words.reshape(-1) for m in self.transcript[party])]
        )


def lockstep(operations: Sequence[Op[T]], *, record: bool = True) -> LockstepResult[T]:
    """Run one operation, given as one generator for each party in order, to its end.

    With `record=False` messages are neither copied nor kept, as suits a measurement. Raises ProtocolError,
    naming party, round and peer, if a message has another shape or type than is expected, goes nowhere, or is
    changed after it was sent, or if the parties do not take the same number of rounds; errors of the
    operations themselves pass through.
    """
    parties = len(operations)
    sent = [0] * parties
    transcript: list[list[Message]] = [[] for _ in operations]
    handed: list[tuple[int, int, Words, Words]] = []
    got: list[Received | None] = [None] * parties
    number = 0
    while True:
        steps = [_step(operation, received) for operation, received in zip(operations, got, strict=True)]
        rounds = [step for step, _ in steps if step is not None]
        _check_unchanged(handed)
        if not rounds:
            return LockstepResult([result for _, result in steps], number, tuple(sent), transcript)
        if len(rounds) < parties:
            done = [party for party, (step, _) in enumerate(steps) if step is None]
            raise ProtocolError(
                f"parties {done} finished after {number} rounds while others go on; all must take the same "
                "number of rounds, also where they have nothing to say"
            )
        arrived: list[dict[int, list[Words]]] = [{} for _ in operations]
        handed = []
        for sender, step in enumerate(rounds):
            for receiver, arrays in step.send.items():
                _check_sent(sender, receiver, number, arrays, parties)
                copies = [_message(array, copy=record) for array in arrays]
                sent[sender] += sum(array.nbytes for array in arrays)
                for array, copy in zip(arrays, copies, strict=True):
                    view = copy.view()
                    view.flags.writeable = False
                    arrived[receiver].setdefault(sender, []).append(view)
                    if record:
                        handed.append((sender, number, array, copy))
                        transcript[receiver].append(Message(number, sender, view))
        for receiver, (step, messages) in enumerate(zip(rounds, arrived, strict=True)):
            _check_received(receiver, number, step, messages)
        got = list(arrived)
        number += 1


def _step(operation: Op[T], received: Received | None) -> tuple[Round | None, Any]:
    try:
        return next(operation) if received is None else operation.send(received), None
    except StopIteration as stop:
        return None, stop.value


def _message(array: Words, *, copy: bool) -> Words:
    """What arrives of an array: contiguous words of its shape."""
    return np.ascontiguousarray(array.copy() if copy else array).reshape(array.shape)


def _check_sent(sender: int, receiver: int, number: int, arrays: Sequence[Words], parties: int) -> None:
    if receiver == sender or receiver not in range(parties):
        raise ProtocolError(
            f"party {sender} sends to party {receiver} in round {number}, of {parties} parties"
        )
    for array in arrays:
        # numpy makes scalars of what has no axes; they travel like arrays.
        if not isinstance(array, np.ndarray | np.generic) or array.dtype != np.uint64:
            raise ProtocolError(
                f"party {sender} sends {getattr(array, 'dtype', type(array))} to party {receiver} in round "
                f"{number}; messages are arrays of uint64"
            )


def _check_received(receiver: int, number: int, step: Round, messages: dict[int, list[Words]]) -> None:
    for peer in sorted({*step.recv, *messages}):
        expected = [tuple(shape) for shape in step.recv.get(peer, [])]
        found = [array.shape for array in messages.setdefault(peer, [])]
        if expected != found:
            raise ProtocolError(
                f"in round {number} party {receiver} expects {expected} from party {peer}, but gets {found}"
            )


def _check_unchanged(handed: Sequence[tuple[int, int, Words, Words]]) -> None:
    for sender, number, array, copy in handed:
        if not np.array_equal(array, copy):
            raise ProtocolError(
                f"party {sender} overwrote an array that it sent in round {number}; it may not have left yet"
            )


def parties(cls: type[Protocol], n: int | None = None, *, seed: bytes | None = None) -> list[Protocol]:
    """One instance for each party of a session, with fresh keys, or keys derived from a seed."""
    count = cls.sizes[0] if n is None else n
    master = secrets.token_bytes(KEY_BYTES) if seed is None else derive_key(b"", b"seed/" + seed)
    keys: list[dict[int, bytes]] = [{} for _ in range(count)]
    for a, b in itertools.combinations(range(count), 2):
        keys[a][b] = keys[b][a] = derive_key(master, f"pair/{a}/{b}".encode())
    session = [cls(party=party, parties=count, keys=keys[party]) for party in range(count)]
    for missing, protocol in itertools.product(range(count if cls.group_keys else 0), session):
        if protocol.party != missing:
            key = derive_key(master, f"without/{missing}".encode())
            protocol.groups = {**protocol.groups, missing: key}
    return session


def share(
    protocols: Sequence[Protocol], words: Words, *, domain: Domain = Z64, scale: int = 0
) -> list[Share]:
    """Each party's share of `words`, dealt as an owner would."""
    dealt = type(protocols[0]).deal(words, domain=domain, parties=len(protocols))
    return [
        protocol.accept(parts, domain=domain, shape=words.shape, scale=scale)
        for protocol, parts in zip(protocols, dealt, strict=True)
    ]


def reconstruct(protocols: Sequence[Protocol], shares: Sequence[Share]) -> Words:
    """The value behind all parties' shares, cross-checked, as a receiver outside would see it."""
    parts = [protocol.export(x) for protocol, x in zip(protocols, shares, strict=True)]
    return type(protocols[0]).combine(parts, domain=shares[0].domain, shape=shares[0].shape)


__all__ = ["LockstepResult", "Message", "lockstep", "parties", "reconstruct", "share"]
