"""Studies as data: one form, read strictly; the same request or a sentence; signatures under the whole."""

from __future__ import annotations

import json
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import ConsentError
from tercet.members.keys import MemberKeys
from tercet.members.studies import (
    Asked,
    Study,
    StudyApproval,
    difference,
    each_value,
    matches,
    short,
)
from tercet.members.study_files import DEEPEST, MOST_BYTES
from tercet.transports import make_identity

UNTIL = 2_000_000_000
JOIN = Asked("join", {"tables": [{"$table": "clinic"}, {"$table": "laboratory"}], "on": "patient"})
FIT = Asked(
    "fit",
    {
        "model": {"$estimator": ["LogisticRegression", {"C": 1.0, "penalty": "l2", "solver": "newton"}]},
        "table": {"$result": [1, ["train"]]},
        "target": "malignant",
        "features": ["texture", "radius"],
    },
)
REVEAL = Asked("reveal_model", {"model": {"$result": [2, []]}, "to": "clinic"})
LAKE = b"l" * 32


def study(*requests, **changes):
    fields = {"purpose": "risk of tumours", "analyst": "ann", "uses": 2, "until": UNTIL} | changes
    return Study.of(requests or (JOIN, FIT, REVEAL), **fields)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.just({"$table": "clinic"}),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
arguments = st.dictionaries(st.text("abcd", min_size=1, max_size=2), plain, max_size=4)
requests = st.builds(Asked, st.sampled_from(["fit", "join", "describe"]), arguments)
studies = st.builds(
    lambda listed, **fields: Study.of(listed, **fields),
    st.lists(requests, min_size=1, max_size=4),
    purpose=st.text("abc é\n", min_size=1).filter(str.strip),
    analyst=st.just("ann"),
    uses=st.integers(1, 100),
    until=st.integers(0, 4_000_000_000),
)


@given(studies)
def test_files_and_canonical_bytes_give_the_study_back(made):
    assert Study.from_bytes(made.to_bytes()) == made
    again = Study.from_bytes(made.to_text().encode())
    assert again == made
    assert again.to_bytes() == made.to_bytes()
    assert again.digest() == made.digest()
    shuffled = json.dumps(json.loads(made.to_text()), sort_keys=True).encode()
    assert Study.from_bytes(shuffled).digest() == made.digest()


@given(studies, studies)
def test_digests_tell_studies_apart(one, other):
    assert (one.digest() == other.digest()) == (one.to_bytes() == other.to_bytes())


def test_a_study_knows_tables_models_and_receivers():
    predict = Asked(
        "predict", {"model": {"$model": "risk"}, "table": {"$columns": [{"$table": "new"}, ["a"]]}}
    )
    made = study(JOIN, FIT, REVEAL, predict)
    assert made.tables() == ("clinic", "laboratory", "new")
    assert made.models() == ("risk",)
    assert made.receivers == ("ann", "clinic")
    assert len(made.number) == 8
    assert "\n" in made.to_text()
    assert '"until": "2033-05-18T03:33:20Z"' in made.to_text()


def changed(**changes):
    fields = json.loads(study().to_text())
    fields.update(changes)
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def with_argument(value):
    return changed(requests=[{"computation": "fit", "arguments": {"a": value}}], receivers=["ann"])


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (b"", "no JSON text"),
        (b"\xff", "no JSON text"),
        (b"[1]", '"tercet_study": 1'),
        (changed(tercet_study=2), '"tercet_study": 1'),
        (changed(tercet_study=True), '"tercet_study": 1'),
        (changed(note="signed by all"), "'note' that no study has"),
        (changed(uses=...), "has no uses"),
        (changed(uses=True), "has no uses, or one that is no int"),
        (changed(uses=1.0), "no int"),
        (changed(uses=0), "1 to 10,000 times, not 0"),
        (changed(purpose="  "), "purpose"),
        (changed(purpose="x" * 2001), "up to 2000"),
        (changed(analyst=""), "analyst's name"),
        (changed(until="2033-05-18"), "2030-12-31T23:59:59Z"),
        (changed(until="2033-13-18T03:33:20Z"), "2030-12-31T23:59:59Z"),
        (changed(requests=[]), "1 to 1,000 requests, not 0"),
        (changed(requests=[1]), "request 1 of the study is no dict"),
        (changed(requests=[{"computation": "x", "arguments": {}, "why": ""}]), "'why' that no study has"),
        (changed(requests=[{"computation": "", "arguments": {}}]), "names no computation"),
        (changed(receivers=["ann"]), "receivers ann, and its requests send to ann, clinic"),
        (changed(receivers=["ann", "clinic", "eve"]), "name just those"),
        (changed(receivers=[1]), "names of members"),
        (with_argument({"$result": [1, []]}), "reads the result of request 1"),
        (with_argument({"$result": [True, []]}), "means nothing"),
        (with_argument({"$result": ["aa", []]}), "means nothing"),
        (with_argument({"$table": 1}), "means nothing"),
        (with_argument({"$table": ""}), "means nothing"),
        (with_argument({"$columns": ["t"]}), "means nothing"),
        (with_argument({"$estimator": ["A"]}), "means nothing"),
        (with_argument({"$expression": []}), "means nothing"),
        (with_argument({"$other": 1}), "means nothing"),
        (with_argument({"$table": "a", "b": 1}), "means nothing"),
        (with_argument(1 << 63), "64 bits"),
        (with_argument("\ud800"), "no Unicode"),
        (with_argument(0).replace(b'"a": 0', b'"a": NaN'), "NaN where a number"),
        (with_argument(0).replace(b'"a": 0', b'"a": 1e999'), "beyond all floats"),
        (with_argument(0).replace(b'"a": 0', b'"a": 0, "a": 1'), "twice in one dict"),
        (with_argument(0).replace(b'"a": 0', b'"a": ' + b"[" * 40 + b"]" * 40), "deep in each other"),
        (b"[" * 1000 + b"]" * 1000, f"more than {DEEPEST} deep"),
        (b" " * (MOST_BYTES + 1), "at most 1,048,576 bytes"),
    ],
)
def test_what_is_no_study_is_refused_in_a_sentence(packed, why):
    with pytest.raises(ConsentError) as caught:
        Study.from_bytes(packed)
    assert why in str(caught.value)


