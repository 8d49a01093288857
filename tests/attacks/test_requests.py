"""Requests of a member whose client is her own: nodes make the plans, and nothing that she sends is one.

What a request names is decoded against the rules of its computation, results are their member's alone, names
of computations are used once, and a plan by hand has no way around its owner.
"""

from __future__ import annotations

import secrets

import attrs
import numpy as np
import pytest

from tercet.errors import ConsentError, PlanError, TercetError
from tercet.members.rules import Rules
from tercet.ml import LogisticRegression
from tercet.ml.computations import MOST_REQUEST, Request, as_data
from tercet.plans import builder
from tests.attacks.lake import ROWS, values_of


async def asked(lake, request):
    """What the nodes answer to a request as it is."""
    asking = [secrets.token_bytes(16), request.to_bytes(), 0.0, False]
    return await lake.cluster.client.ask("submit", asking)


def describing(table, **more):
    arguments = {"table": table, "columns": ["age"], "statistics": ["mean"], "to": "analyst", **more}
    return Request("describe", arguments, secrets.token_bytes(16))


def grouping(**more):
    arguments = {"table": AGES, "aggregates": {"age": ["sum"]}, "scales": None, **more}
    return Request("group_rows", arguments, secrets.token_bytes(16))


AGES = {"$table": "ages"}
ODD = {
    "a table by a handle": describing({"$handle": "ages#1"}),
    "a table as she describes it": describing({"name": "ages", "rows": ROWS, "parts": []}),
    "a table of nobody's": describing({"$table": "nothing"}),
    "a model for a table": describing({"$estimator": ["LogisticRegression", {}]}),
    "a class that is no estimator": describing({"$estimator": ["Popen", {"args": "ls"}]}),
    "an expression for a table": describing({"$expression": [AGES, [["column", ["age"], {}]]]}),
    "an argument that is none": describing(AGES, kind="check"),
    "statistics that are none": describing(AGES, statistics=["mean", "rows"]),
    "a number for a name": describing(AGES, columns=[1.5]),
    "an infinite number": describing(AGES, statistics=[float("inf")]),
    "a receiver that is none": describing(AGES, to=7),
    "a receiver who is nobody": describing(AGES, to="mallory"),
    "a deep argument": describing(AGES, statistics=[[[[[[[[["mean"]] * 2]]]]]]]),
    "an operation that is none": Request(
        "assign",
        {
            "table": AGES,
            "expressions": {
                "z": {"$expression": [AGES, [["column", ["age"], {}], ["__class__", [{"$node": 0}], {}]]]}
            },
        },
        secrets.token_bytes(16),
    ),
    "an operand used twice, again and again": Request(
        "assign",
        {
            "table": AGES,
            "expressions": {
                "z": {
                    "$expression": [
                        AGES,
                        [
                            ["column", ["age"], {}],
                            *(["__add__", [{"$node": n}, {"$node": n}], {}] for n in range(500)),
                        ],
                    ]
                }
            },
        },
        secrets.token_bytes(16),
    ),
    "a million steps": Request(
        "fit",
        {
            "self": {"$estimator": ["LogisticRegression", {"max_iter": 10**9, "solver": "gd"}]},
            "table": AGES,
            "target": "old",
        },
        secrets.token_bytes(16),
    ),
    **{
        f"groups of which is told {sizes!r}": grouping(sizes=sizes)
        for sizes in (-512, 1e300, 1 << 62, None, True, "", "Noisy", "noisy ", ["noisy"], {"noisy": -1e9})
    },
    "groups with noise of her own": grouping(sizes="noisy", coins=0),
    "groups with a loss of privacy of her own": grouping(sizes="noisy", epsilon=1e9),
    "a computation that is none": Request("open", {"table": AGES}, secrets.token_bytes(16)),
    "a result of nothing": describing({"$result": [bytes(16).hex(), []]}),
    "a later step of nothing": attrs.evolve(describing(AGES), answers=({"bit": [1.0]},)),
}  # fmt: skip


