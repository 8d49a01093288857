"""Reviews of plans by hand: no bound that a plan's author promises is taken for a proof."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.plans import Builder, Form, Type
from tercet.plans.review import review
from tercet.plans.row_axis import Order, Rows
from tercet.protocols.base import Protocol
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir

ROWS = 64
X = frozenset({"x"})
KIND = Type(Form.RING, (2, ROWS), 8, 2.0**30)
OWN = Type(Form.RING, (ROWS,), 8, 2.0**4)


def promised(make, protocol=Replicated, before=X):
    b = Builder("by hand")
    x = b.input("x", KIND)
    make(b, x)
    given = {"x": before, "kept": Rows.of(X, Order.ROWS)}
    found = review(b.plan(), lambda handle: given.get(handle, frozenset()), protocol)
    assert found.unclear_about("x") == [what for what, tables in found.promised if tables >= X]
    assert found.needs_look("x", frozenset()) == bool(found.promised)
    assert found.needs_none.unclear_about("x") == []
    return [what for what, _ in found.promised]


def key_of(b, x):
    return x.select([0]).squeeze()


PROVED = {
    "a column as it was uploaded": lambda b, x: (key_of(b, x), 32),
    "conditions": lambda b, x: ((key_of(b, x) - 5).is_negative().to_ring(), 2),
    "a condition on what is only promised": lambda b, x: (
        (key_of(b, x).bounded(1.0, "so I say") - 5).is_negative().to_ring(),
        2,
    ),
    "a looser promise than what is known": lambda b, x: (key_of(b, x).bounded(2.0**50, "so I say"), 32),
}
NOT_PROVED = {
    "a bound": lambda b, x: (key_of(b, x).bounded(4.0, "so I say"), 14),
    "a bound somewhere before": lambda b, x: (key_of(b, x).bounded(4.0, "so I say") * 2 + 1, 14),
    "the magnitude of a product": lambda b, x: (key_of(b, x).times(key_of(b, x), magnitude=1.0), 20),
    "that of running totals": lambda b, x: (key_of(b, x).cumulate(magnitude=1.0), 14),
    "what an earlier plan promised": lambda b, x: (b.input("kept", OWN), 8),
    "what she deals herself": lambda b, x: (key_of(b, x) * 0 + b.input("own", OWN), 40),
}


@pytest.mark.parametrize("protocol", [Replicated, Shamir])
@pytest.mark.parametrize("what", PROVED)
def test_comparisons_by_proved_keys_are_harmless(what, protocol):
    def make(b, x):
        key, bits = PROVED[what](b, x)
        b.apply_all("sort", key, x, bits=bits)[1].sum().reveal("sum", to="ann")

    assert not any(one.startswith("comparisons") for one in promised(make, protocol))


@pytest.mark.parametrize("what", NOT_PROVED)
def test_comparisons_by_promised_keys_need_a_look(what):
    def make(b, x):
        key, bits = NOT_PROVED[what](b, x)
        b.apply("sort", key, bits=bits).sum().reveal("sum", to="ann")

    (one,) = promised(make)
    assert one.startswith("comparisons by node")
    assert one.endswith("whose keys may not fit their bits")


def test_masks_that_hide_statistically_need_proved_numbers():
    """Under Shamir's protocol, where what is far larger shows; under the replicated one it does not."""

    def honest(b, x):
        (x * x).rescale(8).sum().reveal("squares", to="ann")

    def promises(b, x):
        cubes = (x * x).bounded(2.0, "so I say") * x
        cubes.rescale(8).sum().reveal("cubes", to="ann")

    assert promised(honest, Shamir) == promised(honest) == promised(promises) == []
    (one,) = promised(promises, Shamir)
    assert one.startswith("masked numbers of node")
    assert one.endswith("larger than masks hide")
    assert promised(honest, Shamir, before=Rows.of(X, Order.ROWS))  # kept by a plan that may have promised


def test_protocols_say_what_their_masks_hide():
    assert (Protocol.masks_hide_all, Replicated.masks_hide_all, Shamir.masks_hide_all) == (True, True, False)


def test_comparisons_of_keys_beyond_their_bits_would_tell():
    """Why: keys that wrap around have no order, and who is before whom shows how they lie on the circle."""

    def wins(keys):
        differences = np.subtract.outer(keys, keys) % 256
        return sorted((differences >= 128).sum(1))

    assert wins([1, 20, 40]) == [0, 1, 2]
    assert wins([0, 90, 180]) == [1, 1, 1]
