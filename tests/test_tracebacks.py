"""Mistakes come out as the user's line and a sentence, whatever was called."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import traceback

import numpy as np
import pytest
import trio
from typer.testing import CliRunner

import tercet
from tercet.cli import app
from tercet.client.lake import open_local
from tercet.errors import PlanError, SchemaError, TercetError
from tercet.ml import GridSearch, LogisticRegression, MinMaxScaler, StandardScaler, cross_validate
from tercet.tracebacks import NOT_CALLED_BY_USERS, short, short_tracebacks

RNG = np.random.default_rng(2)
TABLE = {"id": np.arange(90), "x": RNG.normal(size=90), "g": np.arange(90) % 3, "y": np.arange(90) % 2}
OTHER = {"id": np.arange(90), "z": RNG.normal(size=90)}
MOST_LINES = 12


class World:
    """A lake, two tables and a model."""

    def __init__(self, lake):
        self.lake = lake
        self.t = lake.upload(TABLE, name="t", key="id", owner="o")
        self.u = lake.upload(OTHER, name="u", key="id", owner="p")
        self.model = LogisticRegression().fit(self.t, target="y", features="x")


@pytest.fixture(scope="module")
def world():
    with tercet.local(protocol="plain") as lake:
        yield World(lake)


MISTAKES = {
    "upload": lambda w: w.lake.upload({"id": [1, 1], "x": [1, 2]}, name="b", key="id", owner="o"),
    "upload a file": lambda w: w.lake.upload("none.csv", name="b", key="id", owner="o"),
    "upload text": lambda w: w.lake.upload({"id": [1, 2], "x": ["a", "b"]}, name="b", key="id", owner="o"),
    "join": lambda w: w.t.join(w.u, on="key"),
    "fit": lambda w: LogisticRegression().fit(w.t, target="nope"),
    "option": lambda w: LogisticRegression(C=-1).fit(w.t, target="y"),
    "evaluate": lambda w: w.model.evaluate(w.u),
    "metric": lambda w: w.model.evaluate(w.t, metrics=["nope"]),
    "curve": lambda w: w.model.evaluate(w.t).roc_curve(points=0),
    "summary": lambda w: w.model.summary(["nope"]),
    "predict": lambda w: w.model.predict_proba(w.u),
    "threshold": lambda w: w.model.predict(w.t, threshold=7),
    "reveal": lambda w: w.t.reveal("nope"),
    "column": lambda w: w.t["nope"],
    "columns": lambda w: w.t[["nope"]],
    "filter": lambda w: w.t.filter(w.t["x"]),
    "expression": lambda w: w.t["x"] > "a",
    "condition": lambda w: (w.t["x"] > 1) & 3,
    "truth": lambda w: bool(w.t["x"] > 1),
    "other table": lambda w: w.t["x"] + w.u["z"],
    "assign": lambda w: w.t.assign(a=3),
    "split": lambda w: w.t.split(test_size=3),
    "describe": lambda w: w.t.describe("nope"),
    "crosstab": lambda w: w.t.crosstab("x", "y"),
    "corr": lambda w: w.t.corr(["x"]),
    "scaler": lambda w: StandardScaler().fit(w.t[["x"]]).transform(w.u),
    "scaler first": lambda w: MinMaxScaler().transform(w.t),
    "folds": lambda w: cross_validate(LogisticRegression(), w.t, "nope"),
    "search": lambda w: GridSearch(LogisticRegression(), C=[]).fit(w.t, "y"),
    "plan": lambda w: w.lake.run(3),
    "model": lambda w: w.lake.model("nope"),
    "kept table": lambda w: w.lake.table("nope"),
    "local": lambda w: tercet.local(parties=4),
    "connect": lambda w: tercet.connect("none.toml", identity="none.key"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_a_short_traceback(world, mistake):
    with pytest.raises(TercetError) as caught:
        mistake(world)
    told = "".join(traceback.format_exception(caught.value))
    assert "mistake(world)" in told
    assert len(told.splitlines()) <= MOST_LINES, told
    for word in ("trio", "outcome", "ExceptionGroup", "the above exception", "the direct cause"):
        assert word not in told


async def test_in_a_trio_program():
    with pytest.raises(SchemaError) as caught:
        async with open_local(protocol="plain") as lake:
            table = await lake.upload(TABLE, name="t", key="id", owner="o")
            await table.reveal("nope")
    told = "".join(traceback.format_exception(caught.value))
    assert "await table.reveal" in told
    assert len(told.splitlines()) <= MOST_LINES, told


SCRIPT = """
import tercet
with tercet.local(protocol="plain") as lake:
    t = lake.upload({"id": [1, 2], "x": [1, 2]}, name="t", key="id", owner="o")
    t.filter(t["x"])