@pytest.fixture
async def victim(attacked):
    """The hospital's table, of which ann may ask for any computation."""
    return await attacked.victim(min_count=5, columns={
        "id": np.arange(ROWS), "age": np.linspace(20, 80, ROWS).round(2), "old": np.arange(ROWS) % 3 == 0
    })  # fmt: skip


async def test_odd_requests_are_refused_with_a_sentence(attacked, victim, monkeypatch):
    monkeypatch.setattr(builder, "MOST_WRITTEN", 1 << 14)  # of a plan, so that the longest is soon refused
    for what, request in ODD.items():
        with pytest.raises(TercetError) as refused:
            await asked(attacked.ann, request)
        assert "unforeseen" not in str(refused.value), (what, refused.value)
    # And nothing has been spoilt.
    assert (await victim.describe(["age"], statistics=["mean"]))["age"]["mean"] == pytest.approx(50, abs=0.1)


SHARES = [f"{number / 100:.2f}%" for number in range(10_000)]
ONE = ["column", ["age"], {}]
SLOW = {
    "a column again and again": describing(AGES, columns=["age"] * 3000),
    "all percentiles there are": describing(AGES, statistics=SHARES),
    "a number for each of many": Request(
        "assign",
        {"table": AGES, "expressions": {"z": {"$expression": [
            AGES, [ONE, ["isin", [{"$node": 0}, [float(number) for number in range(50_000)]], {}]]]}}},
        secrets.token_bytes(16),
    ),
    "a thousand categories": Request(
        "crosstab",
        {"table": AGES, "names": ["age", "old"], "statistics": ["counts"], "to": "analyst",
         "categories": {"age": list(range(1000)), "old": [0, 1]}},
        secrets.token_bytes(16),
    ),
    "a grid of a thousand": Request(
        "grid_search",
        {"model": {"$estimator": ["LogisticRegression", {}]}, "C": [1.0 + number for number in range(1000)],
         "table": AGES, "target": "old", "cv": 5, "scoring": ["roc_auc"], "features": None,
         "sample_weight": None, "offset": None, "stratify": True, "to": "analyst"},
        secrets.token_bytes(16),
    ),
    "equal columns of many names": Request(
        "assign",
        {"table": AGES, "expressions": {
            f"z{number}": {"$expression": [AGES, [ONE, ["isin", [{"$node": 0}, list(range(1000))], {}]]]}
            for number in range(150)
        }},
        secrets.token_bytes(16),
    ),
}  # fmt: skip


async def test_small_requests_do_not_build_for_long(attacked, victim, monkeypatch):
    """However few nodes come of it: what it takes to write a plan is bounded, and most of it before."""
    written, apply_all = [0], builder.Builder.apply_all

    def counted(*args, **attributes):
        written[0] += 1
        return apply_all(*args, **attributes)

    monkeypatch.setattr(builder, "MOST_WRITTEN", 1 << 12, raising=False)  # so that it is soon refused
    monkeypatch.setattr(builder.Builder, "apply_all", counted)
    for what, request in SLOW.items():
        written[0] = 0
        assert len(request.to_bytes()) < MOST_REQUEST
        with pytest.raises(TercetError, match=r"twice|no more than|to write|at most 256"):
            await asked(attacked.ann, request)
        assert written[0] <= (3 * (builder.MOST_WRITTEN + 1) if "names" in what else 0), what
    assert victim.rows == ROWS


async def test_a_result_is_its_members_alone(attacked, victim):
    model = await LogisticRegression(max_iter=2, check=False).fit(victim, "old", features=["age"])
    (name, path) = model.to_data()["$result"]
    predicting = {
        "self": {"$result": [name, [*path, "model"]]},
        "table": AGES,
        "what": "label",
        "threshold": None,
    }
    with pytest.raises(PlanError, match="insurer has no computation"):
        await asked(attacked.insurer, Request("predict", predicting, secrets.token_bytes(16)))
    arguments = {"self": as_data(LogisticRegression(), "a fit", fresh=True), "table": AGES, "target": "old"}
    with pytest.raises(ConsentError, match="another member's"):
        await asked(attacked.insurer, Request("fit", arguments, bytes.fromhex(name)))
    with pytest.raises(PlanError, match="other arguments or answers"):
        await asked(attacked.ann, Request("fit", arguments, bytes.fromhex(name)))


