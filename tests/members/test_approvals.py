"""Approvals hold for one lake, run, plan, signer and time; any other use is refused."""

from __future__ import annotations

import time

import attrs
import pytest

from tercet.errors import ConsentError
from tercet.members.approvals import Approval
from tercet.members.keys import MemberKeys
from tercet.transports import make_identity

ANN, BOB = (MemberKeys(make_identity(name)) for name in ("ann", "bob"))
LAKE, SESSION, DIGEST = b"lake", b"session", b"digest"
CERTIFICATE = ANN.identity.certificate_pem


def approval(**options):
    return Approval.make(LAKE, SESSION, DIGEST, ANN, **options)


def test_a_right_one_is_accepted():
    approval().check(LAKE, SESSION, DIGEST, [CERTIFICATE])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"session": b"other"}, "is not signed"),
        ({"digest": b"other"}, "is not signed"),
        ({"expires": time.time() + 10}, "is not signed"),
        ({"signature": bytes(64)}, "is not signed"),
        ({"signature": b""}, "is not signed"),
    ],
)
def test_a_changed_one_is_not(change, why):
    with pytest.raises(ConsentError, match=why):
        attrs.evolve(approval(), **change).check(LAKE, SESSION, DIGEST, [CERTIFICATE])


def test_one_for_something_else_is_not():
    with pytest.raises(ConsentError, match="is not signed"):
        approval().check(b"another lake", SESSION, DIGEST, [CERTIFICATE])
    with pytest.raises(ConsentError, match="another run"):
        approval().check(LAKE, b"other", DIGEST, [CERTIFICATE])
    with pytest.raises(ConsentError, match="another plan"):
        approval().check(LAKE, SESSION, b"other", [CERTIFICATE])
    with pytest.raises(ConsentError, match="is not signed with the key of ann"):
        approval().check(LAKE, SESSION, DIGEST, [BOB.identity.certificate_pem])


@pytest.mark.parametrize("days", [-1, 1000, float("nan"), float("inf")])
def test_its_time_is_bounded(days):
    with pytest.raises(ConsentError, match="has expired"):
        approval(days=days).check(LAKE, SESSION, DIGEST, [CERTIFICATE])
