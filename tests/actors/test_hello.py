"""What both ends of a link say first: whether they fit is judged from that alone."""

from __future__ import annotations

import attrs
import pytest

from tercet.actors.hello import MOST_SKEW_S, Hello
from tercet.errors import TransportError

MINE = Hello("party 0", "replicated", 3, b"lake")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clock": MINE.clock + MOST_SKEW_S + 1}, r"is \+121 s off .* synchronise both"),
        ({"clock": MINE.clock - MOST_SKEW_S - 1}, "is -121 s off"),
        ({"clock": float("nan")}, "is [+]nan s off"),
        ({"lake": b"other"}, "another list of the lake's members .* the same cluster.toml"),
        (
            {"lake": b"other", "number": 2, "mine": 2},
            "another number 2 .* two were signed. Let",
        ),
        ({"lake": b"other", "number": 2}, r"goes by number 2 .* this end by number 0: get .* `tercet adopt`"),
        ({"lake": b"other", "number": -1}, r"goes by number -1 .*: it has not taken up the newer one"),
        ({"parties": 5}, "among 5, .* start all nodes alike"),
    ],
)
def test_ends_that_do_not_fit(changes, why):
    MINE.check(attrs.evolve(MINE, role="party 1", clock=MINE.clock + MOST_SKEW_S - 1), peer="party 1")
    mine = attrs.evolve(MINE, number=changes.pop("mine", 0))
    with pytest.raises(TransportError, match=why):
        mine.check(attrs.evolve(MINE, **changes), peer="party 1")
