"""The portal in a real Chromium, against three real nodes: a study from upload to results, by clicks.

Each test goes on where the one before has ended, as owners and the analyst do. Every page is looked at by
axe, and kept as a picture in both themes and at 400 pixels, in `build/portal`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import trio
from playwright.sync_api import Browser, expect

from tercet.actors.presence import Presence
from tercet.client.lake import Sent
from tercet.errors import ConsentError
from tests.portal.conftest import MEMBERS, SHOTS, Lake
from tests.portal.desk import Desk, require_quiet, sit_down, submit

pytestmark = pytest.mark.early
OWNERS = ("clinic", "imaging", "laboratory")
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(1)</script>'


@pytest.fixture(scope="module")
def desks(lake: Lake, browser: Browser, axe: str) -> Iterator[dict[str, Desk]]:
    """A desk of each member, whose link was followed."""
    yield from sit_down(lake, browser, axe, MEMBERS)


@pytest.fixture(autouse=True)
def quiet(desks: dict[str, Desk]) -> Iterator[None]:
    """No page has complained: no script has failed, and nothing was kept from loading."""
    yield
    require_quiet(desks)


def upload(desk: Desk, file, look: bool = False) -> None:
    page = desk.go("/upload")
    if look:
        desk.look("upload")
    page.set_input_files("input[type=file]", file)
    submit(page, "Look at it")
    expect(page.get_by_text("Nothing is wrong with keys and values.")).to_be_visible()
    expect(page.get_by_text("figures over 20 rows or more")).to_be_visible()
    if look:
        desk.look("draft")


def test_owners_upload_by_dropping_a_file(desks, tables):
    clinic = desks["clinic"]
    clinic.go("/")
    clinic.look("overview-empty")
    upload(clinic, tables["clinic"], look=True)
    page = clinic.page
    row = page.locator("#look table tbody tr", has_text="malignant")
    expect(row).to_contain_text("boolean")
    page.get_by_label("Single rows may be revealed").check()
    expect(page.get_by_text("single rows may be revealed")).to_be_visible()
    page.get_by_label("Single rows may be revealed").uncheck()
    expect(page.get_by_text("no single rows")).to_be_visible()
    submit(page, "Upload it under these rules")
    expect(page.get_by_role("heading", name="clinic")).to_be_visible()
    expect(page.get_by_text("1,200 rows")).to_be_visible()
    for member in ("laboratory", "imaging"):
        upload(desks[member], tables[member])
        submit(desks[member].page, "Upload it under these rules")
        expect(desks[member].page.get_by_role("heading", name=member)).to_be_visible()


def test_a_file_with_a_key_twice_is_found_before_it_leaves(desks, tmp_path):
    file = tmp_path / "twice.csv"
    file.write_text("patient,age\nP-1,30\nP-1,40\nP-2,50\n")
    page = desks["clinic"].go("/upload")
    page.set_input_files("input[type=file]", file)
    submit(page, "Look at it")
    expect(page.get_by_role("alert")).to_contain_text("row 1 has the same key as row 0")
    desks["clinic"].look("draft-problem")
    submit(page, "Discard the file")
    expect(page.get_by_role("heading", name="Upload a table")).to_be_visible()


def test_what_may_not_be_meant_about_keys_is_told_to_their_owner(desks, tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text("patient,age\n" + "".join(f"{kind}-{n},{30 + n}\n" for n in range(20) for kind in "pP"))
    page = desks["clinic"].go("/upload")
    page.set_input_files("input[type=file]", file)
    submit(page, "Look at it")
    note = page.get_by_text("20 have the key of another row but for")
    expect(note).to_contain_text("normalise=")
    expect(page.get_by_text("Nothing is wrong with keys and values.")).to_have_count(0)
    desks["clinic"].look("draft-findings")
    submit(page, "Discard the file")
    expect(page.get_by_role("heading", name="Upload a table")).to_be_visible()


def test_a_study_is_put_together_and_asked_for(desks):
    ann = desks["ann"]
    page = ann.go("/tables")
    expect(page.get_by_role("link", name="laboratory")).to_be_visible()
    ann.look("tables")
    page.get_by_role("link", name="clinic").click()
    ann.look("table")
    page.get_by_role("link", name="Use it in a study").click()
    for table in ("laboratory", "imaging"):
        page.get_by_role("checkbox", name=re.compile(f"^{table} ")).check()
    page.get_by_role("radio", name=re.compile("^malignant of")).check()
    for feature in ("texture", "radius", "symmetry"):
        page.get_by_role("checkbox", name=re.compile(f"^{feature} real")).check()
    page.get_by_label("Purpose, which owners read").fill("Which tumours to operate on first?")
    page.get_by_label("Days").focus()
    code = page.locator("#python pre")
    expect(code).to_contain_text("features=['texture', 'symmetry', 'radius']")
    expect(code).to_contain_text("lake.table('clinic').join(lake.table('imaging'), lake.table('laboratory')")
    ann.look("guided")
    with page.expect_download() as saved:
        submit(page, "Save as notebook")
    assert saved.value.suggested_filename == "study.ipynb"
    submit(page, "Try it, and ask the owners")
    expect(page.get_by_role("status")).to_contain_text("waits for clinic, imaging, laboratory")
    ann.look("study-waits")


def test_three_owners_read_and_sign(desks):
    for place, member in enumerate(OWNERS):
        desk = desks[member]
        page = desk.go("/")
        if not place:
            desk.look("overview-waiting")
        page.get_by_role("link", name=re.compile("Which tumours")).first.click()
        expect(page.get_by_text("what comes out goes to ann")).to_be_visible()
        page.get_by_text("What leads to what").click()
        expect(page.locator("details img")).to_be_visible()
        if not place:
            desk.look("study-to-sign")
            page.set_viewport_size({"width": 1000, "height": 720})
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=SHOTS / "readme.png")
            page.set_viewport_size({"width": 1280, "height": 900})
        page.get_by_label("I have read what it does").check()
        submit(page, "Approve and sign")
        expect(page.get_by_text(f"Signed by {', '.join(OWNERS[: place + 1])}.")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("approved by all; run 0 of 3 times")


def test_the_study_runs_and_gives_results(desks):
    ann = desks["ann"]
    page = ann.go("/studies")
    ann.look("studies")
    page.get_by_role("link", name=re.compile("Which tumours")).click()
    submit(page, "Run it now")
    expect(page.get_by_text("bytes sent by all")).to_be_visible()
    ann.look("run-under-way")
    expect(page.get_by_role("heading", name="Model")).to_be_visible()
    table = page.get_by_role("table")
    expect(table).to_contain_text("radius")
    assert float(
        table.get_by_role("row", name="radius").get_by_role("cell").first.inner_text()
    ) == pytest.approx(0.4, abs=0.25)
    for name in ("forest", "roc", "calibration"):
        image = page.locator(f"img[src*='{name}.svg']")
        expect(image).to_be_visible()
        assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") > 100
    ann.look("run-done")
    for link, name in (("Summary as CSV", "summary.csv"), ("Summary as LaTeX", "summary.tex")):
        with page.expect_download() as saved:
            page.get_by_role("link", name=link).click()
        assert saved.value.suggested_filename == name
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as PNG").first.click()
    assert saved.value.path().read_bytes().startswith(b"\x89PNG")
    ann.go("/runs")
    ann.look("runs")


def test_owners_see_who_has_used_their_tables_for_what(desks):
    clinic = desks["clinic"]
    page = clinic.go("/tables/clinic")
    uses = page.get_by_role("region", name="Uses")
    expect(uses).to_contain_text("join")
    expect(uses).to_contain_text("ann")
    clinic.look("table-of-mine")
    page = clinic.go("/history")
    expect(page.get_by_role("region", name="Lines of the log")).to_contain_text("approved")
    clinic.look("history")
    page = clinic.go("/results")
    expect(page.get_by_text("Nothing has come for you.")).to_be_visible()
    clinic.look("results")


def test_a_run_is_cancelled(desks):
    page = desks["ann"].go("/studies")
    page.get_by_role("link", name=re.compile("Which tumours")).click()
    submit(page, "Run it now")
    submit(page, "Cancel it")
    expect(page.get_by_role("alert")).to_contain_text("It was cancelled")
    desks["ann"].look("run-cancelled")
    page = desks["ann"].go("/runs")
    expect(page.get_by_text("cancelled")).to_be_visible()


def test_a_single_computation_waits_is_approved_and_sends_its_results(desks, lake):
    given: list[object] = []

    async def ask() -> None:
        """Ann describes a column for the clinic, from a program of hers."""
        ann = await lake.portals["ann"].portal.lake()

        async def describe() -> None:
            for columns in (["texture"], ["malignant"]):
                try:
                    given.append(await (await ann.table("clinic")).describe(columns, to="clinic"))
                except ConsentError as error:
                    given.append(error)

        lake.nursery.start_soon(describe)
        desk = (await lake.portals["clinic"].portal.lake()).desk
        while not await desk.plans():  # noqa: ASYNC110 - nodes tell when asked
            await trio.sleep(0.05)

    lake.wait(ask)
    clinic = desks["clinic"]
    page = clinic.go("/")
    page.get_by_role("link", name=re.compile("describe")).click()
    expect(page.get_by_text("table clinic")).to_be_visible()
    page.get_by_text("Drawn").click()
    page.get_by_text("What it costs").click()
    expect(page.locator("img.paper")).to_be_visible()
    clinic.look("plan")
    page.get_by_label("I have read what it reads and reveals").check()
    submit(page, "Approve this one run and sign")
    came = page.get_by_role("heading", name=re.compile("describe"))
    for _ in range(200):
        clinic.go("/results")
        if came.count():
            break
        time.sleep(0.2)
    expect(came).to_be_visible()
    clinic.look("results-received")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as CSV").click()
    assert "ann,describe" in saved.value.path().read_text()
    submit(page, "I have saved it: the nodes need not keep it")
    expect(page.get_by_text("Nothing has come for you.")).to_be_visible()
    page = clinic.go("/studies")
    page.get_by_role("link", name=re.compile("describe")).click()
    page.get_by_label("Why not").fill("not this one")
    submit(page, "Refuse it")
    expect(page.get_by_role("heading", name="Studies")).to_be_visible()
    for _ in range(400):
        if len(given) == 2:
            break
        time.sleep(0.05)
    assert isinstance(given[0], Sent)
    assert "not this one" in str(given[1])


def test_a_second_tab_goes_on_beside_the_first(desks):
    context = desks["clinic"].page.context
    second = context.new_page()
    second.goto(desks["clinic"].at + "/tables")
    expect(second.get_by_role("link", name="clinic")).to_be_visible()
    page = desks["clinic"].go("/tables")
    page.get_by_label("Name or owner").fill("lab")
    submit(page, "Search")
    expect(page.get_by_role("link", name="laboratory")).to_be_visible()
    expect(page.get_by_role("link", name="clinic")).to_have_count(0)
    second.reload()
    expect(second.get_by_role("link", name="clinic")).to_be_visible()
    second.close()


def test_an_owner_refuses_with_a_reason(desks):
    page = desks["ann"].go("/guided?table=clinic")
    page.get_by_role("radio", name=re.compile("^malignant of")).check()
    page.get_by_role("checkbox", name=re.compile("^texture real")).check()
    page.get_by_label("Purpose, which owners read").fill(f"Another one {HOSTILE}")
    submit(page, "Try it, and ask the owners")
    expect(page.get_by_role("status")).to_contain_text("waits for clinic")
    owner = desks["clinic"].go("/studies")
    owner.get_by_role("link", name=re.compile("Another one")).click()
    owner.get_by_label("Why not").fill(f"too few rows {HOSTILE}")
    submit(owner, "Refuse it")
    expect(owner.get_by_role("status")).to_contain_text("too few rows")
    desks["clinic"].look("study-refused")
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("clinic has refused")
    expect(page.get_by_role("button", name="Run it now")).to_have_count(0)


def test_a_study_that_says_something_else_now_is_not_signed(desks):
    """The form carries what was read: with another digest of the sentences, nothing is signed."""
    page = desks["ann"].go("/guided?table=imaging&table=clinic")
    page.get_by_role("radio", name=re.compile("^malignant of")).check()
    page.get_by_role("checkbox", name=re.compile("^symmetry real")).check()
    page.get_by_label("Purpose, which owners read").fill("A third one")
    submit(page, "Try it, and ask the owners")
    expect(page.get_by_role("status")).to_contain_text("waits for")
    owner = desks["clinic"].go("/studies")
    owner.get_by_role("link", name="A third one").click()
    owner.locator("input[name=read]").evaluate("one => { one.value = '0'.repeat(64) }")
    owner.get_by_label("I have read what it does").check()
    submit(owner, "Approve and sign")
    expect(owner.get_by_role("alert")).to_contain_text("nothing was signed")
    desks["clinic"].look("not-done")


def test_operators_and_auditors_look_at_nodes_and_logs(desks, lake):
    olga = desks["olga"]
    page = olga.go("/nodes")
    expect(page.get_by_role("cell", name="ready")).to_have_count(3)
    expect(page.get_by_role("row", name=re.compile("^n0"))).to_contain_text("2 of 2")
    time.sleep(1.1)
    page.reload()
    olga.look("nodes")
    page = olga.go("/audit")
    expect(page.get_by_text("lines, whole").first).to_be_visible()
    page.get_by_label("Words").fill("ann admitted fit")
    submit(page, "Search")
    rows = page.get_by_role("region", name="Lines of the log").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("admitted")
    expect(page.get_by_text(re.compile("page 1 of 1"))).to_be_visible()
    olga.look("audit")
    page = olga.go("/heads")
    expect(page.get_by_role("row", name=re.compile("^n2"))).to_contain_text(re.compile("[0-9a-f]{64}"))
    olga.look("heads")


def test_a_lost_worker_is_named(desks, lake):
    """On the page of nodes, as all workers are."""
    for node in lake.nodes:
        node.party.presence = Presence(2)
        node.party.presence.come()
    why = "worker 1 of party 0 is lost: it was silent for 6 s, as the node of party 0 saw it; it stalled"
    lake.nodes[0].party.presence.leave(1, why)
    olga = desks["olga"]
    page = olga.go("/nodes")
    time.sleep(1.1)
    page.reload()
    expect(page.get_by_text(re.compile("worker 1 of party 0: not there since"))).to_be_visible()
    workers = page.get_by_role("region", name="Workers").get_by_role("row")
    expect(workers).to_have_count(1 + 3 * 2)
    expect(workers.nth(1)).to_contain_text("started anew")
    expect(workers.nth(2)).to_contain_text(why)
    expect(workers.nth(3)).to_contain_text("here")
    olga.look("nodes-workers")
    for node in lake.nodes:
        node.party.presence = None


def test_a_lost_node_is_named_and_comes_back(desks, lake):
    lake.wait(lake.stop, 1)
    olga = desks["olga"]
    page = olga.go("/nodes")
    expect(page.get_by_role("row", name=re.compile("^n1"))).to_contain_text("does not answer")
    olga.look("nodes-lost")
    page = desks["clinic"].go("/tables")
    expect(page.get_by_role("alert")).to_contain_text("party 1")
    desks["clinic"].look("lake-lost")
    lake.wait(lake.start, 1)
    page = desks["clinic"].go("/tables")
    expect(page.get_by_role("link", name="clinic")).to_be_visible()


def test_an_expired_session_says_so(desks, lake):
    laboratory = desks["laboratory"]
    session = lake.portals["laboratory"].portal.sessions._open
    session.seen -= 3600
    page = laboratory.go("/tables")
    expect(page.get_by_role("heading", name="Your session has ended")).to_be_visible()
    laboratory.look("expired")
    assert len(lake.links["laboratory"]) == 2
    page.goto(lake.links["laboratory"][-1])
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    submit(page, "Close the portal")
    expect(page.get_by_role("heading", name="The portal is closed")).to_be_visible()


def test_everything_can_be_reached_by_keyboard(desks):
    page = desks["imaging"].go("/tables")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name or owner")).to_be_focused()
    page.keyboard.type("imag")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("q=imag"))
