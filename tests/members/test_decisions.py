"""Decisions: each sentence that refuses, who must approve, and that the strictest rules count."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.members.decisions import Asked, Result, Verdict, assigns, decide, results_of, sizes_told
from tercet.members.rules import GROUPS, Rules
from tercet.plans import CLASSES, Builder, Form, Type

NOW = 1_800_000_000.0
FREE = Rules(plans="any")


def figure(**more):
    return Result(**{"what": "mean of 'age'", "kind": "figure", "receiver": "ann", **more})


def asks(**more):
    given = {
        "caller": "ann",
        "roles": frozenset({"analyst"}),
        "computation": "describe",
        "group": "statistics",
        "by_hand": False,
        "columns": {"ages": frozenset({"age", "bmi"})},
        "results": (figure(),),
        "now": NOW,
    }
    return Asked(**{**given, **more})


def verdict(rules, **more):
    return decide({"ages": ("clinic", rules)}, asks(**more))


LET_THROUGH = Verdict()
CLINIC = Verdict(owners=frozenset({"clinic"}))


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "asked", "sentence"),
    [
        (
            Rules(readers=("bob",)),
            {},
            "clinic does not let ann use table 'ages'; ask clinic",
        ),
        (
            FREE,
            {"roles": frozenset({"owner"})},
            "clinic does not let ann use table 'ages'; ask clinic",
        ),
        (
            attrs.evolve(FREE, until=NOW),
            {},
            "clinic let table 'ages' be used until 2027-01-15 08:00 UTC, and that is over; ask clinic to "
            "allow it for longer",
        ),
        (
            attrs.evolve(FREE, uses=20),
            {"uses": {"ages": 20}},
            "table 'ages' has been used by 20 computations, and clinic allows 20; ask clinic to allow more",
        ),
        (
            attrs.evolve(FREE, columns=("age", "sex")),
            {},
            "clinic lets only 'age', 'sex' of table 'ages' be used, and 'describe' uses 'bmi'; leave that "
            "out, or ask clinic",
        ),
        (
            attrs.evolve(FREE, columns=("age",)),
            {"columns": {}},
            "clinic lets only 'age' of table 'ages' be used, and it is not known which columns 'describe' "
            "uses; ask for a computation by name, on columns of the table",
        ),
        (
            attrs.evolve(FREE, columns=("age",)),
            {"columns": {}, "by_hand": True},
            "clinic lets only 'age' of table 'ages' be used, and it is not known which columns this plan "
            "uses; ask for a computation by name, on columns of the table",
        ),
        (
            attrs.evolve(FREE, readers=("ann",)),
            {"results": (figure(receiver="bob"),)},
            "clinic lets results of table 'ages' go to ann, clinic only, and \"mean of 'age'\" would go to "
            "bob; reveal it to one of them, or ask clinic",
        ),
        (
            attrs.evolve(FREE, receivers=("bob",)),
            {},
            "clinic lets results of table 'ages' go to bob, clinic only, and \"mean of 'age'\" would go to "
            "ann; reveal it to one of them, or ask clinic",
        ),
        (
            FREE,
            {"results": (Result("risk", "rows", "ann"),)},
            "clinic does not let single rows of table 'ages' be revealed, and 'risk' has a number for each "
            "row; reveal figures over many rows",
        ),
        (
            FREE,
            {"results": (Result("risk", "", "ann"),)},
            "clinic does not let single rows of table 'ages' be revealed, and 'risk' has a number for each "
            "row; reveal figures over many rows",
        ),
        (
            attrs.evolve(FREE, min_count=10),
            {"results": (figure(rows=9),)},
            "clinic lets figures of table 'ages' rest on no fewer than 10 rows, and \"mean of 'age'\" rests "
            "on 9; compute it over more rows",
        ),
        (
            FREE,
            {"results": (Result("coefficients", "model", "ann", rows=1),)},
            "clinic lets figures of table 'ages' rest on no fewer than 2 rows, and 'coefficients' rests on "
            "1; compute it over more rows",
        ),
        (
            FREE,
            {"computation": "fit", "parameters": 34, "rows": 100},
            "clinic lets models on table 'ages' have at most 0.33 parameters a row, and 'fit' has 34 on 100 "
            "rows; leave out features, or fit on 104 rows or more",
        ),
        (
            FREE,
            {"computation": "fit", "parameters": 34},
            "clinic lets models on table 'ages' have at most 0.33 parameters a row, and it is not known on "
            "how many rows 'fit' rests; fit on a table",
        ),
    ],
)
def test_refusals(rules, asked, sentence):
    assert verdict(rules, **asked) == Verdict(sentence)
    # The owner itself is not bound, and nobody's signature helps.
    assert decide({"ages": ("ann", rules)}, asks(**{**asked, "by_hand": False})) == LET_THROUGH
    assert verdict(attrs.evolve(rules, plans="approved"), **asked) == Verdict(sentence)


@pytest.mark.parametrize(
    ("rules", "asked"),
    [
        (Rules(readers=("ann",), plans="any"), {"roles": frozenset({"owner"})}),
        (attrs.evolve(FREE, until=NOW + 1), {}),
        (attrs.evolve(FREE, uses=20), {"uses": {"ages": 19, "other": 50}}),
        (attrs.evolve(FREE, columns=("age", "bmi", "sex")), {}),
        (FREE, {"columns": {}}),
        (attrs.evolve(FREE, receivers=("bob", "ann")), {}),
        (attrs.evolve(FREE, receivers=("bob",)), {"results": (figure(receiver="clinic"),)}),
        (attrs.evolve(FREE, receivers=("bob",)), {"results": (figure(kind="check"),)}),
        (attrs.evolve(FREE, readers=("ann", "bob")), {"results": (figure(receiver="bob"),)}),
        (FREE, {"results": (figure(receiver="bob"),), "analysts": frozenset({"ann", "bob"})}),
        (attrs.evolve(FREE, rows=True), {"results": (Result("risk", "rows", "ann", rows=1),)}),
        (FREE, {"results": (Result("risk", "rows", "ann", tables=frozenset({"own"})),)}),
        (attrs.evolve(FREE, min_count=10), {"results": (figure(rows=10), figure(kind="check", rows=1))}),
        (FREE, {"parameters": 33, "rows": 100}),
        (attrs.evolve(FREE, parameters_per_row=0.5), {"parameters": 34, "rows": 100}),
        (attrs.evolve(FREE, sizes="noisy"), {"computation": "join", "sizes": "hidden"}),
        (attrs.evolve(FREE, sizes="noisy"), {"computation": "join", "sizes": "noisy"}),
        (attrs.evolve(FREE, sizes="hidden"), {}),
    ],
)
def test_what_rules_let_through(rules, asked):
    assert verdict(rules, **asked) == LET_THROUGH


def test_check_bits_of_plans_by_hand_are_results_as_others():
    found = verdict(Rules(receivers=("bob",)), results=(figure(kind="check"),), by_hand=True)
    assert "would go to ann" in found.refusal


def test_other_analysts_get_nothing_where_readers_are_named():
    found = verdict(
        attrs.evolve(FREE, readers=("ann",)),
        results=(figure(receiver="bob"),),
        analysts=frozenset({"ann", "bob"}),
    )
    assert "would go to bob" in found.refusal


def test_owners_of_the_tables_may_receive():
    rules = {"ages": ("clinic", FREE), "costs": ("insurer", FREE)}
    for receiver in ("clinic", "insurer", "ann"):
        assert decide(rules, asks(results=(figure(receiver=receiver),))) == LET_THROUGH
    assert "would go to bob" in decide(rules, asks(results=(figure(receiver="bob"),))).refusal


@pytest.mark.parametrize(
    ("rules", "asked", "sentence"),
    [
        (
            "noisy",
            {"computation": "join", "sizes": "exact"},
            "without noise, and 'join' would; join with sizes='noisy'",
        ),
        ("hidden", {"computation": "join", "sizes": "noisy"}, "and 'join' would; join with sizes='hidden'"),
        (
            "noisy",
            {"computation": "group_rows", "sizes": "exact"},
            "without noise, and 'group_rows' would; group with sizes='noisy'",
        ),
        (
            "hidden",
            {"computation": "group_rows", "sizes": "noisy"},
            "and 'group_rows' would; group with sizes='hidden'",
        ),
        ("hidden", {"computation": "filter", "sizes": "exact"}, "and 'filter' would; leave compact out"),
    ],
)
def test_how_many_rows_match_is_told_no_further(rules, asked, sentence):
    assert verdict(attrs.evolve(FREE, sizes=rules), **asked).refusal.endswith(sentence)


@pytest.mark.parametrize(
    ("computation", "arguments", "told"),
    [
        ("join", {}, "exact"),
        ("join", {"sizes": "hidden"}, "hidden"),
        ("join", {"sizes": ["none"]}, "exact"),
        ("filter", {"compact": True}, "exact"),
        ("dropna", {"compact": False}, None),
        ("describe", {}, None),
        ("group_rows", {}, "exact"),
        ("group_rows", {"sizes": "noisy"}, "noisy"),
        ("group_rows", {"sizes": "hidden"}, "hidden"),
        ("group_rows", {"sizes": -1e300}, "exact"),
        ("concat", {"duplicates": "count"}, "exact"),
        ("concat", {"duplicates": "keep"}, None),
    ],
)
def test_what_is_told_of_sizes(computation, arguments, told):
    assert sizes_told(computation, arguments) == told


def test_what_a_plan_opens_of_sizes_counts_whatever_its_arguments_say():
    assert sizes_told("overlap", {}, "exact") == "exact"
    assert sizes_told("join", {"sizes": "hidden"}, "noisy") == "noisy"
    assert sizes_told("join", {}, "noisy") == "exact"
    refusal = verdict(attrs.evolve(FREE, sizes="noisy"), computation="overlap", sizes="exact").refusal
    assert refusal.endswith("without noise, and 'overlap' would; ask clinic")


# -- approvals -----------------------------------------------------------------------------------------------


def test_nothing_is_free_unless_an_owner_says_so():
    for group in GROUPS:
        assert verdict(Rules(), group=group) == CLINIC
        assert verdict(Rules(), group=group, results=()) == CLINIC


@pytest.mark.parametrize("named", ["describe", "statistics"])
def test_computations_that_are_named_are_free(named):
    rules = Rules(computations=(named,))
    assert verdict(rules) == LET_THROUGH
    assert verdict(rules, computation="fit", group="models") == CLINIC


@pytest.mark.parametrize(
    ("kind", "found"), [("check", LET_THROUGH), ("count", LET_THROUGH), ("figure", LET_THROUGH)]
)
def test_usual_classes_of_free_computations(kind, found):
    assert verdict(Rules(computations=("statistics",)), results=(figure(kind=kind),)) == found


def test_other_classes_need_approval_unless_they_are_named():
    model = (Result("coefficients", "model", "ann"),)
    asked = {"computation": "reveal_model", "group": "models", "results": model}
    assert verdict(Rules(computations=("models",)), **asked) == CLINIC
    assert verdict(Rules(computations=("models",), classes=("check", "model")), **asked) == LET_THROUGH
    assert verdict(Rules(computations=("models",), classes=()), **asked) == CLINIC
    assert verdict(Rules(computations=("models",), classes=()), **{**asked, "results": ()}) == LET_THROUGH
    assert verdict(Rules(plans="any"), **asked) == LET_THROUGH
    assert verdict(Rules(plans="any", classes=("figure",)), **asked) == CLINIC


@pytest.mark.parametrize("kind", ["figure", "count"])
def test_metrics_on_rows_of_others_tell_of_the_model(kind):
    asked = {"computation": "metrics", "group": "statistics", "results": (Result("auc", kind, "ann"),)}
    rules = Rules(computations=("statistics",))
    assert verdict(rules, **asked) == LET_THROUGH
    assert verdict(rules, over=frozenset({"ages", "new"}), **asked) == LET_THROUGH
    assert verdict(rules, over=frozenset({"new"}), **asked) == CLINIC
    free = Rules(computations=("statistics",), classes=("figure", "count", "model"))
    assert verdict(free, over=frozenset({"new"}), **asked) == LET_THROUGH
    checked = {**asked, "results": (Result("whether it worked", "check", "ann"),)}
    assert verdict(rules, over=frozenset({"new"}), **checked) == LET_THROUGH


def test_predictions_for_rows_of_others_tell_of_the_model():
    new = (Result("risk", "rows", "ann", tables=frozenset({"new"})),)
    assert new[0].kind_for("new") == "rows"
    assert new[0].kind_for("ages") == "model"
    assert Result("risk", "", "ann", tables=frozenset({"new"})).kind_for("ages") == "model"
    assert verdict(Rules(computations=("predictions",)), group="predictions", results=new) == CLINIC
    free = Rules(computations=("predictions",), classes=("model",))
    assert verdict(free, group="predictions", results=new) == LET_THROUGH


@given(
    plans=st.sampled_from(["any", "approved"]),
    classes=st.none() | st.lists(st.sampled_from(CLASSES)),
    rows=st.booleans(),
    kinds=st.lists(st.sampled_from(["", *CLASSES]), max_size=4),
)
def test_plans_by_hand_are_for_every_owner_to_approve(plans, classes, rows, kinds):
    rules = {
        "ages": ("clinic", Rules(plans=plans, classes=classes, rows=rows)),
        "costs": ("insurer", Rules(plans="any", rows=True, classes=CLASSES)),
        "own": ("ann", Rules()),
    }
    results = tuple(Result(f"{place}", kind, "ann", rows=1) for place, kind in enumerate(kinds))
    found = decide(rules, asks(by_hand=True, results=results, computation="any", group="any"))
    assert found == Verdict(owners=frozenset({"clinic", "insurer"}))


def test_nobody_approves_what_rests_on_own_tables():
    assert decide({"own": ("ann", Rules())}, asks(by_hand=True)) == LET_THROUGH
    assert decide({}, asks()) == LET_THROUGH


RULES = st.builds(
    Rules,
    readers=st.sampled_from([(), ("ann",), ("bob",)]),
    plans=st.just("approved"),
    min_count=st.sampled_from([1, 20]),
    rows=st.booleans(),
    computations=st.sampled_from([(), ("describe",), ("statistics", "models")]),
    columns=st.sampled_from([(), ("age", "bmi"), ("age",)]),
    classes=st.sampled_from([None, (), ("figure",), CLASSES]),
    receivers=st.sampled_from([(), ("ann",), ("bob",)]),
    uses=st.sampled_from([None, 1, 5]),
    until=st.sampled_from([None, NOW - 1, NOW + 1]),
)
ASKED = st.builds(
    asks,
    results=st.lists(
        st.builds(
            Result,
            what=st.just("x"),
            kind=st.sampled_from(["", *CLASSES]),
            receiver=st.sampled_from(["ann", "bob", "clinic"]),
            rows=st.sampled_from([None, 1, 10, 30]),
        ),
        max_size=3,
    ).map(tuple),
    by_hand=st.booleans(),
    parameters=st.none() | st.integers(1, 60),
    rows=st.none() | st.integers(1, 200),
    uses=st.sampled_from([{}, {"a": 2}, {"b": 9}]),
    columns=st.sampled_from([{}, {"a": frozenset({"age"}), "b": frozenset({"age", "bmi"})}]),
)


@given(RULES, RULES, ASKED)
def test_the_strictest_rules_count(first, second, asked):
    """What one table's rules refuse or leave to its owner, no other table's rules allow."""
    both = {"a": ("clinic", first), "b": ("insurer", second)}
    owned = {"a": ("clinic", first), "b": ("insurer", FREE_OF_ALL)}
    other = {"a": ("clinic", FREE_OF_ALL), "b": ("insurer", second)}
    found, alone = decide(both, asked), [decide(owned, asked), decide(other, asked)]
    assert bool(found.refusal) == any(one.refusal for one in alone)
    if not found.refusal:
        assert found.owners == alone[0].owners | alone[1].owners
    else:
        assert found.refusal in [one.refusal for one in alone]
        assert not found.owners


FREE_OF_ALL = Rules(plans="any", rows=True, receivers=("ann", "bob", "clinic"), parameters_per_row=1e9)


@given(RULES, ASKED, st.data())
def test_stricter_rules_never_allow_more(rules, asked, data):
    stricter = data.draw(
        st.sampled_from(
            [
                {"computations": ()},
                {"classes": ()},
                {"rows": False},
                {"min_count": 40},
                {"uses": 1},
                {"sizes": "hidden"},
                {"until": NOW - 1},
                {"parameters_per_row": 0.01},
                {"readers": ("bob",)},
                {"columns": ("nothing",)},
                {"receivers": ("nobody",)},
            ]
        )
    )
    before, after = (
        decide({"a": ("clinic", one)}, asked) for one in (rules, attrs.evolve(rules, **stricter))
    )
    assert after.refusal or (not before.refusal and before.owners <= after.owners)


def test_the_first_table_by_name_refuses():
    rules = {name: (f"owner of {name}", Rules(readers=("bob",))) for name in "cab"}
    for order in itertools.permutations(rules):
        found = decide({name: rules[name] for name in order}, asks())
        assert found.refusal == "owner of a does not let ann use table 'a'; ask owner of a"


def test_results_of_a_plan():
    b = Builder("p")
    x = b.input("x", Type(Form.RING, (10,), 8, 2.0**20))
    x.sum().reveal("sum", to="analyst", kind="figure")
    x.reveal("all", to="clinic")
    x.sum().open("a sum")
    assert results_of(b.plan(), "ann") == (Result("sum", "figure", "ann"), Result("all", "", "clinic"))


def test_rows_of_several_owners_are_put_together_with_their_word():
    """Who has put rows there knows them, so minimum counts protect the others less."""
    pooled = asks(computation="concat", group="tables", results=())
    named = Rules(computations=("concat",))
    grouped = Rules(computations=("tables",))
    for rules, owners in ((FREE, {"clinic"}), (grouped, {"clinic"}), (named, set())):
        both = {"ages": ("clinic", rules), "own": ("ann", Rules())}
        assert decide(both, pooled) == Verdict(owners=frozenset(owners))
    alone = {"ages": ("clinic", FREE), "more": ("clinic", grouped)}
    assert decide(alone, pooled) == LET_THROUGH


def test_columns_on_the_way_are_free_where_new_columns_are():
    """A fit by a formula computes some: whoever names fits alone as free signs these."""
    fit = {"computation": "fit_alone", "group": "models", "results": ()}
    for free, owners in (
        (("models",), CLINIC),
        (("assign",), CLINIC),
        (("models", "assign"), LET_THROUGH),
        (("fit_alone", "tables"), LET_THROUGH),
    ):
        rules = Rules(computations=free)
        assert verdict(rules, **fit, assigns=True) == owners
        assert (verdict(rules, **fit) == LET_THROUGH) is (free != ("assign",))
    assert verdict(FREE, **fit, assigns=True) == LET_THROUGH
    assert assigns("fit_alone", {"expressions": {}})
    assert not assigns("fit_alone", {"expressions": None})
    assert not assigns("assign", {"expressions": {"z": 1}})
