"""Computations by name: arguments as data and back, handles that follow from names, and those of packages."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import numpy as np
import pytest

from tercet.errors import PlanError, SchemaError
from tercet.ml import computations
from tercet.ml.arguments import Decoder
from tercet.ml.computations import Naming, Request, as_data, checks_of, computation, encoded, within
from tercet.ml.declarations import Declared, declare, require_declared
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.recorded import OPERATIONS
from tercet.plans import Builder
from tests.fuzz import asked


def decoder():
    return Decoder(lambda kind, name: asked._table(name), lambda name: None)


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t["age"] * 2 + 1,
        lambda t: 3 - t["age"] / np.float32(10),
        lambda t: (t["age"] > 50) & ~t["sick"] | (t["age"].isin([1, 2.5])),
        lambda t: t["age"].clip(0, upper=90).where(t["sick"], 7) ** 2,
        lambda t: (t["age"] + t["age"]).clip(1, 100) / t["age"].clip(lower=10),
        lambda t: t["age"].fillna(3) == np.int64(4),
    ],
)
def test_expressions_come_back_as_they_were_written(write):
    expression = write(asked._table("patients"))
    again = decoder().value(as_data(expression, "an expression"))
    assert (str(again), again.public, again.sources) == (
        str(expression),
        expression.public,
        expression.sources,
    )


def test_renamed_tables_come_back():
    table = asked._table("patients")
    table = attrs.evolve(table, origin={"$table": "patients"}).rename({"age": "years", "id": "patient"})
    again = decoder().value(table.to_data())
    assert (again.column_names, again.key_names) == (table.column_names, ("patient",))
    with pytest.raises(SchemaError, match="no column 'age'"):
        decoder().value({"$renamed": [table.to_data(), {"age": "x"}]})


def test_what_is_used_twice_travels_once():
    column = asked._table("patients")["sick"]
    for _ in range(40):
        column = column ^ column
    data = as_data(column, "an expression")
    assert len(data["$expression"][1]) == 41
    assert decoder().value(data).public == column.public


def test_every_operation_is_a_method_that_notes_itself():
    column = asked._table("patients")["age"]
    for name in OPERATIONS:
        assert hasattr(type(column), name), name
    assert (-column).made.operation == "__neg__"


def test_estimators_travel_by_their_options():
    data = as_data(LogisticRegression(C=np.float64(0.5), max_iter=3), "a fit", fresh=True)
    again = decoder().value(data)
    assert again.get_params() == LogisticRegression(C=0.5, max_iter=3).get_params()
    with pytest.raises(PlanError, match="not known to the nodes"):
        as_data(LogisticRegression(), "a fit")


def test_handles_follow_from_the_name_and_their_order():
    found = []
    for name in (b"a" * 16, b"a" * 16, b"b" * 16):
        with within(Naming(name)):
            found.append([computations.naming().handle("x") for _ in range(3)])
    assert found[0] == found[1]
    assert len({handle for each in found for handle in each}) == 6
    assert computations.naming() is None


def test_only_check_bits_are_answers():
    b = Builder("both")
    x = b.random_words(2, 3)
    x.reveal("a figure", to="analyst", kind="figure")
    x.reveal("a bit", to="analyst", kind="check")
    x.reveal("something", to="analyst")
    revealed = {name: np.ones(1) for name in ("a figure", "a bit", "something")}
    assert checks_of(b.plan(), revealed) == {"a bit": [1.0]}


def test_requests_come_back():
    request = Request("join", {"on": "id"}, bytes(16), ({"bit": [1.0]},), 3, b"digest", b"study")
    assert Request.from_bytes(request.to_bytes()) == request
    with pytest.raises(PlanError, match="nodes read"):
        Request("join", {"on": "x" * (1 << 20)}, bytes(16)).to_bytes()


def test_a_package_offers_a_computation(declaring, monkeypatch):
    """As an entry point: it is declared when it is first asked for, and held against what it declares."""

    def load():
        declare("total", Declared(("figure",)))

        @computation("total", group="statistics")
        def total(table, column):
            b = Builder("total")
            table.raw(b, [column])[0].sum().reveal("total", to="analyst", kind="figure")
            return (yield b.plan()).revealed["total"]

    def offered(*, group, name):
        entry = SimpleNamespace(value="package:total", load=load)
        return [entry] if (group, name) == ("tercet.computations", "total") else []

    monkeypatch.setattr(computations, "entry_points", offered)
    known = computations.find("total")
    arguments = decoder().arguments(known, {"table": {"$table": "patients"}, "column": "age"})
    plan = next(known.call(**arguments))
    assert require_declared("total", plan) is plan
    assert encoded(known, arguments)["table"] == {"$table": "patients"}
    with pytest.raises(PlanError, match="there is no computation 'mean'; known are assign"):
        computations.find("mean")
    with pytest.raises(TypeError, match="declared already"):
        declare("total", Declared())
