"""The portal of a lake that has seen years: 10,000 lines in each log, and 200 tables, in a real Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import attrs
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from tercet.actors.node import Node
from tercet.members.rules import TABLE
from tests.portal.conftest import Lake
from tests.portal.desk import Desk, require_quiet, sit_down, submit

LINES, TABLES = 10_000, 200
MOST_S = 20.0
"""No page takes longer on a machine with much else to do; on one that has nothing, about a second."""
OWNERS = ("clinic", "laboratory")


@pytest.fixture(scope="module")
def desks(lake: Lake, browser: Browser, axe: str) -> Iterator[dict[str, Desk]]:
    """A desk of an owner and one of an operator, at a lake with many tables and long logs."""
    lake.wait(upload, lake)
    for node in lake.nodes:
        fill(node)
    yield from sit_down(lake, browser, axe, ("clinic", "olga"))


@pytest.fixture(autouse=True)
def quiet(desks: dict[str, Desk]) -> Iterator[None]:
    """No page has complained."""
    yield
    require_quiet(desks)


async def upload(lake: Lake) -> None:
    """A table of each of two owners."""
    rows = pd.DataFrame({"patient": ["P-1", "P-2"], "value": [1.5, 2.5]})
    for number, owner in enumerate(OWNERS):
        own = await lake.portals[owner].portal.lake()
        await own.upload(rows, name=f"visits_{number:03d}", key="patient", owner=owner)


def fill(node: Node) -> None:
    """More tables like these, and lines as nodes write of fits on them."""
    catalog, log = node.gate.vault.catalog, node.gate.audit
    there = [catalog.find(TABLE, f"visits_{number:03d}") for number in range(len(OWNERS))]
    for number in range(len(OWNERS), TABLES):
        name = f"visits_{number:03d}"
        catalog.put(attrs.evolve(there[number % 2], name=name, handles=(f"{name}.values",)))
    for number in range(LINES - log.head.lines):
        read, owner = f"visits_{number % TABLES:03d}", OWNERS[number % 2]
        facts = {"caller": "ann", "run": f"{number:032x}", "computation": "fit", "reads": [read]}
        log.append("runs", **facts, owners=[owner], reveals=["coefficients"])
    log.settle()


def open_soon(desk: Desk, path: str) -> Page:
    """A page that is there soon."""
    began = time.perf_counter()
    page = desk.go(path)
    assert time.perf_counter() - began < MOST_S, path
    return page


def rows_of(page: Page, region: str) -> int:
    """Rows of a table of the page, but for its head."""
    return page.get_by_role("region", name=region).get_by_role("row").count() - 1


def test_an_owner_sees_who_used_her_table_as_soon_as_the_logs_are_read(desks):
    """The page stands there at once, and is filled in when the logs have been verified."""
    clinic = desks["clinic"]
    page = open_soon(clinic, "/tables/visits_000")
    expect(page.get_by_role("heading", name="Who has used it, for what")).to_be_visible()
    expect(page.get_by_role("cell", name="coefficients").first).to_be_visible()
    assert rows_of(page, "Uses") == LINES // TABLES
    page = open_soon(clinic, "/history")
    assert 0 < rows_of(page, "Lines of the log") < LINES // 2
    expect(page.get_by_text(re.compile("and [0-9]+ earlier ones"))).to_be_visible()


def test_long_logs_are_verified_searched_and_turned_over(desks):
    olga = desks["olga"]
    page = open_soon(olga, "/audit")
    expect(page.get_by_text("n2: 10,000 lines, whole")).to_be_visible()
    expect(page.get_by_text("30,000 lines, page 1 of 600")).to_be_visible()
    page.get_by_label("Words").fill("visits_017 runs")
    submit(page, "Search")
    expect(page.get_by_text("150 lines, page 1 of 3")).to_be_visible()
    page.get_by_role("link", name="Earlier").click()
    expect(page.get_by_text("150 lines, page 2 of 3")).to_be_visible()
    olga.look("audit-long")
    open_soon(olga, "/audit?page=600")
    page = open_soon(olga, "/heads")
    expect(page.get_by_role("row", name=re.compile("^n2"))).to_contain_text("10,000")
    open_soon(olga, "/nodes")


def test_many_tables_are_listed_and_found(desks):
    clinic = desks["clinic"]
    page = open_soon(clinic, "/tables")
    assert rows_of(page, "Tables of the lake") == 50
    page.get_by_role("link", name="On", exact=True).click()
    expect(page.get_by_text("200 tables, page 2 of 4")).to_be_visible()
    expect(page.get_by_role("link", name="visits_050")).to_be_visible()
    clinic.look("tables-many")
    page.get_by_label("Name or owner").fill("visits_01 clinic")
    submit(page, "Search")
    expect(page).to_have_url(re.compile("q=visits_01"))
    assert rows_of(page, "Tables of the lake") == 5
    page = open_soon(clinic, "/")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    clinic.look("overview-many")
