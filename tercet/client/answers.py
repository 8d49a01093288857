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
from tercet.errors import PeerLost, StorageError, TercetError
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


def verdict(errors: Mapping[int, TercetError]) -> TercetError:
    """The one error for the caller, of those that the nodes answered with.

    A cause other than a lost peer comes first, with the node if it is about a disk. Otherwise the accused is
    who most nodes have lost; if it answered itself, it lives, and the fault is between it and its accuser.
    """
    for index, error in errors.items():
        if isinstance(error, StorageError):
            return error.at(party_name(index))
        if not isinstance(error, PeerLost):
            return error
    accusations = {index: error for index, error in errors.items() if isinstance(error, PeerLost)}
    votes = Counter(error.peer for error in accusations.values())
    accused = max(votes, key=lambda name: votes[name])
    accuser, first = next((index, error) for index, error in accusations.items() if error.peer == accused)
    if any(party_name(index) == accused for index in accusations):
        return PeerLost(
            f"{party_name(accuser)} and {accused} lost each other, though both answer the client; "
            f"look at the network between them ({first})",
            peer=accused,
        )
    return first
