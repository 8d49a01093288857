"""Messages that somebody vouches for: what a protocol says against a party that lies.

A message has a sender, and one or more vouchers who know the same words. The receiver gets the words and each
voucher's tag of them in the same round, and stops at once where they do not fit: nothing that hangs on a lie
is ever sent. A check that comes later, as several published protocols have it, leaks secrets (eprint
2026/234): one altered message makes what two honest parties say next differ by a component that the liar
lacks.

A tag is AES-GCM's (NIST SP 800-38D, with nothing to encrypt) under a key that voucher and receiver share and
a nonce from the name of the message, so the sender cannot know it: n blocks of words pass for others with a
chance of about n / 2^128.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tercet.errors import ProtocolError
from tercet.protocols.domains import WORD_BYTES, Words
from tercet.protocols.prg import derive_key
from tercet.protocols.shares import Cost, Op, Round, Shape

if TYPE_CHECKING:
    from tercet.protocols.base import Protocol

TAG_WORDS = 2
_SHORT = 1 << 16
"""Bytes below which it is quicker to join arrays than to hand them to the cipher one by one."""
_MOST_AT_ONCE = 1 << 30
"""Bytes that the cipher is handed at a time: its library fails from 2^31 on, and takes the process down."""


@attrs.frozen
class Message:
    """One array on its way: who sends it, who vouches for it, who gets it, and its shape."""

    sender: int
    vouchers: tuple[int, ...]
    receiver: int
    shape: Shape

    @property
    def size(self) -> int:
        """Its words."""
        return math.prod(self.shape)


class Tags:
    """Tags under the key of one pair of parties; each nonce is used once."""

    def __init__(self, key: bytes) -> None:
        self._nonces = derive_key(key, b"nonces of tags")
        self._key = derive_key(key, b"tags", 16)
        self._short = AESGCM(self._key)

    def tag(self, name: bytes, arrays: Sequence[Words]) -> Words:
        """The tag of some arrays, in order, as two words."""
        nonce = derive_key(self._nonces, name, 12)
        views = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]
        size = sum(len(view) for view in views)
        if size < _SHORT or (len(views) == 1 and size <= _MOST_AT_ONCE):
            joined = views[0] if len(views) == 1 else b"".join(views)
            return np.frombuffer(self._short.encrypt(nonce, b"", joined), dtype=np.uint64)
        encryptor = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        for view in views:
            for start in range(0, len(view), _MOST_AT_ONCE):
                encryptor.authenticate_additional_data(view[start : start + _MOST_AT_ONCE])
        encryptor.finalize()
        return np.frombuffer(encryptor.tag, dtype=np.uint64)


def tell(
    protocol: Protocol, messages: Sequence[Message], known: Sequence[Words | None]
) -> Op[list[Words | None]]:
    """Say some messages, vouched for: 1 round. Returns for each message the words that this party was told.

    `known` has the words of each message at its sender and its vouchers; every party passes the same
    messages. Cost: `tell_cost`. Raises ProtocolError, naming sender and voucher, where they do not say the
    same.
    """
    tag, me = protocol.tag(), protocol.party
    send: dict[int, list[Words]] = {}
    recv: dict[int, list[Shape]] = {}
    for message, words in zip(messages, known, strict=True):
        if message.sender == me and words is not None:
            send.setdefault(message.receiver, []).append(np.ascontiguousarray(words).reshape(message.shape))
        elif message.receiver == me:
            recv.setdefault(message.sender, []).append(message.shape)
    checks: list[tuple[tuple[int, int, int], list[int]]] = []
    for trio, covered in _covered(messages):
        sender, voucher, receiver = trio
        if voucher == me:
            vouched = [words for words in (known[index] for index in covered) if words is not None]
            send.setdefault(receiver, []).append(_tag(protocol, receiver, tag, trio, vouched))
        elif receiver == me:
            recv.setdefault(voucher, []).append((TAG_WORDS,))
            checks.append((trio, covered))
    got = yield Round(send, recv)
    arriving = {peer: iter(arrays) for peer, arrays in got.items()}
    told = {
        index: next(arriving[message.sender])
        for index, message in enumerate(messages)
        if message.receiver == me
    }
    for trio, covered in checks:
        sender, voucher, _ = trio
        due = _tag(protocol, voucher, tag, trio, [told[index] for index in covered])
        if not np.array_equal(next(arriving[voucher]), due):
            raise ProtocolError(
                f"party {sender} and party {voucher} tell party {me} different things, so one of them is "
                "faulty; the run was given up before anything that hangs on it was said"
            )
    return [told.get(index) for index in range(len(messages))]


def tell_cost(parties: int, messages: Iterable[Message]) -> Cost:
    """Cost of `tell`: the words, and a tag for each sender, voucher and receiver."""
    sent, listed = [0] * parties, list(messages)
    for message in listed:
        sent[message.sender] += message.size * WORD_BYTES
    for (_, voucher, _), _ in _covered(listed):
        sent[voucher] += TAG_WORDS * WORD_BYTES
    return Cost(1, tuple(sent))


def _covered(messages: Sequence[Message]) -> Iterator[tuple[tuple[int, int, int], list[int]]]:
    """For each sender, voucher and receiver, the messages that one tag covers."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for index, message in enumerate(messages):
        for voucher in message.vouchers:
            found.setdefault((message.sender, voucher, message.receiver), []).append(index)
    return iter(found.items())


def _tag(
    protocol: Protocol, peer: int, tag: str, trio: tuple[int, int, int], arrays: Sequence[Words]
) -> Words:
    sender, voucher, receiver = trio
    name = f"{tag}/{sender} to {receiver}, vouched for by {voucher}"
    return protocol.tags(peer).tag(name.encode(), arrays)


__all__ = ["TAG_WORDS", "Message", "Tags", "tell", "tell_cost"]
