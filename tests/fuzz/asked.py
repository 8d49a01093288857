"""Requests for computations: as members send them, and a node that makes plans of them and runs none."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgpack

from tercet.members.rules import Rules
from tercet.ml.association import correlate, crosstab
from tercet.ml.computations import Computed, Request, encoded
from tercet.ml.declarations import require_declared
from tercet.ml.describe import describe
from tercet.ml.grouping import group_statistics
from tercet.ml.join import join
from tercet.ml.key_groups import group_rows
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.model_selection import _cross_validate
from tercet.ml.preparation import assign, keep
from tercet.ml.schema import ColumnSchema, TableSchema
from tercet.ml.splitting import split
from tercet.ml.stacking import stack_tables
from tercet.ml.table import Table
from tercet.ml.transformers import StandardScaler
from tercet.ml.validation import Validation
from tercet.nodes.requests import Requests, described
from tercet.storage.catalog import Entry

KEY = ColumnSchema("id", "key", key_type="integer")
AGE, BMI = ColumnSchema("age", "real", 9, range=(0, 120)), ColumnSchema("bmi", "real", 11)
SICK = ColumnSchema("sick", "boolean")
STAGE, BORN = ColumnSchema("stage", "category", labels=("I", "II")), ColumnSchema("born", "date")


def _entry(name: str, *columns: ColumnSchema) -> Entry:
    schema = TableSchema(name, "clinic", (KEY, *columns), 100, min_count=5)
    body = msgpack.packb(schema.to_dict())
    return Entry(
        "table", name, "clinic", body, Rules(min_count=5).to_bytes(), (f"{name}#keys", f"{name}#values")
    )


COLUMNS = (AGE, SICK, STAGE, BORN)
ENTRIES = {
    one.name: one for one in (_entry("patients", *COLUMNS), _entry("others", *COLUMNS), _entry("tests", BMI))
}
VAULT = SimpleNamespace(
    catalog=SimpleNamespace(
        find=lambda kind, name: ENTRIES.get(name) if kind == "table" else None, begin=None
    ),
)


@functools.cache
def node() -> Requests:
    """A node with two tables of the clinic's."""
    made = Requests(cast("Any", VAULT))
    made._steps = cast("Any", SimpleNamespace(steps=lambda name: [], forgotten=lambda name: False))
    return made


def read_request(data: bytes) -> None:
    """As a node does with a request: make a plan of it, which discloses what is declared and no more."""
    built = node().made("ann", Request.from_bytes(Request.MAGIC + data))
    require_declared(built.known.name, built.plan)


def _table(name: str) -> Table:
    entry = ENTRIES[name]
    return described("ann", entry, TableSchema.from_dict(msgpack.unpackb(entry.body)), None)


def _computations() -> Iterator[Computed[Any]]:
    t, other = _table("patients"), _table("tests")
    model = LogisticRegression(C=0.5, max_iter=2)
    yield join([t, other], "id")
    yield split(t, 0.25, "sick", 7)
    yield stack_tables([one.drop("born") for one in (t, _table("others"))], "secret", "count", "site")
    yield group_rows(t, {"age": ["sum", "mean", "max"], "sick": "count"}, "hidden", {"age_sum": 3})
    yield group_rows(t, {"age": "max"}, "noisy", None)
    yield assign(t, {"decade": (t["age"] / 10).clip(0, 12), "old": t["age"].isin([60, 61.5]) | t["sick"]})
    yield assign(t, {"first": t["stage"].isin(["I"]), "years": t["born"].dt.age("2024-01-01")})
    yield assign(
        t, {"log": (t["age"] + 1).log(), "band": t["age"].cut([-1, 18, 65, 121]), "near": t["age"].round(-1)}
    )
    yield keep(t[["age", "sick"]], (t["age"] > 50) & ~t["sick"], compact=False)
    yield describe(t, ["age"], ["mean", "50%"], "analyst")
    yield crosstab(t, ("sick", "age"), {"sick": [0, 1], "age": [40, 50]}, ["counts", "chi2"], "ann")
    yield group_statistics(t, ["sick"], {"sick": [0, 1]}, {"age": ["mean", "var", "max"]}, "ann")
    yield correlate(t, None, "analyst")
    yield model.fit_steps(t, "sick", features=["age"])
    yield StandardScaler(columns=["age"])._fit(t)
    folds = Validation(model, t, "sick", 2, ["accuracy"], ["age"], None, None, stratify=False)
    yield _cross_validate(**folds.options, to="analyst")


def requests() -> tuple[bytes, ...]:
    """Requests for first steps of many computations, packed, without the line that says so."""
    return tuple(
        Request(one.known.name, encoded(one.known, one.arguments), bytes([number]) * 16)
        .to_bytes()
        .removeprefix(Request.MAGIC)
        for number, one in enumerate(_computations())
    )
