"""Pages of the portal over a lake that says whatever a test has it say."""

from __future__ import annotations

import errno
import threading
import time
from functools import partial

import attrs
import msgpack
import pytest
import trio

from tercet.client.member_api import Kept
from tercet.client.reach import who_am_i
from tercet.client.study_api import KnownStudy, ShownStudy, StudyDesk
from tercet.errors import ConsentError
from tercet.members.config import ClusterFile
from tercet.members.rules import Rules
from tercet.members.seals import Head
from tercet.members.studies import Asked, Study
from tercet.members.study_files import MOST_BYTES
from tercet.members.study_pages import Facts, TableFacts, page
from tercet.ml.schema import TableSchema
from tercet.ml.upload import describe
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.portal import app, drafts
from tercet.portal.app import Serving, serve
from tercet.portal.state import Portal
from tercet.portal.study_work import Run
from tests.portal.asking import Answer, Browser, multipart


async def thread(function, *args, **kwargs):
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


@attrs.define
class Told:
    """A lake that gives what its attributes are, as functions that are waited for."""

    lake_has: dict[str, object]

    def __getattr__(self, name):
        given = self.lake_has[name]

        async def answer(*_, **__):
            if isinstance(given, Exception):
                raise given
            return given

        return answer

    async def lake(self):
        return self

    @property
    def desk(self):
        """What it is asked one by one is not there."""
        return Told({"find": None})


@attrs.frozen
class Given:
    """What opens the lake, and has it already."""

    given: object

    async def lake(self):
        return self.given


