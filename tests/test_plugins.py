"""The example plug-in, found by its entry point: it conforms, and defects planted into it are caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import registry
from tercet.protocols.base import Cost, Protocol, Round, declared
from tercet.protocols.prg import Stream
from tercet.testing import check_protocol

pytestmark = pytest.mark.early
SOURCE = Path(__file__).parents[1] / "examples" / "additive" / "tercet_additive.py"
Additive = registry.get("additive")
"""By its entry point: `pip install -e examples/additive`, which `make install` does."""


def test_the_example_conforms_and_is_short():
    assert Additive.__module__ == SOURCE.stem
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) <= 158
    check_protocol(Additive)


# -- defects -------------------------------------------------------------------------------------------------


class ForgetsTheMasks(Additive):
    """New sharings have masks of zero, so m is the value. What is received gives no hint of it."""

    def draw_with(self, peer, tag, purpose, shape):
        words = super().draw_with(peer, tag, purpose, shape)
        return np.zeros_like(words) if purpose == "mask" else words


class ReusesAMask(Additive):
    """All new sharings have the same masks."""

    def draw_with(self, peer, tag, purpose, shape):
        return super().draw_with(peer, "always" if purpose == "mask" else tag, purpose, shape)


class ReusesTags(Additive):
    """Masks depend on what they are for, but not on the operation, and no stream says so."""

    def draw_with(self, peer, tag, purpose, shape):
        return Stream(self.keys[peer], purpose.encode()).words(shape)


class HidesNothing(Additive):
    """Summands of a product go without the shares of zero that hide them."""

    def draw_with(self, peer, tag, purpose, shape):
        words = super().draw_with(peer, tag, purpose, shape)
        return np.zeros_like(words) if purpose == "zero" else words


class CountsRoundsWrongly(Additive):
    @declared(lambda self, x: Cost(2, Additive.reduce.declared_cost(self, x).sent))
    def reduce(self, x):
        return (yield from super().reduce(x))


class KeepsQuietOfBytes(Additive):
    @declared(lambda *_: Cost(1, (0, 0, 0)))
    def opening(self, x):
        return (yield from super().opening(x))


class OpensOnTheSide(Additive):
    @declared(lambda self, x: self.cost("opening", x) + Protocol.is_zero.declared_cost(self, x))
    def is_zero(self, x):
        yield from self.opening(x)
        return (yield from super().is_zero(x))


class MasksWithAKnownValue(Additive):
    """A masked opening whose mask is a constant."""

    def open_masked(self, x, mask):
        known = self.constant(np.arange(x.size, dtype=np.uint64).reshape(x.shape), scale=x.scale)
        return super().open_masked(x, known)


class TruncatesWithABias(Additive):
    """One unit too many, where one may be missing too."""

    def truncate(self, x, bits):
        y = yield from super().truncate(x, bits)
        return self.add_public(y, np.array(1, dtype=np.uint64))


class SpeaksAtLength(Additive):
    """Says a word more if what it holds is odd."""

    def opening(self, x):
        opened = yield from super().opening(x)
        odd = self.party == 0 and x.size > 0 and int(opened.reshape(-1)[0]) & 1
        yield Round(send={1: [np.zeros(1 + odd, dtype=np.uint64)]} if self.party == 0 else {})
        return opened


class DrawsInItsOwnOrder(Additive):
    """Numbers its masks by how many operations have run."""

    drawn = 0

    def tag(self):
        type(self).drawn += 1
        return f"{type(self).drawn // 3}"


class TrustsEverybody(Additive):
    @classmethod
    def combine(cls, parts, *, domain, shape):
        a, b, m = (part[0] for part in parts)
        return domain.add(domain.add(a, b), m).reshape(shape)


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (ForgetsTheMasks, "what party . holds of the result is not uniform"),
        (ReusesAMask, "drawn twice"),
        (ReusesTags, "related|words twice"),
        (HidesNothing, "off by|tells zeros|not uniform|is related"),
        (CountsRoundsWrongly, "took 1 rounds .* but declares 2 rounds"),
        (KeepsQuietOfBytes, "declares 1 rounds and .0, 0, 0. bytes"),
        (OpensOnTheSide, "is_zero.*opened by `opening`"),
        (MasksWithAKnownValue, "not uniform|off by|related"),
        (TruncatesWithABias, "truncat.*off by 2 units, of which 1 are allowed"),
        (SpeaksAtLength, "expects"),
        (DrawsInItsOwnOrder, "off by|contradict|drawn twice|disagree"),
        (TrustsEverybody, "`combine` does not notice that party . changed its share"),
    ],
)
def test_a_defect_is_caught(defect, complaint):
    with pytest.raises(ProtocolError, match=complaint) as caught:
        check_protocol(defect)
    assert "\n" not in str(caught.value)
