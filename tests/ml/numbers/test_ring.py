"""Held numbers that are brought to other units keep the digits that these have places for."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.ml.numbers import Number
from tercet.ml.numbers.facts import Facts
from tercet.ml.numbers.ring import Held

NUMBERS = np.array([0.0124430731, 0.0607901675, -0.0285219911])


@pytest.mark.parametrize(
    ("unit", "target", "bits", "powers"),
    [
        ([-54, -52, -48], [-49, -47, -45], [61, 61, 61], True),
        ([-54, -52, -52], [-50, -51, -47], [60, 58, 61], True),
        ([-46, -46, -46], [-45, -44, -46], [61, 61, 58], True),
        ([-54, -52, -48], [-48.6, -47.3, -44.8], [61, 61, 61], False),
    ],
)
def test_numbers_far_below_their_bounds_keep_their_digits(unit, target, bits, powers):
    """Of which 61 bits are taken by what is known of them, and few are used."""
    unit, target, bits = (np.exp2(one) for one in (unit, target, bits))
    integers = np.rint(NUMBERS / unit)
    with tercet.local(protocol="plain") as lake, lake.plan("units") as plan:
        table = lake.upload({"id": range(3), "x": [1.0, 1.0, 1.0]}, name="t", key="id", owner="o")
        zeros = plan.column(table, "x").held.value * 0
        known = Facts.of(-bits * unit, bits * unit, usual=np.abs(NUMBERS))
        given = Held(zeros + plan.builder.constant(integers), unit, known)
        made = Number(plan, given.at(target), (3,))
        made.reveal("in other units")
    off = np.abs(plan.revealed["in other units"] - integers * unit)
    assert (off <= made.error).all()
    assert (made.error <= (64 if powers else 2.0**31) * target).all()
