"""Lies of a party are noticed at once, and a protocol that notices one too late, or never, is caught."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import joint, rep4, vouching
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import Replicated
from tercet.protocols.vouching import Message
from tercet.testing import check_malicious
from tercet.testing.operations import OPERATIONS


def operations(*names):
    return [operation for operation in OPERATIONS if operation.name in names]


def test_no_lie_passes():
    assert check_malicious(Rep4, positions=3) > 2000


@pytest.mark.scale
def test_no_lie_passes_at_any_word():
    assert check_malicious(Rep4, positions=None) > 15_000


def test_a_protocol_that_trusts_is_refused():
    with pytest.raises(ProtocolError, match="does not claim"):
        check_malicious(Replicated)


def late(tell):
    """Messages that are checked in the round after the one in which they come, as published protocols do."""

    def checked_late(protocol, messages, known):
        doubtful = protocol.__dict__.setdefault("_doubtful", [])
        telling = tell(protocol, messages, known)
        got = yield next(telling)
        for earlier in doubtful:
            earlier()
        doubtful.clear()

        def check(got=got):
            try:
                telling.send(got)
            except StopIteration:
                return

        doubtful.append(check)
        order = {peer: iter(arrays) for peer, arrays in got.items()}
        return [
            next(order[message.sender]) if message.receiver == protocol.party else None
            for message in messages
        ]

    return checked_late


def unvouched(tell):
    """Messages that nobody vouches for."""

    def said(protocol, messages, known):
        bare = [Message(message.sender, (), message.receiver, message.shape) for message in messages]
        return (yield from tell(protocol, bare, known))

    return said


@pytest.mark.parametrize("defect", [late, unvouched])
@pytest.mark.parametrize("where", ["joint", "opening", "shuffle"])
def test_lies_that_pass_are_found(monkeypatch, defect, where):
    module, names = {
        "joint": (joint, ["truncate", "mul"]),
        "opening": (rep4, ["open"]),
        "shuffle": ("tercet.protocols.quad_shuffle", ["shuffle of one column of numbers and two of words"]),
    }[where]
    target = module if isinstance(module, str) else module.__name__
    monkeypatch.setattr(f"{target}.tell", defect(vouching.tell))
    with pytest.raises(ProtocolError, match="goes on after round"):
        check_malicious(Rep4, operations=operations(*names), positions=3)


def test_tags_of_first_words_are_found(monkeypatch):
    tag = vouching._tag
    monkeypatch.setattr(
        vouching,
        "_tag",
        lambda p, peer, name, trio, arrays: tag(
            p, peer, name, trio, [np.ravel(array)[:1] for array in arrays]
        ),
    )
    with pytest.raises(ProtocolError, match=r"goes on after round 0 though party \d changes a bit of word"):
        check_malicious(Rep4, operations=operations("truncate"), positions=3)


class BelievesReceivers(Rep4):
    """One copy of each component of a result goes out, and nothing to check it by."""

    @classmethod
    def combine(cls, parts, *, domain, shape):
        return domain.total(part[0] for part in parts).reshape(shape)


def test_wrong_shares_are_found():
    with pytest.raises(ProtocolError, match="changes component"):
        check_malicious(BelievesReceivers, operations=operations("reveal", "mul"), positions=0)
