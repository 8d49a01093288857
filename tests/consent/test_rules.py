"""Rules and reviews: what a plan reads and reveals is found, and what owners do not allow is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.actors import Builder, Form, Type
from tercet.consent.review import review
from tercet.consent.rules import Rules
from tercet.errors import ConsentError

ROWS = 100
X = frozenset({"x"})
KIND = Type(Form.RING, (3, ROWS), 8, 2.0**20)
WEIGHTS = Type(Form.RING, (3,), 8, 2.0**20)


def reviewed(make):
    b = Builder("test")
    make(b, b.input("x", KIND))
    return review(b.plan(), lambda handle: X if handle in ("x", "keys") else frozenset())


def test_rows_and_figures_are_told_apart():
    def make(b, x):
        w = b.input("w", WEIGHTS)
        x.select([0]).reveal("a column", to="ann")
        (w @ x).reveal("predictions", to="bob")
        x.sum().reveal("sums", to="ann")
        x.dot(x).reveal("products", to="ann")
        w.reveal("weights", to="ann")
        (x.sum() * w).reveal("both", to="ann")
        x.slice(0, 1).reveal("a row", to="ann")
        x.slice(0, 1).sum().reveal("a row, summed", to="ann")
        x.store("y")
        x.sum().store("z")

    found = reviewed(make)
    assert found.handles == ("x", "w")
    assert set(found.receivers) == {"ann", "bob"}
    assert [item.split("'")[1] for item in found.rows_of("x")] == ["a column", "predictions", "a row"]
    assert found.fewest == {"x": 1}
    assert found.stored == {"y": X, "z": frozenset()}
    assert found.rows_of("w") == []


def test_openings_that_need_a_look_are_found():
    keys = Type(Form.WORDS, (2, ROWS))

    def make(b, x):
        words = b.input("keys", keys)
        key = b.random_words(2)
        bit = (x.select([0]).squeeze() < 0).to_ring()
        known = b.input("k", Type(Form.WORDS, (2,)))
        b.apply_all("shuffle", b.apply("prf", key, words), x)[0].open("pseudonyms")
        b.apply_all("shuffle", bit)[0].open("how many bits")
        x.sum().open("a sum")
        b.apply("prf", key, words).open("not shuffled")
        b.apply_all("shuffle", b.apply("prf", known, words))[0].open("known key")
        b.apply_all("shuffle", x.bounded(1.0, "a promise"))[0].open("promised bits")
        bit.open("bits in order")

    assert reviewed(make).unclear_about("x") == [
        "not shuffled",
        "known key",
        "promised bits",
        "bits in order",
    ]


def test_what_goes_over_fewer_rows_is_found():
    def make(b, x):
        x.sum().reveal("sums", to="ann")
        x.slice(10, 30).sum().reveal("part", to="ann")

    assert reviewed(make).fewest == {"x": 20}


def over(rows):
    return reviewed(lambda b, x: x.slice(0, rows).sum().reveal("sum", to="ann"))


def single_rows():
    return reviewed(lambda b, x: x.reveal("all", to="ann"))


def check(rules, caller="ann", roles=("analyst",), found=None):
    rules.check("x", "clinic", caller, roles, found or over(50))


def test_readers():
    check(Rules())
    with pytest.raises(ConsentError, match="clinic does not let bob use table 'x'"):
        check(Rules(), caller="bob", roles=("owner",))
    check(Rules(readers=("bob",)), caller="bob", roles=("owner",))
    with pytest.raises(ConsentError, match="does not let ann use"):
        check(Rules(readers=("bob",)))


def test_single_rows():
    with pytest.raises(ConsentError, match="single rows"):
        check(Rules(), found=single_rows())
    check(Rules(rows=True), found=single_rows())
    check(Rules(), caller="clinic", roles=("owner",), found=single_rows())


def test_minimum_counts():
    check(Rules(min_count=50))
    check(Rules(rows=True), found=over(1))
    with pytest.raises(ConsentError, match="no fewer than 2 rows, and the plan has one over 1"):
        check(Rules(), found=over(1))
    with pytest.raises(ConsentError, match="no fewer than 51 rows, and the plan has one over 50"):
        check(Rules(min_count=51))


@given(
    st.builds(
        Rules,
        readers=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        plans=st.sampled_from(["any", "approved"]),
        min_count=st.integers(1, 1 << 40),
        rows=st.booleans(),
    )
)
def test_rules_travel(rules):
    assert Rules.from_bytes(rules.to_bytes()) == rules


@given(st.binary(max_size=60))
def test_garbage_is_no_rules(packed):
    try:
        rules = Rules.from_bytes(packed)
    except ConsentError:
        return
    assert Rules.from_bytes(rules.to_bytes()) == rules


def test_the_rules_of_a_constant_plan():
    b = Builder("nothing")
    b.input("x", KIND).sum().store("s")
    b.constant(np.ones(3))
    assert review(b.plan(), lambda _: X).rows == ()
