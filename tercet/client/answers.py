"""Putting the answers of all nodes to one question together: what a plan has revealed, or the one error.

This is where a revealed number becomes whole, at the client only. Pure, and apart from the lines over which
the answers come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tercet.actors.values import read_type
from tercet.client.connection import Answer
from tercet.errors import PeerLost, ProtocolError, StorageError, TercetError
from tercet.members.rules import LATEST
from tercet.plans.plan import Plan
from tercet.plans.types import Form, word_shape
from tercet.protocols.base import Protocol
from tercet.protocols.domains import WORD_BYTES, decode
from tercet.transports.names import party_name

DIGEST_WORDS = 64
"""Words that a node's part of a revealed value may have besides the shares that it holds."""


def most_revealed(protocol: type[Protocol], plan: Plan) -> int:
    """Bytes that a node's part of what a plan reveals may have."""
    words = 0
    for node in plan.nodes:
        if node.kind == "reveal":
            words += protocol.held * math.prod(word_shape(node.types[0], plan.maxima)) + DIGEST_WORDS
    return words * WORD_BYTES


def combined(
    protocol: type[Protocol], answers: Sequence[Answer]
) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """What a plan has revealed, by name, of the parts that the nodes answered with."""
    found: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    starts = [0] * len(answers)
    for number, (name, _, fields, _) in enumerate(answers[0].body["revealed"]):
        kind = read_type(fields)
        parts = []
        for index, answer in enumerate(answers):
            arrays = []
            for shape in answer.body["revealed"][number][3]:
                size = math.prod(shape)
                arrays.append(answer.payload[starts[index] : starts[index] + size].reshape(shape))
                starts[index] += size
            parts.append(arrays)
        words = protocol.combine(parts, domain=kind.form.domain, shape=word_shape(kind, {}))
        found[name] = decode(words, kind.scale) if kind.form is Form.RING else words
    return found


def require_agreement(plan: str, said: Sequence[Any], what: str) -> None:
    """Raise ProtocolError, naming two of whom one is faulty, unless all nodes have said the same."""
    for index, one in enumerate(said[1:], 1):
        if one != said[0]:
            raise ProtocolError(
                f"{party_name(0)} and {party_name(index)} say different things of {what} plan {plan!r}; one "
                "of them is faulty, and the result was thrown away"
            )


def agreed(plan: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """What all nodes say of a result beside their parts: names, receivers, types, symbols, what was stored.

    One node's word on the scale, the name or the row count of a result would be enough to make it wrong.
    Raises ProtocolError if they differ.
    """
    bodies = [answer.body for answer in answers]
    require_agreement(
        plan, [[list(one)[:3] for one in body["revealed"]] for body in bodies], "the results of"
    )
    for part, what in (("stored", "what was stored by"), ("symbols", "numbers of rows in")):
        require_agreement(plan, [body[part] for body in bodies], what)
    return bodies[0]


def verdict(errors: Mapping[int, TercetError]) -> TercetError:
    """The one error for the caller, of those that the nodes answered with.

    A cause comes before a run that was cancelled, and that before a lost peer; what a node found itself
    before what it has from another. The node is named if it is about a disk, or another party's doing. Of
    lost peers, the accused is who most nodes have lost; if it answered itself, it lives, and the fault is
    between it and its accuser.
    """
    index, error = min(errors.items(), key=lambda item: _rank(item[1]))
    if isinstance(error, StorageError):
        named = error.at(party_name(index))
        return named if named.party == party_name(index) else named.heard(party_name(index))
    if isinstance(error, ProtocolError):
        return error.heard(party_name(index))
    if not isinstance(error, PeerLost):
        return error
    accusations = {index: one for index, one in errors.items() if _rank(one) == _rank(error)}
    votes = Counter(one.peer for one in accusations.values() if isinstance(one, PeerLost))
    accused = max(votes, key=lambda name: votes[name])
    accuser, first = next((index, one) for index, one in accusations.items() if _accuses(one, accused))
    if any(party_name(index) == accused for index in errors):
        return PeerLost(
            f"{party_name(accuser)} and {accused} lost each other, though both answer the client; "
            f"look at the network between them ({first})",
            peer=accused,
        )
    return first


def _rank(error: TercetError) -> tuple[bool, bool, bool]:
    """The lower, the more an error explains."""
    return isinstance(error, PeerLost), type(error) is TercetError, bool(error.said_by)


def _accuses(error: TercetError, party: str) -> bool:
    return isinstance(error, PeerLost) and error.peer == party


def alike(told: Sequence[Mapping[str, Any]], name: str) -> str:
    """What all nodes say alike, for people; one that lies does not choose what they read."""
    said = {str(one[name]) for one in told}
    return said.pop() if len(said) == 1 else f"(the nodes say different ones: no {name} to go by)"


def binary(value: Any) -> bytes:
    """Bytes that a node has sent. Raises TypeError for anything else."""
    if type(value) is not bytes:
        raise TypeError(f"{value!r:.80} is no bytes")
    return value


def time_of(value: Any) -> float:
    """A time that a node has sent. Raises TypeError or ValueError for what is none."""
    if not 0 <= value < LATEST:
        raise ValueError(f"{value!r:.80} is no time")
    return float(value)
