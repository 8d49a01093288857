"""Rules and reviews: what a plan reads and reveals is found, and what owners do not allow is refused."""

from __future__ import annotations

import attrs
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import ConsentError
from tercet.members.rules import GROUPS, Rules
from tercet.plans import CLASSES, Builder, Form, Type
from tercet.plans.review import review
from tercet.plans.types import SIZES

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


NAMES = st.lists(st.text(max_size=5), max_size=3).map(tuple)


@st.composite
def any_rules(draw):
    plans = draw(st.sampled_from(["any", "approved"]))
    return Rules(
        readers=draw(NAMES),
        plans=plans,
        min_count=draw(st.integers(1, 1 << 40)),
        rows=draw(st.booleans()),
        computations=() if plans == "any" else draw(NAMES),
        columns=draw(NAMES),
        classes=draw(st.none() | st.lists(st.sampled_from(CLASSES), max_size=5).map(tuple)),
        receivers=draw(NAMES),
        parameters_per_row=draw(st.floats(1e-9, 1e9)),
        sizes=draw(st.sampled_from(SIZES)),
        uses=draw(st.none() | st.integers(1, 1 << 40)),
        until=draw(st.none() | st.floats(1, 2e11)),
    )


@given(any_rules())
def test_rules_travel(rules):
    assert Rules.from_bytes(rules.to_bytes()) == rules
    assert str(rules)


@given(NAMES, st.sampled_from(["any", "approved"]), st.integers(1, 1 << 40), st.booleans())
def test_rules_of_the_first_release_are_read(readers, plans, least, rows):
    old = msgpack.packb([list(readers), plans, least, rows])
    assert Rules.from_bytes(old) == Rules(readers, plans, least, rows)


def test_what_is_not_said_is_denied():
    rules = Rules.from_bytes(msgpack.packb([[], "approved", 1, False]))
    assert rules == Rules()
    assert not any(rules.frees(group, group) for group in GROUPS)
    assert not rules.rows
    assert "model" not in rules.freely
    assert "rows" not in rules.freely
    assert rules.parameters_per_row == 0.33
    assert Rules(plans="any").frees("fit", "models")


WRONG = [
    ({"plans": "some"}, "plans='some' is not known; say 'any' or 'approved'"),
    ({"min_count": 0}, "min_count=0 is no number of rows; say 1 or more"),
    ({"min_count": True}, "min_count=True is no number of rows"),
    ({"rows": 1}, "rows=1 is neither True nor False"),
    ({"readers": "ann"}, r"rules have lists of names, not 'ann'; write \['ann'\]"),
    ({"readers": [1]}, "readers of rules are names of up to 200 characters, not 1"),
    ({"receivers": ["x" * 201]}, "receivers of rules are names of up to 200 characters"),
    ({"computations": ["fit"], "plans": "any"}, "leave plans at 'approved' to name those that are free"),
    ({"classes": ["figures"]}, "no class of disclosures 'figures'; name some of check, count"),
    ({"sizes": "few"}, "sizes='few' is not known"),
    ({"parameters_per_row": 0}, "parameters_per_row=0 is no number above 0; the usual one is 0.33"),
    ({"parameters_per_row": float("nan")}, "parameters_per_row=nan is no number above 0"),
    ({"parameters_per_row": True}, "parameters_per_row=True is no number above 0"),
    ({"min_count": 10**16}, "min_count=10000000000000000 is more than 1,000,000,000,000,000"),
    ({"uses": 10**16}, "uses=10000000000000000 is more than 1,000,000,000,000,000"),
    ({"uses": 0}, "uses=0 is no number of computations; say 1 or more, or None for any number"),
    ({"until": -1.0}, "until=-1.0 is no time between 1970 and 9999"),
    ({"until": float("inf")}, "until=inf is no time between 1970 and 9999"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_rules_that_mean_nothing(given, told):
    with pytest.raises(ConsentError, match=told):
        Rules(**given)
    packed = msgpack.packb({**attrs.asdict(Rules()), **given})
    with pytest.raises(ConsentError, match=f"rules of an owner is malformed .*{told}"):
        Rules.from_bytes(packed)


@pytest.mark.parametrize(
    "body",
    [
        {"reader": []},
        {1: 2},
        [],
        [[], "approved", 1],
        [[], "some", 1, False],
        [["a"], "any", 0, False],
        5,
        None,
    ],
)
def test_what_is_no_rules(body):
    with pytest.raises(ConsentError, match="rules of an owner is malformed"):
        Rules.from_bytes(msgpack.packb(body))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(), "every analyst may use it, each computation with the owner's approval; no single rows"),
        (
            Rules(("ann", "bob"), "any", 20, rows=True),
            "ann and bob may use it, any computation without approval; single rows may be revealed; figures "
            "over 20 rows or more",
        ),
        (
            Rules(plans="any", classes=("count", "check")),
            "every analyst may use it, what reveals check bits or counts without approval; no single rows",
        ),
        (
            Rules(computations=("tables", "statistics", "fit"), columns=("age", "bmi")),
            "every analyst may use it, tables, statistics and fit without approval, what reveals check bits, "
            "counts or figures; the rest with the owner's approval; only columns age and bmi; no single rows",
        ),
        (
            Rules(plans="any", sizes="noisy"),
            "every analyst may use it, any computation without approval; no single rows; joins tell how many "
            "rows match with noise at most",
        ),
        (
            Rules(computations=("fit",), classes=()),
            "every analyst may use it, fit without approval, what reveals nothing; the rest with the owner's "
            "approval; no single rows",
        ),
        (
            Rules(receivers=("ann",), parameters_per_row=0.1, uses=1, until=1_800_000_000),
            "every analyst may use it, each computation with the owner's approval; no single rows; results "
            "to ann only; models of at most 0.1 parameters a row; 1 computation at most; until "
            "2027-01-15 08:00 UTC",
        ),
    ],
)
def test_rules_in_words(rules, words):
    assert str(rules) == words


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
