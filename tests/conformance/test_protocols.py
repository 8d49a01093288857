"""Every protocol keeps the promises of `Protocol`, and a protocol that breaks one is caught."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Product, Round, Share, declared
from tercet.protocols.plain import Plain
from tercet.protocols.prg import Stream
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import DIGEST_WORDS, Replicated, digest
from tercet.protocols.shamir import Shamir
from tercet.testing.protocols import OPERATIONS, check_protocol, check_secrecy, check_values
from tests.protocols.checks_first import ChecksFirst


@pytest.mark.parametrize("protocol", [Plain, Replicated, Shamir, Rep4, ChecksFirst])
def test_conformance(protocol):
    check_protocol(protocol)


@pytest.mark.scale
@pytest.mark.parametrize("parties", [5, 7])
def test_conformance_of_shamir_among_more_parties(parties):
    check_protocol(Shamir, parties)


class ForgetsTheZeroShare(Replicated):
    def reduce(self, x: Share) -> Op[Share]:
        return self._exchange(np.repeat(x.data, 2, axis=0), x.domain, x.scale)


class ForgetsTheZeroShareOfMul(Replicated):
    def mul(self, x: Share, y: Share) -> Op[Share]:
        return self._exchange(np.repeat(self.mul_local(x, y).data, 2, axis=0), x.domain, x.scale + y.scale)


class OpensOnTheSide(Replicated):
    @declared(
        lambda self, x, *_: (
            self.cost("open", x) + self.masked_cost(x, x.size, opened=x.size, dealt=2, results=1)
        )
    )
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        if not isinstance(x, Product):
            yield from self.opening(x)
        return (yield from super().truncate(x, bits))


class OpensOpenly(Replicated):
    @declared(lambda self, x: self.cost("open", x) + self._zero_cost(x.size))
    def is_zero(self, x: Share) -> Op[Share]:
        yield from self.open(x)
        return (yield from super().is_zero(x))


class ReusesNames(Replicated):
    def tag(self) -> str:
        return "always"


class ReusesMasks(Replicated):
    def draw(self, component: int, tag: str, purpose: str) -> Stream:
        return Stream(self._component_keys[component % 3], purpose.encode())


class LiesAboutItsCost(Replicated):
    @declared(lambda self, x, y: Cost(1, (8, 8, 8)))
    def mul(self, x: Share, y: Share) -> Op[Share]:
        return super().mul(x, y)


class RoundsBadly(Replicated):
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        y = yield from super().truncate(x, bits)
        return self.add_public(y, np.array(2, dtype=np.uint64))


class SaysMoreOfLargeValues(Replicated):
    """The first party says one word more in its masked summand if that has its low bit set."""

    def reduce(self, x: Share) -> Op[Share]:
        y = yield from super().reduce(x)
        loud = bool(self.party == 0 and x.data[0].any())
        yield Round(send={1: [np.zeros(1 + loud, dtype=np.uint64)]} if self.party == 0 else {})
        return y


class TakesAnotherRound(Replicated):
    def mul(self, x: Share, y: Share) -> Op[Share]:
        z = yield from super().mul(x, y)
        if self.party == 2:
            yield Round()
        return z


class BelievesEverything(Replicated):
    @classmethod
    def combine(cls, parts, *, domain, shape):
        return domain.add(domain.add(parts[0][0], parts[1][0]), parts[2][0]).reshape(shape)


class TellsPeersWhatItReveals(Replicated):
    @declared(lambda self, x: self.each(1, x.size))
    def reveal(self, x):
        yield Round(send={self.next: [x.data[0]]}, recv={self.prev: [x.shape]})
        return self.export(x)


class SendsDigestsToWhomItMayNot(Replicated):
    """A digest of what the receiver misses, by which it can try all values."""

    @declared(lambda self, _: self.each(1, DIGEST_WORDS))
    def reveal(self, x):
        yield Round(send={self.prev: [digest(x.data[1])]}, recv={self.next: [(DIGEST_WORDS,)]})
        return self.export(x)


class ChecksForNothing(ChecksFirst):
    @declared(lambda self, _: self.free())
    def reveal(self, x):
        return super().reveal(x)


class RevealsSomethingElse(Replicated):
    def reveal(self, x):
        yield from ()
        return self.export(self.add_public(x, np.array(1, dtype=np.uint64)))


class VouchesForWhatItIsTold(Replicated):
    """Sends the receiver a digest of what the other holder has, in the place of its own."""

    @declared(lambda self, _: self.each(1, DIGEST_WORDS))
    def reveal(self, x):
        got = yield Round(send={self.prev: [digest(x.data[0])]}, recv={self.next: [(DIGEST_WORDS,)]})
        return [x.data[0], got[self.next][0]]


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (TellsPeersWhatItReveals, "reveal.*receives.* is related"),
        (SendsDigestsToWhomItMayNot, "reveal.*receives.* is related"),
        (ChecksForNothing, "reveal of 0 rows .* took 1 rounds .* but declares 0 rounds"),
        (RevealsSomethingElse, "reveal.*off by"),
        (VouchesForWhatItIsTold, "`reveal` does not notice"),
        (ForgetsTheZeroShare, "mul, .*is not uniform"),
        (ForgetsTheZeroShareOfMul, "mul with dealer"),
        (OpensOnTheSide, "truncate.*opened by `opening`"),
        (OpensOpenly, "is_zero.*tried to open"),
        (ReusesNames, "drawn twice"),
        (ReusesMasks, "related"),
        (LiesAboutItsCost, "mul.*but declares 1 rounds"),
        (RoundsBadly, "truncate.*off by"),
        (SaysMoreOfLargeValues, "expects"),
        (TakesAnotherRound, "finished after 1 rounds"),
        (BelievesEverything, "`combine` does not notice"),
    ],
)
def test_a_defect_is_caught(defect, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        check_protocol(defect)


class MasksWithAKnownKey(Replicated):
    """What party i-1 sees is masked with K_i, which it knows. (Values come out wrong, too.)"""

    def reduce(self, x: Share) -> Op[Share]:
        z = x.domain.add(x.data[0], self.draw(self.party, self.tag(), "zero").words(x.shape))
        return self._exchange(np.stack([z, z]), x.domain, x.scale)


def test_a_mask_that_the_receiver_knows_is_caught():
    operation = next(one for one in OPERATIONS if one.name.startswith("matmul"))
    with pytest.raises(ProtocolError, match="does not hang on keys"):
        check_secrecy(MasksWithAKnownKey, operation, parties=3)
    with pytest.raises(ProtocolError, match="off by"):
        check_values(MasksWithAKnownKey, operation, parties=3)
