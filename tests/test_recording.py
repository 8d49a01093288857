"""Recording: a notebook's requests as data, in order, with results by position; and following them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import tercet
from tercet.client.recording import Following
from tercet.errors import ConsentError, PlanError
from tercet.members.studies import Study, read_step
from tercet.members.study_pages import DOES
from tercet.ml import GridSearch, LogisticRegression, StandardScaler, cross_validate
from tercet.plans.types import CLASSES

ROWS = 60
AGES = {"id": np.arange(ROWS), "age": np.linspace(20, 80, ROWS), "sick": np.arange(ROWS) % 2}
GAPS = {"id": np.arange(ROWS), "gap": np.where(np.arange(ROWS) % 5, 1.5, np.nan)}
COSTS = {"id": np.arange(ROWS), "cost": np.linspace(1, 2, ROWS) ** 2}


@pytest.fixture(scope="module")
def lake():
    with tercet.local(protocol="plain") as opened:
        opened.upload(AGES, name="ages", key="id", owner="hospital")
        opened.upload(COSTS, name="costs", key="id", owner="insurer")
        opened.upload(GAPS, name="gaps", key="id", owner="insurer", missing="indicator")
        yield opened


def notebook(lake, C=0.5):
    both = lake.table("ages").join(lake.table("costs"), on="id")
    both = both.assign(young=both["age"] < 40)
    train, test = both.split(test_size=0.5)
    scaler = StandardScaler(columns=["age"]).fit(train)
    model = LogisticRegression(C=C).fit(scaler.transform(train), "sick", features=["age", "cost"])
    return model.evaluate(scaler.transform(test)).reveal(["accuracy"], to="hospital")


def sum_of_ages(lake):
    builder = lake.builder("sum")
    lake.table("ages").features(builder, ["age"]).sum().reveal("sum", to="analyst")
    return builder.plan()


def test_a_notebook_becomes_a_study(lake, tmp_path):
    file = tmp_path / "study.json"
    with lake.record(file, purpose="costs by age", uses=3, days=2) as recording:
        notebook(lake)
        assert not file.exists()
    study = Study.from_bytes(file.read_bytes())
    assert study == recording.study
    assert (study.purpose, study.analyst, study.uses) == ("costs by age", "analyst", 3)
    assert 0 < study.until - time.time() - 2 * 86400 + 60 < 120
    assert study.receivers == ("analyst", "hospital")
    assert [one.computation for one in study.requests] == [
        *("join", "assign", "split", "learn", "transform", "fit", "transform", "evaluate", "metrics")
    ]
    join, assign, split, learn, transform, fit, *_ = (one.arguments for one in study.requests)
    as_usual = {"how": "inner", "validate": "1:1", "sizes": "exact", "suffixes": None}
    assert join == {"tables": [{"$table": "ages"}, {"$table": "costs"}], "on": "id", **as_usual}
    made = {
        "$expression": [{"$result": [1, []]}, [["column", ["age"], {}], ["__lt__", [{"$node": 0}, 40], {}]]]
    }
    assert assign == {"table": {"$result": [1, []]}, "expressions": {"young": made}}
    assert split == {"table": {"$result": [2, []]}, "test_size": 0.5, "stratify": None, "random_state": None}
    assert learn["table"] == {"$result": [3, [0]]}
    assert transform == {"self": {"$result": [4, []]}, "table": {"$result": [3, [0]]}}
    assert fit["self"]["$estimator"][0] == "LogisticRegression"
    assert study.tables() == ("ages", "costs")
    notebook(lake)  # is not recorded any more
    assert len(recording.requests) == 9


def test_the_same_notebook_is_the_same_study(lake, tmp_path):
    found = []
    for _ in range(2):
        with lake.record(tmp_path / "study.json", purpose="p") as recording:
            notebook(lake)
        found.append(json.loads(recording.study.to_text())["requests"])
    assert found[0] == found[1]


def test_what_cannot_be_recorded(lake, tmp_path):
    file = tmp_path / "study.json"
    both = lake.table("ages").join(lake.table("costs"), on="id")
    with lake.record(file, purpose="p"):
        lake.table("ages").describe(["age"])
        with pytest.raises(
            ConsentError, match="request 2, split, uses what was computed before the recording"
        ):
            both.split(test_size=0.5)
        with pytest.raises(ConsentError, match=r"has a recording of 1 requests for .* under way"):
            lake.record(file, purpose="p")
        with pytest.raises(PlanError, match="a job is no part of a study"):
            lake.submit(sum_of_ages(lake))
    assert len(Study.from_bytes(file.read_bytes()).requests) == 1
    with pytest.raises(ConsentError, match="1 to 1,000 requests, not 0"), lake.record(file, purpose="p"):
        pass
    with pytest.raises(PlanError, match="purpose=''"):
        lake.record(file, purpose="")
    lake.requests = None


def test_an_error_leaves_no_file(lake, tmp_path):
    file = tmp_path / "study.json"
    with pytest.raises(ZeroDivisionError), lake.record(file, purpose="p"):
        lake.table("ages").describe(["age"])
        raise ZeroDivisionError
    assert not file.exists()
    assert lake.requests is None


def test_following_says_which_request_is_which(lake, tmp_path):
    with lake.record(tmp_path / "study.json", purpose="p") as recording:
        notebook(lake)
    followed, ended = [], []

    class Noted(Following):
        def place(self, request):
            placed = super().place(request)
            followed.append(read_step(placed.study))
            return placed

    with Noted(recording.study, b"r" * 16, lambda: ended.append(True)) as following:
        lake.requests = following
        notebook(lake)
        assert repr(following) == f"run of study {recording.study.number}, at request 9 of 9"
        with pytest.raises(ConsentError, match="has 9 requests, and this would be request 10, describe"):
            lake.table("ages").describe(["age"])
    assert ended == [True]
    assert list(dict.fromkeys(followed)) == [(b"r" * 16, position) for position in range(1, 10)]
    lake.requests = Following(recording.study, b"r" * 16, list)
    try:
        with pytest.raises(ConsentError, match=r"request 6, fit: C was recorded as 0\.5, and is 2\.0 now"):
            notebook(lake, C=2.0)
    finally:
        lake.requests = None


def test_what_comes_out_is_no_graver_than_the_page_says(lake, tmp_path):
    """Every computation, on a plain lake, whose plans tell the classes of their disclosures."""
    found: dict[str, set[str]] = {}
    with lake.record(tmp_path / "study.json", purpose="p") as recording:

        def note(plan, _):
            classes = {item.kind for item in plan.disclosures() if item.kind}
            found.setdefault(recording.requests[-1].computation, set()).update(classes)

        lake.on_result = note
        try:
            everything(lake)
        finally:
            lake.on_result = None
    assert found.keys() == DOES.keys() - {"fit_alone"}
    for name, classes in found.items():
        worst = max((CLASSES.index(one) for one in classes), default=0)
        assert worst <= CLASSES.index(DOES[name].kind), (name, classes)


def everything(lake):
    both = lake.table("ages").join(lake.table("costs"), on="id")
    both = both.assign(young=both["age"] < 40).filter(both["cost"] > 0.5)
    lake.table("gaps").dropna()
    both.describe(["age"])
    both.crosstab("young", columns="sick", categories={"young": [0, 1], "sick": [0, 1]})
    both.corr(["age", "cost"])
    both.groupby("sick", categories={"sick": [0, 1]}).agg({"age": "mean"})
    both.reveal("age")
    train, test = both.split(test_size=0.5)
    scaler = StandardScaler(columns=["age"]).fit(train)
    scaler.reveal()
    scaled, scaled_test = scaler.transform(train), scaler.transform(test)
    tercet.concat([train, test], site="secret").groupby("id").to_table({"age": ["max", "count"]})
    features = ["age", "cost"]
    cross_validate(LogisticRegression(), scaled, "sick", cv=2, features=features)
    GridSearch(LogisticRegression(), C=[0.1, 1.0], cv=2).fit(scaled, "sick", features=features)
    model = LogisticRegression(penalty=None).fit(scaled, "sick", features=features)
    model.summary()
    model.reveal()
    model.save("risk")
    lake.model("risk").summary(scaled)
    model.score(scaled_test)
    evaluation = model.evaluate(scaled_test)
    evaluation.reveal(["accuracy"])
    evaluation.roc_curve(points=5)
    evaluation.calibration(bins=2)
    model.predict_proba(scaled_test).reveal()
    model.predict(scaled_test).reveal_keyed(to="hospital")


def test_plans_by_hand_are_no_part_of_a_study(lake, tmp_path):
    with lake.record(tmp_path / "study.json", purpose="p"):
        lake.table("ages").describe(["age"])
        with pytest.raises(PlanError, match="a plan by hand is no part of a study"):
            lake.run(sum_of_ages(lake))
