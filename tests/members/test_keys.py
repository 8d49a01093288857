"""Members' keys: what is sealed opens for one, what is signed holds for one purpose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import ConsentError
from tercet.members.keys import SEALED_MORE, MemberKeys, seal, verify
from tercet.transports import make_identity

ANN, BOB = (MemberKeys(make_identity(name)) for name in ("ann", "bob"))


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_is_sealed_opens_for_one(message, context):
    sealed = seal(message, ANN.sealing_key, context)
    assert len(sealed) == len(message) + SEALED_MORE
    assert ANN.open(sealed, context) == message
    with pytest.raises(ConsentError, match="does not open with the key of bob"):
        BOB.open(sealed, context)
    with pytest.raises(ConsentError):
        ANN.open(sealed, context + b"x")


@given(st.data())
def test_a_changed_or_cut_message_does_not_open(data):
    sealed = bytearray(seal(b"a result", ANN.sealing_key, b""))
    place = data.draw(st.integers(0, len(sealed) - 1))
    cut = bytes(sealed[:place])
    # The top bit of an X25519 key is ignored by the curve, but not by the key that is made from it.
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    for wrong in (bytes(sealed), cut):
        with pytest.raises(ConsentError):
            ANN.open(wrong, b"")


def test_signatures_hold_for_one_purpose():
    signature = ANN.sign(b"approval", b"plan")
    certificate = ANN.identity.certificate_pem
    assert verify(certificate, b"approval", b"plan", signature)
    assert not verify(certificate, b"rules", b"plan", signature)
    assert not verify(certificate, b"approval", b"another", signature)
    assert not verify(BOB.identity.certificate_pem, b"approval", b"plan", signature)


def test_fingerprints_are_each_members_own():
    assert ANN.fingerprint(b"table") == ANN.fingerprint(b"table") != BOB.fingerprint(b"table")
    assert ANN.fingerprint(b"table") != ANN.fingerprint(b"tables")
