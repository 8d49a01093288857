"""Parts of the portal by themselves: files that wait, text that is shown, logs that are searched."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import time
import xml.etree.ElementTree as ET

import attrs
import pandas as pd
import pytest
import trio

from tercet.actors.hello import Hello
from tercet.client import node_checks
from tercet.client.node_checks import Looked
from tercet.errors import SchemaError, TercetError
from tercet.members.config import ClusterFile
from tercet.members.seals import Head
from tercet.members.studies import Asked, Study
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.portal import audit_book, node_watch
from tercet.portal.audit_book import LONGEST_FACT, NONSENSE, AuditBook, Entry
from tercet.portal.drafts import MOST_DRAFTS, Drafts
from tercet.portal.node_watch import NodeWatch, Sample
from tercet.portal.rendering import TEMPLATES, lasted, shown, table_of, when
from tercet.portal.state import Connection
from tercet.portal.study_drawing import draw_samples, draw_study

CSV = b"id,age,name\nP-1,30,x\nP-2,40.5,y\nP-3,NA,z\n"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_is_looked_at_and_goes_when_it_is_dropped(tmp_path, kind):
    if kind == "csv":
        content = CSV
    else:
        out = io.BytesIO()
        pd.DataFrame({"id": ["P-1", "P-2"], "age": [30, 40.5], "name": ["x", "y"]}).to_parquet(out)
        content = out.getvalue()
    drafts = Drafts(tmp_path)
    draft = drafts.add(io.BytesIO(content), f"My table (1).{kind}")
    assert [(one.name, one.numeric) for one in draft.columns] == [
        ("id", False),
        ("age", True),
        ("name", False),
    ]
    assert draft.proposed_name == "My_table__1"
    assert draft.proposed_key == "id"
    options = {"name": "t", "key": ["id"], "owner": "o", "columns": ["age"], "missing": "indicator"}
    schema = draft.look(**options).schema
    assert schema.column("age").kind == "real"
    assert schema.rows == len(draft.columns[0].cells)
    assert draft.look(**options).schema is schema
    with pytest.raises(SchemaError, match="name"):
        draft.look(**{**options, "columns": ["age", "name"]})
    drafts.drop(draft.number)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SchemaError, match="not here any more"):
        drafts.find(draft.number)


@pytest.mark.parametrize(
    ("content", "title", "why"),
    [
        (b"", "a.csv", "is empty"),
        (b"a;b\n1;2\n", "a.csv", "separated by ';'"),
        (b"\xff\xfe\x00", "a.csv", "UTF"),
        (b"no parquet", "a.parquet", "is it whole"),
        (b"no gzip", "a.csv.gz", "is it whole"),
        (CSV, "a.exe", "is no table"),
        (CSV, "", "is no table"),
    ],
)
def test_what_is_no_table_leaves_nothing(tmp_path, content, title, why):
    with pytest.raises(SchemaError, match=why) as refused:
        Drafts(tmp_path).add(io.BytesIO(content), title)
    assert str(tmp_path) not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_the_oldest_file_makes_room(tmp_path):
    drafts = Drafts(tmp_path)
    added = [drafts.add(io.BytesIO(CSV), "a.csv") for _ in range(MOST_DRAFTS + 1)]
    assert len(list(tmp_path.iterdir())) == MOST_DRAFTS
    with pytest.raises(SchemaError):
        drafts.find(added[0].number)


def test_text_of_others_hides_and_turns_nothing():
    assert shown("plain\ntext") == "plain\ntext"
    assert "\u202e" not in shown("a\u202eb")
    assert "\x1b" not in shown("\x1b[2J")
    template = TEMPLATES.from_string("{{ text | shown }}")
    assert template.render(text="<b>") == "&lt;b&gt;"
    assert [lasted(one) for one in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]


@pytest.mark.parametrize("seconds", [1e300, float("nan"), float("inf"), -1e20, 1 << 80])
def test_times_that_no_calendar_has_are_shown_as_that(seconds):
    assert when(seconds) == "at no time that calendars have"


async def test_a_lake_that_fails_in_an_unforeseen_way_is_opened_again(nursery):
    times = 0

    @contextlib.asynccontextmanager
    async def opened():
        nonlocal times
        times += 1
        if times == 1:
            raise KeyError("nodes")
        yield "the lake"

    connection = Connection(opened, nursery)
    with pytest.raises(TercetError, match="unforeseen"):
        await connection.lake()
    assert await connection.lake() == "the lake"


def test_cells_that_spreadsheets_would_run_are_text():
    told = table_of(("name", "value"), [("=1+1", -2.5), ('a "b",c', 1), ("-x", 0)])
    assert told == 'name,value\r\n\'=1+1,-2.5\r\n"a ""b"",c",1\r\n\'-x,0\r\n'


def test_drawings_are_well_formed_whatever_the_names():
    requests = (
        Asked("join", {"tables": [{"$table": "<a>&"}, {"$table": 'b"'}]}),
        Asked("describe", {"table": {"$result": [1, []]}, "columns": None, "to": "<c>"}),
    )
    study = Study.of(requests, purpose="p", analyst="ann", uses=1, until=int(time.time()) + 1000)
    drawn = ET.fromstring(draw_study(study))
    texts = [one.text for one in drawn.iter() if one.tag.endswith("text")]
    assert "table <a>&" in texts
    assert "to <c>" in texts
    nan = float("nan")
    samples = {"<n0>": [Sample(0, 1, nan, 5), Sample(15, nan, nan, nan), Sample(30, 2, nan, 5)], "n1": []}
    for field in ("runs", "memory", "free"):
        ET.fromstring(draw_samples(samples, field, "a & b", 1.0))


# -- what nodes say of themselves ----------------------------------------------------------------------------

STATUS = {
    "release": "1.0",
    "missing_parties": [],
    "runs": 0,
    "waiting": 0,
    "free_bytes": {"audit log": 1 << 40},
    "audit": [7, "ab"],
    "coming": [],
    "went_back": [],
    "memory_bytes": None,
}
WRONG_STATUS = [
    {"release": 1},
    {"release": "x" * 10_000},
    {"release": "1.0\u202e"},
    {"missing_parties": [3]},
    {"missing_parties": ["n1"]},
    {"missing_parties": None},
    {"runs": "many"},
    {"waiting": [1]},
    {"free_bytes": {}},
    {"free_bytes": {"audit log": "all"}},
    {"free_bytes": 5},
    {"audit": [1]},
    {"audit": None},
    {"coming": [1]},
    {"went_back": [["n2", 1, 2]]},
    {"went_back": [["n2", "one", 2, ""]]},
    {"went_back": [["n2\n", 1, 2, ""]]},
    {"went_back": [["n0", 2, 1, ""]] * 2},
    {"went_back": [["n1", 2, 1, ""]]},
    {"went_back": [["n2", 2, 1, ""], ["the hospital", 2, 1, ""]]},
    {"went_back": [["n2", 2, -1, ""]]},
    {"went_back": [["n2", 2, 1, "\u202e"]]},
    {"went_back": [[["n2"], 2, 1, ""]]},
    {"memory_bytes": "much"},
    {"workers": 2},
    {"workers": [[True, 1.0]]},
    {"workers": [["yes", 1.0, ""]]},
    {"workers": [[True, float("nan"), ""]]},
    {"workers": [[False, 1e300, ""]]},
    {"workers": [[True, 1.0, ""], [True, 1.0, ["why"]]]},
    {"workers": [[True, 1.0, ""]] * 257},
]


@pytest.fixture
def cluster(tmp_path):
    """The file of a lake of three nodes, and the key of a member."""
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", tmp_path / f"n{i}") for i in range(3)]
    parts.append(make_member("aud", ["auditor"], tmp_path))
    make_cluster(parts, tmp_path / "c.toml", protocol="replicated")
    return ClusterFile.read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "wrong", [*WRONG_STATUS, *({name: ...} for name in STATUS)], ids=lambda one: str(one)[:60]
)
async def test_a_node_that_talks_nonsense_is_named(cluster, nursery, monkeypatch, wrong):
    async def ask(cluster, identity, index, verb, *, timeout_s):
        assert timeout_s == 7.0
        hello = Hello("client", "replicated", 3)
        told = STATUS | (wrong if index == 1 else {})
        return hello, hello, {name: value for name, value in told.items() if value is not ...}

    monkeypatch.setattr(node_checks, "ask_node", ask)
    watch = NodeWatch(cluster, None, nursery, timeout_s=7.0)
    looked = await watch.look()
    assert [one.good for one in looked] == [True, False, True]
    assert [one.told is None for one in looked] == [False, True, False]
    assert "makes no sense" in looked[1].found[0].what


async def test_workers_that_are_missing_are_named(cluster, monkeypatch):
    """With their party, since when and why; those who are missing together in one sentence."""
    why = "worker 1 of party 1 is lost:\n\u202eit was silent" + "!" * 1000
    states = [[True, 1e9, ""], [False, 1e9, why], [False, 1e9, "x"], [False, 1e9 + 9, "x"]]

    async def ask(cluster, identity, index, verb, *, timeout_s):
        hello = Hello("client", "replicated", 3)
        return hello, hello, STATUS | {"workers": states if index == 1 else [[True, 1e9, ""]] * 4}

    monkeypatch.setattr(node_checks, "ask_node", ask)
    looked = await node_checks.look_at_nodes(cluster, None, timeout_s=7.0)
    assert [one.good for one in looked] == [True, False, True]
    assert looked[0].found[0].what.endswith("0 runs under way, 4 workers")
    first, second = (one.what for one in looked[1].found)
    since = "not there since 2001-09-09 01:46 UTC; "
    assert first.startswith(
        rf"worker 1 of party 1: {since}'worker 1 of party 1 is lost:\n\u202eit was silent!"
    )
    assert second == f"worker 2 of party 1 and worker 3 of party 1: {since}x"


async def test_a_look_that_fails_ends_nothing(cluster, nursery, monkeypatch, caplog, autojump_clock):
    times = 0

    async def look(*_, **__):
        nonlocal times
        times += 1
        if times == 2:
            raise KeyError("runs")
        return []

    monkeypatch.setattr(node_watch, "look_at_nodes", look)
    watch = NodeWatch(cluster, None, nursery, timeout_s=7.0)
    await watch.look()
    await trio.sleep(3.5 * node_watch.EVERY_S)
    assert "a look at the nodes failed" in caplog.text
    assert times > 2


async def test_nodes_are_looked_at_again_whatever_becomes_of_the_clock(
    cluster, nursery, monkeypatch, autojump_clock
):
    times = []

    async def look(*_, **__):
        times.append(trio.current_time())
        return [Looked(f"n{i}", ()) for i in range(3)]

    monkeypatch.setattr(node_watch, "look_at_nodes", look)
    monkeypatch.setattr(
        "time.time", lambda: 1e9 - trio.current_time() * 1e6
    )  # it is set back, again and again
    watch = NodeWatch(cluster, None, nursery, timeout_s=7.0)
    for _ in range(2):
        await watch.look()
    assert len(times) == 1  # twice at once is one look
    await trio.sleep(node_watch.EVERY_S - 2)
    await watch.look()
    assert len(times) == 2
    await trio.sleep(node_watch.EVERY_S * 1.5)
    assert len(times) == 3  # a page has looked shortly before the first of its own
    ET.fromstring(draw_samples(watch.samples, "runs", "plans", 1.0))
    assert [one.time for one in watch.samples["n0"]] == times


# -- the logs of nodes ---------------------------------------------------------------------------------------


@attrs.define
class Logs:
    """A lake that has logs and nothing else."""

    lines: dict[str, list[str]]
    error: Exception | None = None
    asked: list[tuple[dict[str, Head], bool, bool]] = attrs.field(factory=list)

    async def audit(self, known, *, again, by_hash, most):
        assert most
        self.asked.append((dict(known), again, by_hash))
        if self.error is not None:
            raise self.error
        await trio.lowlevel.checkpoint()
        return {
            name: (Head(len(lines), f"{len(lines)}"), lines[0 if again else known[name].lines :])
            for name, lines in self.lines.items()
        }


def line(number, event, seconds, **facts):
    return json.dumps({"number": number, "time": seconds, "event": event, "before": "", **facts}) + "\tsigned"


@pytest.fixture
async def book(cluster, tmp_path, nursery):
    """A book of three nodes, with 10,000 lines each."""
    long_ago = time.time() - 1e6
    lines = {
        f"n{i}": [
            line(
                n,
                "runs",
                long_ago + n,
                caller=f"m{n % 7}",
                computation="fit",
                session=f"{n:032x}",
                reads=["t"],
            )
            for n in range(10_000)
        ]
        for i in range(3)
    }
    logs = Logs(lines)

    async def lake():
        return logs

    return AuditBook(cluster, tmp_path / "aud.key", lake, nursery), logs


async def test_ten_thousand_lines_of_each_node_are_searched_and_compared(book):
    book, logs = book
    assert await book.read(60)
    assert not book.why_not
    assert len(book.found("")) == 30_000
    assert len(book.found("M3 fit", "n1")) == len([n for n in range(10_000) if n % 7 == 3])
    assert book.found("", "n1", "nothing") == []
    assert next(book.entries("n2")).number == 9_999
    assert book.differences() == []
    logs.lines["n1"].append(line(10_000, "runs", time.time() - 1000, caller="m1", session="ff", reads=[]))
    logs.lines["n0"].append(line(10_000, "runs", time.time(), caller="m1", session="ee", reads=[]))
    assert await book.read(60)
    assert book.heads["n1"].lines == 10_001
    found = book.differences()  # the other one is too young to be compared
    assert [(one.facts["session"], each) for one, each in found] == [("ff", {"n0": 0, "n1": 1, "n2": 0})]
    assert next(book.entries("n1")).concerns("m1", frozenset())
    assert next(book.entries("n2")).concerns("", frozenset({"t"}))
    assert not next(book.entries("n2")).concerns("", frozenset({"u"}))


SENSELESS = [
    {"event": 5},
    {"time": "yesterday"},
    {"time": 1e300},
    {"time": float("nan")},
    {"time": None},
    {"event": ...},
    {"time": ...},
]


async def test_lines_that_make_no_sense_are_shown_as_that(book):
    book, logs = book
    for place, wrong in enumerate(SENSELESS):
        facts = {"number": 10_000 + place, "time": time.time() - 1000, "event": "runs", "before": ""} | wrong
        told = json.dumps({name: value for name, value in facts.items() if value is not ...}) + "\tsigned"
        logs.lines["n1"].append(told)
    assert await book.read(60)
    assert not book.why_not
    found = book.found("", event=NONSENSE)
    assert sorted(one.number for one in found) == [10_000 + place for place in range(len(SENSELESS))]
    assert {one.node for one in found} == {"n1"}
    assert not any(one.concerns("m1", frozenset({"t"})) for one in found)
    assert len(book.found("", "n0")) == 10_000
    assert book.differences() == []


@pytest.mark.parametrize(
    "facts",
    [
        {"owners": 5, "reads": 5, "reveals": 5},
        {"owners": None, "reads": {"t": 1}, "reveals": None},
        {"owners": [["m"]], "reads": [{}], "reveals": [[1]]},
        {"caller": {"a": [1]}, "note": "x" * (LONGEST_FACT + 1)},
        {"note": functools.reduce(lambda inner, _: [inner], range(500), "x")},
    ],
    ids=["numbers", "others", "nested", "long", "deep"],
)
def test_facts_of_any_kind_are_shown(facts):
    entry = Entry.of("n1", line(3, "runs", 5.0, **facts))
    assert entry.event == "runs"
    assert len(entry.text) <= LONGEST_FACT
    assert not entry.concerns("m1", frozenset({"t"}))
    text = TEMPLATES.get_template("lines.html").render(entries=[entry])
    assert "1970-01-01" in text
    assert all(isinstance(one, str) for one in entry.reveals)
    assert entry.said is not None


async def test_logs_of_long_lines_are_cut_at_their_beginning(book, monkeypatch):
    book, _ = book
    monkeypatch.setattr(audit_book, "MOST_CHARACTERS", 50_000)
    assert await book.read(60)
    assert 0 < len(book.found("", "n1")) < 10_000
    assert next(book.entries("n1")).number == 9_999
    assert book.differences() == []


async def test_reading_that_fails_in_an_unforeseen_way_ends_nothing(book):
    book, logs = book
    logs.error = KeyError("lines")
    assert await book.read(60)
    assert "unforeseen" in book.why_not
    logs.error = None
    assert await book.read(60)
    assert not book.why_not


async def test_a_log_that_does_not_hold_is_told(book):
    book, logs = book
    logs.error = TercetError("the audit log of n1, line 7, was not signed by this node's key")
    assert await book.read(60)
    assert "n1, line 7" in book.why_not
    assert not book.heads
    logs.error = None
    book.verify()
    assert await book.read(60)
    assert book.why_not == ""


async def test_signatures_of_lines_that_were_verified_before_are_verified_again_when_that_is_wanted(
    book, cluster, tmp_path, nursery
):
    """And then until it has come to its end: a page that is opened meanwhile must not hide what was wrong."""
    book, logs = book
    logs.lines = {name: lines[:100] for name, lines in logs.lines.items()}
    assert await book.read(60)
    again = AuditBook(cluster, tmp_path / "aud.key", book._lake, nursery)
    assert await again.read(60)
    noted = {name: Head(100, "100") for name in logs.lines}
    assert logs.asked == [(dict.fromkeys(noted, Head()), True, True), (noted, True, True)]
    assert len(again.found("")) == 300
    logs.asked.clear()
    again.refresh()
    while not logs.asked:
        await trio.lowlevel.checkpoint()
    again.verify()  # while what is new is being read
    while again.reading:  # noqa: ASYNC110
        await trio.sleep(0.01)
    assert [asked[1:] for asked in logs.asked] == [(False, True), (True, False)]
    assert len(again.found("")) == 300
    logs.error = TercetError("the audit log of n1, line 7, was not signed by this node's key")
    again.verify()
    assert await again.read(60)
    assert await again.read(60)
    assert "n1, line 7" in again.why_not
    logs.error = None
    assert await again.read(60)
    assert await again.read(60)
    assert [asked[1:] for asked in logs.asked[2:]] == [*[(True, False)] * 3, (False, True)]