"""


@pytest.mark.parametrize("full", [False, True])
def test_a_script_ends_with_its_line_and_a_sentence(full, monkeypatch):
    if full:
        monkeypatch.setenv("TERCET_TRACEBACK", "full")
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("tercet.errors.SchemaError: the filter of table 't'")
    assert ("driver.py" in done.stderr) == full
    assert len(lines) > 30 if full else len(lines) <= 5, done.stderr


def test_whoever_looks_on_at_debug_sees_all(world, caplog):
    caplog.set_level(logging.DEBUG, logger="tercet.tracebacks")
    with pytest.raises(SchemaError):
        world.t.reveal("nope")
    assert "_reveal" in caplog.text


def test_other_errors_keep_their_frames(world):
    def explode(phase, plan):
        raise ZeroDivisionError

    world.lake.on_phase = explode
    with pytest.raises(ZeroDivisionError) as caught:
        world.t.reveal("x")
    world.lake.on_phase = None
    assert "explode" in "".join(traceback.format_exception(caught.value))


def test_what_is_shortened():
    @short_tracebacks
    class Thing:
        def __init__(self, value):
            self.fail()

        def __len__(self):
            return self._deep()

        def fail(self):
            """Fails."""
            self._deep()

        def _deep(self):
            raise PlanError("no") from KeyError("why")

        def __repr__(self):
            return self._deep()

    with pytest.raises(PlanError) as caught:
        Thing(3)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames] == ["test_what_is_shortened"]
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert list(inspect.signature(Thing).parameters) == ["value"]
    assert Thing.fail.__doc__ == "Fails."
    assert "__repr__" in NOT_CALLED_BY_USERS
    assert not hasattr(Thing._deep, "__wrapped__")


def test_an_awaited_function_is_shortened():
    @short
    async def fail():
        await trio.lowlevel.checkpoint()
        raise PlanError("no")

    async def main():
        with pytest.raises(PlanError) as caught:
            await fail()
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    assert trio.run(main) == ["main"]


COMMANDS = [
    ["demo", "--protocol", "nope"],
    ["demo", "--latency-ms", "-1"],
    ["tables", "--cluster", "none.toml", "--identity", "none.key"],
    ["upload", "none.csv", "--name", "n", "--key", "k", "--cluster", "none.toml", "--identity", "none.key"],
    ["drop", "t", "--cluster", "none.toml", "--identity", "none.key"],
    ["plans", "--cluster", "none.toml", "--identity", "none.key"],
    ["show", "1", "--cluster", "none.toml", "--identity", "none.key"],
    ["approve", "1", "--cluster", "none.toml", "--identity", "none.key"],
    ["refuse", "1", "--cluster", "none.toml", "--identity", "none.key"],
    ["results", "--cluster", "none.toml", "--identity", "none.key"],
    ["check", "--cluster", "none.toml", "--identity", "none.key"],
    ["audit", "none"],
    ["node", "none"],
    ["transcript", "print", "none"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_commands_end_with_a_sentence(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