async def test_a_plan_is_the_clients_or_none(attacked, victim):
    """A digest of another plan, as a client of another release or with an older table would send."""
    assert victim.rows == ROWS
    with pytest.raises(PlanError, match="makes another plan of the request than the client did"):
        await asked(attacked.ann, attrs.evolve(describing(AGES), digest=bytes(32)))


async def test_results_are_made_anew_where_nodes_have_forgotten_them(attacked, victim):
    """As after a restart: of a chain of computations, with check bits and several plans among them."""
    more = await victim.assign(decade=(victim["age"] / 10).clip(0, 10))
    train, test = await more.split(test_size=0.3)
    model = await LogisticRegression(tol=1e-3).fit(train, "old", features=["age", "decade"])
    before = await (await model.evaluate(test, metrics=["accuracy"])).reveal()
    for node in attacked.nodes:
        node.gate.requests._members.clear()
    after = await (await model.evaluate(test, metrics=["accuracy"])).reveal()
    assert after.accuracy == pytest.approx(before.accuracy, abs=1e-6)
    for node in attacked.nodes:
        node.gate.requests._members.clear()
    await model.save("risk")
    assert (await (await attacked.ann.model("risk")).predict(test)).rows == test.rows


async def test_a_plan_by_hand_waits_for_its_owner_whatever_rules_say(attacked, victim):
    b = attacked.builder("a total")
    values_of(b, victim).sum().reveal("total", to="analyst", kind="check")
    assert "the owner was asked" in await attacked.why_not(b.plan())
    assert (await attacked.run(b.plan())).revealed["total"] > 0


async def test_a_model_is_kept_as_the_nodes_know_it(attacked, victim):
    ask = attacked.ann.cluster.client.ask
    for data in ({"$table": "ages"}, {"handles": ["x"]}, {"$result": [bytes(16).hex(), []]}):
        with pytest.raises(TercetError, match=r"is no model|no argument|no computation"):
            await ask("keep_model", ["m", data, b""])
    with pytest.raises(ConsentError, match="was not fitted here"):
        await attacked.ann.desk.keep("model", "m", b"", [], Rules())
    assert victim.name == "ages"


OLDER = {"id": np.arange(ROWS), "age": np.linspace(20, 80, ROWS), "old": np.arange(ROWS) % 7 > 2}


async def test_columns_of_a_formula_are_by_row_and_those_of_their_owner(attacked):
    """A fit has learned its model, and not the columns that it had computed; a plan by hand reads neither."""
    table = await attacked.victim(columns=OLDER)
    job = await LogisticRegression().submit(table, "old ~ I(age ** 2)")
    model = await LogisticRegression().collect(job, table, "old ~ I(age ** 2)")
    part = model._fitted().problem.table.parts[-1]
    b = attacked.builder()
    b.input(part.handle, part.type).reveal("it", to="analyst")
    assert "single rows" in await attacked.why_not(b.plan())


async def test_new_columns_of_a_fit_hide_no_others(attacked):
    """Features that are left out mean all columns, which owners may not allow beside some expressions."""
    await attacked.victim(columns=OLDER)
    options = {"$estimator": ["LogisticRegression", {}]}
    z = {"$expression": [AGES, [["column", ["old"], {}]]]}
    given = {"self": options, "table": AGES, "target": "old", "sample_weight": None, "offset": None}
    for expressions, sentence in (
        ({"z": z}, "names its features"),
        ({}, "names its features"),
        (["z"], "names its features"),
    ):
        request = Request(
            "fit_alone",
            {**given, "features": None, "expressions": expressions},
            secrets.token_bytes(16),
        )
        with pytest.raises(TercetError, match=sentence):
            await asked(attacked.ann, request)
    odd = Request("fit_alone", {**given, "features": ["z"], "expressions": ["z"]}, secrets.token_bytes(16))
    with pytest.raises(TercetError, match="cannot be made with these arguments"):
        await asked(attacked.ann, odd)