@attrs.define
class Desk:
    """A member's portal, and her browser."""

    serving: Serving
    browser: Browser
    at: str

    async def get(self, path: str) -> Answer:
        return await thread(self.browser.get, self.at + path)

    async def post(self, path: str, token_at: str = "/upload", **fields: object) -> Answer:
        token = await thread(self.browser.csrf, self.at + token_at)
        return await thread(self.browser.post, self.at + path, {"csrf": token, **fields})

    def told(self, **lake_has: object) -> None:
        """Have the lake say this."""
        portal, told = self.serving.portal, Told(lake_has)
        portal.connection, portal.work._lake = told, told.lake


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A lake's file and an owner's key; the nodes are not there."""
    root = tmp_path_factory.mktemp("portal")
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", root / f"n{i}") for i in range(3)]
    parts.append(make_member("clinic", ["owner", "analyst", "auditor"], root))
    parts.append(make_member("ann", ["analyst"], root))
    make_cluster(parts, root / "cluster.toml", protocol="replicated")
    return root


@pytest.fixture
async def desk(files, nursery):
    links: list[str] = []
    serving = await nursery.start(
        partial(serve, files / "cluster.toml", files / "clinic.key", on_link=links.append)
    )
    browser = Browser(serving.host)
    return Desk(serving, browser, await thread(browser.open, links[-1]))


def shown_study(**said) -> ShownStudy:
    """A study of one request as a node tells it; `said` is what it says beside the study."""
    until = int(time.time()) + 86400
    request = Asked("describe", {"table": {"$table": "ages"}, "columns": ["age"], "to": "analyst"})
    study = Study.of((request,), purpose="ages of all", analyst="ann", uses=3, until=until)
    facts = Facts({"ages": TableFacts("clinic", ("id", "age"), ("id",))}, {})
    fields = {"analyst": "ann", "purpose": "ages of all", "uses": 3, "until": float(until)} | said
    known = KnownStudy(
        digest=study.digest(),
        proposed=time.time(),
        runs=0,
        approved=(),
        missing=("clinic",),
        refusal="",
        **fields,
    )
    return ShownStudy(known, study, tuple(page(study, facts)))


async def test_the_page_of_a_study_says_what_the_study_says(desk):
    lies = {"analyst": "clinic", "purpose": "harmless", "uses": 1, "until": time.time() + 60}
    shown = shown_study(**lies)
    desk.told(show_study=shown)
    text = (await desk.get(f"/studies/{shown.known.number}")).text
    assert "<h1>ages of all</h1>" in text
    assert "of ann, asked" in text
    assert "harmless" not in text
    assert "to be run 3 times" in text  # which is what a signature without limits allows
    assert "by what was signed, once at most" in text
    assert 'max="3" value="3"' in text
    assert "1 request:" not in text
    assert "<li>describe: " in text
    assert "Take it back" not in text


# -- uploads -------------------------------------------------------------------------------------------------

RULES = {"readers": "all", "plans": "approved", "columns": "all", "receivers": "all", "min_count": "2"}
CHOSEN = {"name": "ages", "key": "id", "use": ["age", "bmi"]} | RULES
CSV = b"id,age,bmi\na,30,20\nb,40,21\nc,50,22\n"


async def upload(desk: Desk, content: bytes = CSV) -> str:
    """The path of a file that waits."""
    token = await thread(desk.browser.csrf, f"{desk.at}/upload")
    body, kind = multipart({"csrf": token}, "file", "ages.csv", content)
    answer = await thread(desk.browser.ask, "POST", f"{desk.at}/upload", body, content_type=kind)
    assert answer.status == 303, answer.text
    return answer.headers["location"].removeprefix(desk.at)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"readers": "some"}, "only these readers are allowed, and none is ticked"),
        ({"columns": "some"}, "only these columns are allowed, and none is ticked"),
        ({"readers": ""}, "does not say which readers"),
        ({"columns": "x"}, "does not say which columns"),
        ({"receivers": ""}, "does not say which receivers"),
    ],
)
async def test_rules_that_name_nobody_are_not_for_everybody(desk, changed, why):
    desk.told(tables=[])
    place = await upload(desk)
    answer = await desk.post(f"{place}/look", **CHOSEN | changed)
    assert why in answer.text
    answer = await desk.post(place, **CHOSEN | changed)
    assert answer.status == 409
    assert why in answer.text


async def test_rules_allow_what_is_ticked(desk):
    desk.told(tables=[])
    place = await upload(desk)
    for changed, says in (
        ({}, "every analyst"),
        ({"readers": "some", "reader": "ann"}, "ann"),
        ({"columns": "some", "allow_column": "age"}, "columns age"),
        ({"receivers": "some", "receiver": "ann"}, "results to ann only"),
        ({"receivers": "some"}, "results to clinic only"),
    ):
        answer = await desk.post(f"{place}/look", **CHOSEN | changed)
        assert says in answer.text, answer.text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"uses": "1e30"}, "the number of computations is &#39;1e30&#39;, which is more than 1e+15"),
        ({"min_count": "1e30"}, "which is more than 1e+15"),
        ({"days": "1e305"}, "which is more than 1e+15"),
        ({"days": "1e14"}, "cannot be forgotten after 1e+14 days"),
        ({"uses": "1e309"}, "which is no number"),
        ({"uses": "nan"}, "which is no number"),
        ({"uses": "-1"}, "uses=-1"),
    ],
)
async def test_numbers_beyond_all_use_are_refused_in_a_sentence(desk, changed, why):
    desk.told(tables=[])
    place = await upload(desk)
    for path, status in ((f"{place}/look", 200), (place, 409)):
        answer = await desk.post(path, **CHOSEN | changed)
        assert answer.status == status
        assert why in answer.text


async def test_how_keys_may_fail_to_match_is_told_before_and_after_an_upload(desk):
    """To their owner alone, as text whatever the column is called, and not of what replaces the table."""
    schema = TableSchema("ages", "clinic", (), 3)
    desk.told(tables=[], upload=describe(schema, ["ages#1"], None))
    place = await upload(desk, b"<b>id</b>,age,bmi\nAnna,30,20\nanna,40,21\nc,50,22\n")
    chosen = CHOSEN | {"key": "<b>id</b>"}
    told = "1 has the key of another row but for case; if that does not count"
    looked = await desk.post(f"{place}/look", **chosen)
    assert told in looked.text
    assert "&lt;b&gt;id&lt;/b&gt;" in looked.text
    assert "<b>id" not in looked.text
    body = msgpack.packb(schema.to_dict())
    kept = Kept("table", "ages", "clinic", body, Rules(), ("ages#1",), (), b"", None)
    before = await _table_page(desk, kept)
    assert told not in before.text
    assert (await desk.post(place, **chosen)).status == 303
    assert told in (await _table_page(desk, kept)).text
    assert told not in (await _table_page(desk, attrs.evolve(kept, owner="ann"))).text
    assert told not in (await _table_page(desk, attrs.evolve(kept, handles=("ages#2",)))).text


async def _table_page(desk: Desk, kept: Kept) -> Answer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Told, "desk", Told({"find": kept}))
        return await desk.get("/tables/ages")


@pytest.mark.parametrize("where", ["the form", "the folder", "a look"])
async def test_a_full_disk_is_told_in_a_sentence(desk, monkeypatch, caplog, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.told(tables=[])
    place = await upload(desk)
    if where == "a look":
        monkeypatch.setattr(drafts, "encode_for_upload", full)
        answer = await desk.post(f"{place}/look", **CHOSEN)
    else:
        patched = {
            "the form": "starlette.formparsers.SpooledTemporaryFile",
            "the folder": "shutil.copyfileobj",
        }
        monkeypatch.setattr(patched[where], full)
        token = await thread(desk.browser.csrf, f"{desk.at}/upload")
        body, kind = multipart({"csrf": token}, "file", "ages.csv", CSV)
        answer = await thread(desk.browser.ask, "POST", f"{desk.at}/upload", body, content_type=kind)
    assert answer.status == 507
    assert "TMPDIR" in answer.text
    assert "Traceback" not in caplog.text


async def test_other_errors_of_the_system_are_defects(desk, monkeypatch, caplog):
    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    place = await upload(desk)
    monkeypatch.setattr(drafts, "encode_for_upload", broken)
    answer = await desk.post(f"{place}/look", **CHOSEN)
    assert answer.status == 500
    assert "unforeseen" in caplog.text


async def test_the_largest_study_is_proposed_as_its_file(desk, files):
    shown = shown_study()
    desk.told(propose=shown.known)
    packed = shown.study.to_bytes()
    largest = packed + b" " * (MOST_BYTES - len(packed))
    for content, status in ((largest, 303), (largest + b" ", 409)):
        token = await thread(desk.browser.csrf, f"{desk.at}/upload")
        body, kind = multipart({"csrf": token}, "file", "study.json", content)
        answer = await thread(desk.browser.ask, "POST", f"{desk.at}/studies", body, content_type=kind)
        assert answer.status == status
    assert "at most 1,048,576 bytes" in answer.text
    kept = files / "clinic.studies" / f"{shown.study.number}.study.json"
    assert kept.read_bytes() == largest


@pytest.mark.parametrize(
    ("limits", "why"),
    [({"uses": 0}, "1 run or more"), ({"days": 0}, "some days"), ({"days": -1e305}, "some days")],
)
async def test_an_approval_of_nothing_is_not_signed(limits, why):
    with pytest.raises(ConsentError, match=why):
        await StudyDesk(None, None, None).approve(shown_study(), **limits)


async def test_an_approval_ends_with_the_study_however_long_it_was_to_last(files):
    cluster = ClusterFile.read(files / "cluster.toml")
    keys = who_am_i(cluster, files / "clinic.key", files / "cluster.toml")
    given = []

    class Client:
        async def ask(self, verb, args):
            given.append(args[0])

    shown = shown_study()
    desk = StudyDesk(Client(), cluster, keys)
    await desk.approve(shown, uses=10**30, days=1e305)
    await desk.approve(shown, days=1e-9)
    assert (given[0]["uses"], given[0]["expires"]) == (3, shown.study.until)
    assert given[1]["expires"] <= time.time()


async def test_one_file_is_read_at_a_time_and_only_for_the_latest_choice(desk, monkeypatch):
    read, at_once, go_on = [], [], threading.Event()
    encode = drafts.encode_for_upload

    def slow(path, **options):
        at_once.append(options["name"])
        assert len(at_once) == 1
        assert go_on.wait(60)
        at_once.remove(options["name"])
        read.append(options["name"])
        return encode(path, **options)

    class Lake:
        desk = Told({"find": None})

        async def upload(self, path, **options):
            given = {name: one for name, one in options.items() if name != "allow"}
            return describe((await thread(slow, path, **given)).schema, ["keys", "values"], None)

    monkeypatch.setattr(drafts, "encode_for_upload", slow)
    desk.serving.portal.connection = Given(Lake())
    first, second = await upload(desk), await upload(desk)
    told = {}

    async def look(place: str, name: str) -> None:
        told[name] = await desk.post(f"{place}/look", **CHOSEN | {"name": name})

    async def put_in(name: str) -> None:
        told[name] = await desk.post(first, **CHOSEN | {"name": name})

    waiting = desk.serving.portal.drafts.reading.statistics
    async with trio.open_nursery() as nursery:
        jobs = [(look, first, "a"), (look, first, "b"), (look, first, "c"), (look, second, "d")]
        jobs += [(put_in, "e"), (put_in, "f")]
        for place, (job, *given) in enumerate(jobs):
            nursery.start_soon(job, *given)
            while not at_once or waiting().tasks_waiting < place:  # noqa: ASYNC110
                await trio.sleep(0.01)
        go_on.set()
    assert read == ["a", "c", "d", "e", "e"]
    assert "was chosen since" in told["b"].text
    assert "Nothing is wrong with keys and values." in told["d"].text
    assert told["e"].status == 303
    assert told["f"].status == 409
    assert "not here any more" in told["f"].text


# -- what comes by itself ------------------------------------------------------------------------------------


async def test_pages_come_to_their_end_without_being_asked_for_anew(desk):
    """Else a page that is open would be a click now and then, and the session would never end."""
    book, ready = desk.serving.portal.book, trio.Event()

    class Slow:
        async def audit(self, *_, **__):
            await ready.wait()
            return {f"n{i}": (Head(), []) for i in range(3)}

    async def lake():
        return Slow()

    book._lake = lake
    book.refresh()
    begun = await desk.get("/audit/live?q=fit&node=n1&page=1")
    assert "being read" in begun.text
    assert "hx-reselect" not in begun.headers
    assert "hx-refresh" not in begun.headers
    ready.set()
    while book.reading:  # noqa: ASYNC110
        await trio.sleep(0.01)
    ended = await desk.get("/audit/live?q=fit&node=n1&page=1")
    assert not book.reading  # nor are the logs read again
    assert ended.headers["hx-reselect"] == ended.headers["hx-retarget"] == "#main"
    assert "hx-refresh" not in ended.headers
    assert '<main id="main"' in ended.text
    assert 'name="q" value="fit"' in ended.text
    assert "hx-get" not in ended.text
    run = Run("ab" * 4, "cd" * 4, "what for", 0.0)
    desk.serving.portal.work.runs[run.number] = run
    assert "hx-reselect" not in (await desk.get(f"/runs/{run.number}/live")).headers
    run.ended, run.why = 1.0, "a node was lost"
    ended = await desk.get(f"/runs/{run.number}/live")
    assert ended.headers["hx-reselect"] == "#main"
    assert "hx-refresh" not in ended.headers
    assert "a node was lost" in ended.text


async def test_spoilt_files_leave_their_pages_readable(desk, files):
    shown = shown_study()
    desk.told(show_study=shown, jobs=[])
    folder = files / "clinic.studies"
    folder.mkdir(exist_ok=True)
    (folder / f"{shown.known.number}.choices.json").write_text("{")
    (folder / f"{shown.known.number}.run-{'ab' * 4}.json").write_text("{")
    assert "ages of all" in (await desk.get(f"/studies/{shown.known.number}")).text
    told = await desk.get("/runs")
    assert told.status == 200
    assert "failed" in told.text
    assert "cannot be read" in (await desk.get(f"/runs/{'ab' * 4}")).text


async def test_pages_say_that_the_file_of_the_lake_has_changed(desk, files, tmp_path):
    portal = desk.serving.portal
    portal.look_at_file()
    assert "begun with" not in (await desk.get("/upload")).text
    other = tmp_path / "cluster.toml"
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", tmp_path / f"n{i}") for i in range(3)]
    make_cluster([*parts, make_member("clinic", ["owner"], tmp_path)], other, protocol="replicated")
    portal.cluster_path = other
    portal.look_at_file()
    assert "than this portal has begun with" in (await desk.get("/upload")).text
    other.write_text("no file of a lake")
    portal.look_at_file()
    assert "cannot be read any more" in (await desk.get("/upload")).text
    portal.cluster_path = files / "cluster.toml"
    portal.look_at_file()
    assert portal.changed == ""


async def test_the_file_of_the_lake_is_looked_at_now_and_then(desk, nursery, monkeypatch, caplog):
    times = 0

    def look(_):
        nonlocal times
        times += 1
        if times == 1:
            raise KeyError("number")

    monkeypatch.setattr(app, "SWEEP_S", 0.001)
    monkeypatch.setattr(Portal, "look_at_file", look)
    nursery.start_soon(app._sweep, desk.serving.portal)
    with trio.fail_after(60):
        while times < 3:  # noqa: ASYNC110
            await trio.sleep(0.001)
    assert "unforeseen" in caplog.text