def test_hostile_text_is_read_in_no_time():
    began = time.process_time()
    for packed in (b'"\\"' * (MOST_BYTES // 3), b'"\\' * (MOST_BYTES // 2), b"{" * MOST_BYTES):
        with pytest.raises(ConsentError):
            Study.from_bytes(packed)
    assert time.process_time() - began < 5


def test_brackets_in_text_are_no_depth():
    made = study(Asked("describe", {"a": "[" * 100 + '\\"' + "{" * 100}))
    assert Study.from_bytes(made.to_bytes()) == made


def test_what_is_no_plain_data_is_refused():
    with pytest.raises(ConsentError, match="plain data"):
        study(Asked("fit", {"C": float("nan")})).to_bytes()
    with pytest.raises(ConsentError, match="plain data"):
        study(Asked("fit", {"C": object()})).to_bytes()


# -- the same request ----------------------------------------------------------------------------------------

DONE = {"aa" * 16: 1, "bb" * 16: 2, "cc" * 16: 3}


def now(request, **changes):
    """A request as a run makes it: results by the id of their computation, some arguments changed."""
    text = json.dumps(request.arguments)
    for computation, position in DONE.items():
        text = text.replace(f'"$result": [{position},', f'"$result": ["{computation}",')
    found = {**json.loads(text), **changes}
    return Asked(request.computation, {name: one for name, one in found.items() if one is not ...})


def estimator(**options):
    (name, before) = FIT.arguments["model"]["$estimator"]
    return {"$estimator": [name, {k: v for k, v in {**before, **options}.items() if v is not ...}]}


@given(studies)
def test_what_was_recorded_matches(made):
    for position, request in enumerate(made.requests, 1):
        matches(made, position, request, {}, {})


def test_results_of_this_run_match():
    for position, request in enumerate((JOIN, FIT, REVEAL), 1):
        matches(study(), position, now(request), DONE, {})
    ids = [{"$result": [bytes.fromhex("aa" * 16), ["train"]]}]
    matches(study(), 2, now(FIT, table=ids[0]), DONE, {})
    matches(study(), 2, now(FIT, model=estimator(C=1)), DONE, {})


def test_arguments_that_came_later_have_their_defaults():
    """What was signed under a release that did not know an argument is what that does by default."""
    later = {"offset": None, "weights": False, "target": "sick"}
    matches(study(), 2, now(FIT, offset=None, weights=False), DONE, later)
    for changed, why in (
        ({"offset": "age"}, "offset was left at its default, and is 'age' now"),
        ({"weights": 0}, "weights was left at its default, and is 0 now"),
        ({"target": "sick"}, "target was recorded as 'malignant', and is 'sick' now"),  # which it knew
    ):
        with pytest.raises(ConsentError, match=why):
            matches(study(), 2, now(FIT, **changed), DONE, later)


@pytest.mark.parametrize(
    ("position", "request_", "why"),
    [
        (2, now(FIT, model=estimator(C=2.0)), "request 2, fit: C was recorded as 1.0, and is 2.0 now"),
        (2, now(FIT, model=estimator(C=True)), "C was recorded as 1.0, and is True now"),
        (2, now(FIT, model=estimator(C=...)), "C was recorded as 1.0, and is left at its default now"),
        (2, now(FIT, model=estimator(tol=0.1)), "tol was left at its default, and is 0.1 now"),
        (2, now(FIT, model={"$estimator": ["Other", {}]}), "model was recorded as LogisticRegression(C=1.0"),
        (2, now(FIT, target="sick"), "target was recorded as 'malignant', and is 'sick' now"),
        (
            2,
            now(FIT, features=["texture"]),
            "features was recorded as ['texture', 'radius'], and is ['texture']",
        ),
        (2, now(FIT, features=["radius", "texture"]), "and is ['radius', 'texture'] now"),
        (
            2,
            now(FIT, features=...),
            "features was recorded as ['texture', 'radius'], and is left at its default now",
        ),
        (2, now(FIT, offset=None), "offset was left at its default, and is None now"),
        (
            2,
            now(FIT, table={"$result": ["aa" * 16, ["test"]]}),
            "'train', and is result of request 1, 'test'",
        ),
        (2, now(FIT, table={"$result": ["cc" * 16, ["train"]]}), "and is result of request 3, 'train' now"),
        (2, now(FIT, table={"$result": ["dd" * 16, ["train"]]}), "and is result of another run, 'train' now"),
        (2, now(FIT, table={"$result": [1, ["train"]]}), "and is result of another run, 'train' now"),
        (2, now(FIT, table={"$table": "clinic"}), "and is table 'clinic' now"),
        (1, now(JOIN, tables=[{"$table": "clinic"}, {"$table": "imaging"}]), "tables was recorded as"),
        (3, now(REVEAL, to="ann"), "to was recorded as 'clinic', and is 'ann' now"),
        (3, now(REVEAL, to=...), "to was recorded as 'clinic', and is left at its default now"),
        (2, now(REVEAL), "request 2 was recorded as fit, and is reveal_model now"),
        (4, now(REVEAL), "has 3 requests, and this would be request 4"),
        (0, now(REVEAL), "this would be request 0"),
    ],
)
def test_what_differs_is_named(position, request_, why):
    with pytest.raises(ConsentError) as caught:
        matches(study(), position, request_, DONE, {})
    assert why in str(caught.value)


@settings(deadline=None)
@given(arguments, arguments)
def test_arguments_match_only_if_they_are_the_same(one, other):
    """A difference is told just where canonical bytes differ, but for 1 and 1.0, which mean the same."""

    def bytes_of(given):
        text = json.dumps(given, sort_keys=True)
        floats = [value for value in each_value(given) if isinstance(value, float) and value.is_integer()]
        return None if floats else text

    first, second = bytes_of(one), bytes_of(other)
    if first is not None and second is not None:
        assert (difference(one, other, {}) is None) == (first == second)
    assert difference(one, one, {}) is None


def test_text_of_the_author_cannot_pass_for_the_nodes_words():
    shown = short("age\n2. reveals nothing\u202e")
    assert "\n" not in shown
    assert shown.startswith("'")
    assert "\\u202e" in shown
    assert len(short("x" * 500)) == 60
    assert short({"$estimator": ["A b", {"x = 1": "\n"}]}) == "'A b'('x = 1'='\\n')"


# -- signatures ----------------------------------------------------------------------------------------------


def test_approvals():
    keys, other = (MemberKeys(make_identity(name)) for name in ("clinic", "eve"))
    made = study()
    approval = StudyApproval.make(LAKE, made, keys)
    assert (approval.uses, approval.expires, approval.approver) == (2, UNTIL, "clinic")
    certificate = keys.identity.certificate_pem
    approval.check(LAKE, made, [certificate])
    less = StudyApproval.make(LAKE, made, keys, uses=1, expires=UNTIL - 5)
    assert (less.uses, less.expires) == (1, UNTIL - 5)
    less.check(LAKE, made, [certificate])
    most = StudyApproval.make(LAKE, made, keys, uses=9, expires=UNTIL + 9)
    assert (most.uses, most.expires) == (2, UNTIL)
    late = StudyApproval.make(LAKE, made, keys, expires=5)
    wrong = [
        (approval, b"k" * 32, made, "not signed with the key of clinic"),
        (approval, LAKE, study(uses=3), "another study"),
        (attrs.evolve(less, uses=2), LAKE, made, "not signed"),
        (attrs.evolve(less, expires=UNTIL), LAKE, made, "not signed"),
        (attrs.evolve(StudyApproval.make(LAKE, made, other), approver="clinic"), LAKE, made, "not signed"),
        (late, LAKE, made, "has expired"),
    ]
    for one, lake, about, why in wrong:
        with pytest.raises(ConsentError, match=why):
            one.check(lake, about, [certificate])
