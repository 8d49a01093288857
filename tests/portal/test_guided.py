"""Guided studies: the Python beside the form is what the portal computes; choices and results are kept."""

from __future__ import annotations

import json

import nbformat
import numpy as np
import pytest
import trio

import tercet
from tercet.client import lake as lakes
from tercet.client.study_api import KnownStudy
from tercet.errors import ConsentError, PlanError, StorageError
from tercet.members.studies import Study
from tercet.ml.schema import ColumnSchema, TableSchema
from tercet.portal.charts import draw
from tercet.portal.guided import Guided, Terms, rows_for
from tercet.portal.outcomes import Outcome
from tercet.portal.study_work import StudyWork

ROWS = 300
TERMS = Terms(purpose='Who comes back? "$x^2$" \\ {0}', uses=2, days=30.0)
WHOLE = {"tables": ("one", "two"), "keys": ("id",), "target": "sick", "features": ("age", "$b_{mi}$")}


def upload(lake):
    """Two tables of made-up people, one column with a name that matplotlib and LaTeX could trip over."""
    rng = np.random.default_rng(3)
    age, bmi = rng.normal(50, 10, ROWS), rng.normal(27, 4, ROWS)
    sick = (0.1 * (age - 50) + 0.1 * (bmi - 27) + rng.logistic(size=ROWS) > 0).astype(int)
    ids = np.arange(ROWS)
    yield lake.upload({"id": ids, "age": age, "sick": sick}, name="one", key="id", owner="a")
    yield lake.upload({"id": ids, "$b_{mi}$": bmi}, name="two", key="id", owner="b")


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"C": None, "test_size": 0.4, "metrics": ("brier",), "roc": False},
        {"C": 0.5, "metrics": (), "calibration": False, "tables": ("one",), "features": ("age",)},
    ],
    ids=["usual", "unpenalised", "one table"],
)
async def test_the_python_beside_the_form_is_what_the_portal_computes(chosen, tmp_path):
    guided = Guided(**{**WHOLE, **chosen})
    async with lakes.open_local(protocol="plain") as lake:
        for uploaded in upload(lake):
            await uploaded
        recording = lake.record(tmp_path / "study.json", purpose="p")
        outcome = await guided.compute(lake)
        clicked = recording.study

    def script() -> Study:
        with tercet.local(protocol="plain") as lake:
            list(upload(lake))
            names: dict[str, object] = {}
            exec(f"from tercet.ml import LogisticRegression\n{guided.function()}", names)
            recording = lake.record(tmp_path / "study.json", purpose="p")
            found = names["study"](lake)
            count = len(found) if isinstance(found, tuple) else 1
            asked = (True, bool(guided.metrics), guided.roc, guided.calibration)
            assert count == sum(asked)
            return recording.study

    written = await trio.to_thread.run_sync(script)
    assert written.requests == clicked.requests
    assert (outcome.roc is None) == (not guided.roc)
    assert Guided.from_text(guided.to_text()) == guided


def test_scripts_and_notebooks_are_valid_whatever_the_names():
    guided = Guided(**{**WHOLE, "features": ("it's", 'a "b"', "back\\slash")})
    compile(guided.python(TERMS, "cluster.toml", "ann.key"), "study.py", "exec")
    book = nbformat.reads(guided.notebook(TERMS, "cluster.toml", "ann.key"), as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"tables": ()}, "choose a table"),
        ({"target": ""}, "choose the outcome"),
        ({"features": ()}, "choose features"),
        ({"features": ("sick", "age")}, "is the outcome"),
        ({"features": ("age", "age")}, "two of the tables have a column 'age'"),
        ({"test_size": 1.0}, "cannot be tested on"),
        ({"metrics": ("auc",)}, "no metric 'auc'"),
    ],
)
def test_what_makes_no_study_is_refused_with_a_sentence(chosen, why):
    with pytest.raises(PlanError, match=why):
        Guided(**{**WHOLE, **chosen})


def test_tables_that_cannot_be_joined_are_named():
    def schema(name, key):
        return TableSchema(name, "a", (ColumnSchema(key, "key", key_type="string"),), 10, 40)

    schemas = {"one": schema("one", "id"), "two": schema("two", "nr")}
    chosen = {"target": "y", "features": ("x",)}
    with pytest.raises(PlanError, match="one by id; two by nr"):
        Guided.of(schemas, ["one", "two"], **chosen)
    with pytest.raises(PlanError, match="no table 'three'"):
        Guided.of(schemas, ["three"], **chosen)
    assert rows_for([schemas["one"]], 0.25) == 15 * 40 * 4
    assert rows_for([schemas["one"]], 1e-310) > 1 << 24  # which no rehearsal takes
    for text in ("", "[]", "{}", '{"tables": 1}'):
        with pytest.raises(PlanError):
            Guided.from_text(text)


