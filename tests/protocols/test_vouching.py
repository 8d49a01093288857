"""Messages that somebody vouches for: tags, and who is named where two do not say the same."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tercet.errors import ProtocolError
from tercet.protocols import vouching
from tercet.protocols.rep4 import Rep4
from tercet.protocols.vouching import Message, Tags, tell, tell_cost
from tercet.testing import lockstep, parties

WORDS = np.arange(40, dtype=np.uint64)


def test_tags_are_of_the_whole_in_order_whatever_way_they_are_made(monkeypatch):
    tags = Tags(bytes(32))
    halves = [WORDS[:13], WORDS[13:]]
    whole = tags.tag(b"one", [WORDS])
    assert np.array_equal(whole, tags.tag(b"one", halves))
    monkeypatch.setattr(vouching, "_SHORT", 0)
    assert np.array_equal(whole, tags.tag(b"one", halves))
    monkeypatch.setattr(vouching, "_MOST_AT_ONCE", 48)
    assert np.array_equal(whole, tags.tag(b"one", halves))
    assert np.array_equal(whole, tags.tag(b"one", [WORDS]))
    others = [
        tags.tag(b"two", [WORDS]),
        tags.tag(b"one", [WORDS[::-1]]),
        tags.tag(b"one", halves[::-1]),
        tags.tag(b"one", [WORDS[:-1]]),
        Tags(bytes([1]) * 32).tag(b"one", [WORDS]),
    ]
    assert all(np.count_nonzero(whole == other) == 0 for other in others)


def test_a_tag_is_the_one_of_aes_gcm():
    """With nothing to encrypt, over the words as they travel: little-endian, one after the other."""
    tags = Tags(bytes(range(32)))
    nonce = vouching.derive_key(tags._nonces, b"name", 12)
    expected = AESGCM(tags._key).encrypt(nonce, b"", WORDS.astype("<u8").tobytes())
    assert tags.tag(b"name", [WORDS]).tobytes() == expected


MESSAGES = [
    Message(0, (1,), 2, (5,)),
    Message(0, (1, 3), 2, (2, 3)),
    Message(3, (0,), 1, ()),
    Message(1, (2,), 3, (0,)),
]


def said(protocol, changed=None):
    """What each party knows of the messages; one of them may know something else."""
    words = [np.full(message.shape, 7 + index, dtype=np.uint64) for index, message in enumerate(MESSAGES)]
    if changed is not None and changed[0] == protocol.party:
        words[changed[1]] = words[changed[1]] + np.uint64(1)
    return [
        one if protocol.party in (message.sender, *message.vouchers) else None
        for one, message in zip(words, MESSAGES, strict=True)
    ]


def told(changed=None):
    session = [protocol.bind("told") for protocol in parties(Rep4)]
    return lockstep([tell(protocol, MESSAGES, said(protocol, changed)) for protocol in session])


def test_everybody_is_told_what_is_meant_for_it_at_the_declared_cost():
    ran = told()
    for party, got in enumerate(ran.results):
        for index, (message, words) in enumerate(zip(MESSAGES, got, strict=True)):
            assert (words is not None) == (message.receiver == party)
            if words is not None:
                assert words.shape == message.shape
                assert np.all(words == 7 + index)
    assert (ran.rounds, ran.sent) == (1, tell_cost(4, MESSAGES).sent)
    assert ran.sent == (8 * 11 + 16, 16, 16, 8 + 16)


@pytest.mark.parametrize(
    ("liar", "message", "named"),
    [(0, 0, "party 0 and party 1 tell party 2"), (1, 0, "0 and party 1"), (3, 1, "0 and party 3"),
     (3, 2, "party 3 and party 0 tell party 1"), (0, 2, "party 3 and party 0")],
)  # fmt: skip
def test_two_parties_are_named_of_whom_one_lies(liar, message, named):
    with pytest.raises(ProtocolError, match=named):
        told((liar, message))
