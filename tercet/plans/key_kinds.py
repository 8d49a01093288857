"""Plan nodes on the keys of rows: pseudonyms that nobody can make, and numbers that everybody can.

A join needs the former: under a key that nobody knows, they may be opened once rows are shuffled. A split
that can be repeated needs the latter: they follow from a row's key and a public seed, whatever the protocol,
the run or the machine. Whoever knows keys can work them out, so they stay secret, as numbers to sort by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tercet.plans.kinds import Along, Context, Data, Kind, Sizes, fields, kind, require
from tercet.plans.types import Form, Node, Type
from tercet.protocols import defaults
from tercet.protocols.base import Cost, Op, Protocol, Share
from tercet.protocols.bitplanes import to_planes
from tercet.protocols.circuits import ascon_prf_short
from tercet.protocols.domains import BITS, WORD_BITS, Words

SEED_WORDS = 2
MOST_NUMBER_BITS = 61
"""Sums of a few such numbers stay within the ring."""


@kind("prf")
class PseudoRandomFunction(Kind):
    """Keyed pseudonyms of 128-bit keys: Ascon-PRFshort under a shared key."""

    along = Along.LAST
    local = False
    weight = 64

    def rowwise(self, node: Node, args: Sequence[Type], position: int) -> bool:
        return position == 1

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        key, message = args
        require(key.form is Form.WORDS and key.shape == (2,), "the key is two secret words")
        require(
            message.form is Form.WORDS and message.shape[:-1] == (2,), "messages are two secret words each"
        )
        return [message]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[Share]:
        key, message = (arg for arg in args if isinstance(arg, Share))
        return ascon_prf_short(protocol, key, message)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        cost: Cost = ascon_prf_short.declared_cost(protocol, *args)  # type: ignore[attr-defined]
        return cost


@kind("key_numbers")
class KeyNumbers(Kind):
    """Numbers below 2^bits of 128-bit keys `(2, n)`: the leading bits of pseudonyms under a public key.

    That key is 16 bytes of the plan. As Ascon-PRFshort gives them, uniform over keys: 12 rounds, and those of
    turning bits into numbers.
    """

    along = Along.EACH
    local = False
    weight = 128
    attributes = fields(key=bytes, bits=int)

    def infer(self, args: Sequence[Type], attributes: Mapping[str, Any], sizes: Sizes) -> list[Type]:
        (message,), bits = args, int(attributes["bits"])
        require(
            message.form is Form.WORDS and message.shape[:-1] == (2,), "messages are two secret words each"
        )
        require(len(attributes["key"]) == 8 * SEED_WORDS, "the public key has 16 bytes")
        require(1 <= bits <= MOST_NUMBER_BITS, f"numbers of {bits} bits do not fit a word")
        return [Type(Form.RING, (message.rows,), 0, float(2**bits - 1))]

    def run(self, node: Node, protocol: Protocol, args: Sequence[Data], context: Context) -> Op[Share]:
        (message,) = (arg for arg in args if isinstance(arg, Share))
        words = np.frombuffer(node.get("key"), dtype="<u8").astype(np.uint64)
        key = protocol.constant(words, domain=BITS)
        tags = yield from ascon_prf_short(protocol, key, message)
        bits, rows = int(node.get("bits")), message.shape[1]

        def planes(component: Words) -> Words:
            return to_planes(component[0] >> np.uint64(WORD_BITS - bits), bits)

        ones = yield from defaults.planes_to_ring(protocol, tags.map(planes), rows)
        return defaults.weigh(protocol, ones)

    def cost(self, node: Node, protocol: Protocol, args: Sequence[Share], rows: int) -> Cost:
        bits, key = int(node.get("bits")), protocol.spec((SEED_WORDS,), domain=BITS)
        tags: Cost = ascon_prf_short.declared_cost(protocol, key, args[0])  # type: ignore[attr-defined]
        return tags + defaults.planes_to_ring_cost(protocol, bits, args[0].shape[1])