@pytest.fixture(scope="module")
def outcome():
    async def compute():
        async with lakes.open_local(protocol="plain") as lake:
            for uploaded in upload(lake):
                await uploaded
            return await Guided(**WHOLE, metrics=("roc_auc", "confusion_matrix")).compute(lake)

    return trio.run(compute)


def test_results_are_kept_as_they_are(outcome):
    again = Outcome.from_text(outcome.to_text())
    assert str(again.summary) == str(outcome.summary)
    assert again.summary.to_latex() == outcome.summary.to_latex()
    assert str(again.metrics) == str(outcome.metrics)
    np.testing.assert_array_equal(again.roc.tpr, outcome.roc.tpr)
    assert str(again.calibration) == str(outcome.calibration)
    told = json.loads(outcome.to_text())
    told["metrics"]["values"]["roc_auc"] = float("nan")
    assert np.isnan(Outcome.from_text(json.dumps(told)).metrics.roc_auc)
    for text in ("", "[]", "{}", '{"summary": {}}'):
        with pytest.raises(StorageError, match="cannot be read"):
            Outcome.from_text(text)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("chart", ["forest", "roc", "calibration"])
def test_pictures_are_drawn_with_names_as_they_are(outcome, chart, dark):
    svg = draw(outcome, chart, "svg", dark=dark).decode()
    assert svg == draw(outcome, chart, "svg", dark=dark).decode()
    assert "<script" not in svg
    assert draw(outcome, chart, "png", dark=dark).startswith(b"\x89PNG")
    with pytest.raises(PlanError, match="no pie"):
        draw(outcome, "pie", "svg")


async def test_runs_of_earlier_portals_are_found_again(outcome, tmp_path):
    async def no_lake():
        raise AssertionError("nothing is asked")

    folder = tmp_path / "ann.studies"
    folder.mkdir()
    (folder / "0123abcd.run-4567cdef.json").write_text(outcome.to_text())
    (folder / "0123abcd.run-..%2f.json").write_text("no run")
    async with trio.open_nursery() as nursery:
        work = StudyWork(tmp_path / "ann.key", no_lake, nursery)
        found = work.run("4567cdef")
        assert found.state == "done"
        assert found.study == "0123abcd"
        assert str(found.outcome.summary) == str(outcome.summary)
        for number in ("0000cdef", "../4567cdef", ""):
            with pytest.raises(ConsentError, match="no run"):
                work.run(number)


async def test_a_run_that_fails_in_an_unforeseen_way_ends_nothing_else(tmp_path):
    async def no_lake():
        raise KeyError("cluster")

    async with trio.open_nursery() as nursery:
        work = StudyWork(tmp_path / "ann.key", no_lake, nursery)
        (tmp_path / "ann.studies").mkdir()
        (tmp_path / "ann.studies" / f"{'ab' * 4}.choices.json").write_text(Guided(**WHOLE).to_text())
        known = KnownStudy(bytes.fromhex("ab" * 32), "ann", "p", 0.0, 9.0, 1, 0, (), (), "")
        run = work.begin(known)
    assert run.state == "failed"
    assert "unforeseen" in run.why


async def test_a_spoilt_file_of_results_hides_no_other(outcome, tmp_path):
    folder = tmp_path / "ann.studies"
    folder.mkdir()
    (folder / "0123abcd.run-4567cdef.json").write_text(outcome.to_text())
    told = json.loads(outcome.to_text())
    spoilt = [
        outcome.to_text()[:100].encode(),
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        json.dumps(told | {"summary": told["summary"] | {"values": {"coef": "none"}}}).encode(),
    ]
    for place, content in enumerate(spoilt):
        (folder / f"0123abcd.run-{place:08x}.json").write_bytes(content)
    (folder / "0123abcd.run-ffffffff.json").mkdir()
    (folder / "0123abcd.run-eeeeeeee.json").symlink_to("nowhere")
    (folder / "0123abcd.study.json").write_bytes(b"\xff")
    (folder / "0123abcd.choices.json").write_bytes(b"\xff")
    async with trio.open_nursery() as nursery:
        work = StudyWork(tmp_path / "ann.key", None, nursery)
        work.read_earlier()
        assert work.run("4567cdef").state == "done"
        others = [one for one in work.runs.values() if one.number != "4567cdef"]
        assert len(others) == len(spoilt) + 2
        assert {one.state for one in others} == {"failed"}
        assert all("cannot be read" in one.why or "No such file" in one.why for one in others)
        for read in (work.guided, work.study_text):
            with pytest.raises(StorageError, match="cannot be read"):
                read("0123abcd")


async def test_results_are_written_whole_or_not_at_all(outcome, tmp_path, monkeypatch):
    async with trio.open_nursery() as nursery:
        work = StudyWork(tmp_path / "ann.key", None, nursery)
        path = work._keep("a.json", "before")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"a.json cannot be written \(No space left on device\)"):
            work._keep("a.json", "after")
        assert path.read_text() == "before"
        assert [one.name for one in path.parent.iterdir()] == ["a.json"]
