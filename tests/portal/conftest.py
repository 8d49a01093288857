"""A lake of three nodes with a portal for each of its members, in a thread of its own, and a Chromium."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pytest
import trio

from tercet.actors.node import Node
from tercet.nodes import program
from tercet.portal.app import Serving, serve
from tests.nodes.on_disk import NodesOnDisk, set_up
from tests.portal.chromium import WITHOUT, find_browser

MEMBERS = {"clinic": "owner", "laboratory": "owner", "imaging": "owner", "ann": "analyst", "olga": "operator"}
ROWS = 1200
TIMEOUT_S = 120.0
SHOTS = Path(__file__).parents[2] / "build" / "portal"
"""Where screenshots are kept."""
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]


def pytest_collection_modifyitems(items):
    """Leave tests in a browser out where there is none, unless they are required."""
    if find_browser() is None and not os.environ.get("TERCET_BROWSER_REQUIRED"):
        for item in items:
            if "browser" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=WITHOUT))


@attrs.define(eq=False)
class Lake:
    """What runs: nodes and portals, by member."""

    made: NodesOnDisk
    nodes: list[Node] = attrs.field(factory=list)
    stops: list[trio.CancelScope] = attrs.field(factory=list)
    portals: dict[str, Serving] = attrs.field(factory=dict)
    links: dict[str, list[str]] = attrs.field(factory=dict)
    token: Any = None
    nursery: Any = None

    @property
    def root(self) -> Path:
        return self.made.root

    def wait(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run something in the loop of the lake."""
        return trio.from_thread.run(function, *args, trio_token=self.token)

    async def start(self, index: int) -> None:
        """Start a node, anew if it was stopped."""
        settings = program.Settings.read(self.root / f"n{index}" / "node.toml")
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await program.serve(settings, signals=False, task_status=task_status)

        node = await self.nursery.start(run)
        self.nodes[index : index + 1], self.stops[index : index + 1] = [node], [scope]

    async def stop(self, index: int) -> None:
        """End a node."""
        self.stops[index].cancel()

    async def open(self, member: str) -> Serving:
        """Serve a member's portal."""
        links = self.links.setdefault(member, [])
        start = partial(
            serve, self.made.cluster, self.made.key(member), timeout_s=TIMEOUT_S, on_link=links.append
        )
        self.portals[member] = await self.nursery.start(start)
        return self.portals[member]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Iterator[Lake]:
    """Three lasting nodes in one thread, and a portal for each member."""
    made = set_up(tmp_path_factory.mktemp("lake"), members=MEMBERS)
    for index in range(3):
        made.configure(index, timeout_s=TIMEOUT_S, metrics="")
    found, ready, over = Lake(made), SimpleQueue[Any](), trio.Event()

    async def main() -> None:
        found.token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as found.nursery:
            for index in range(3):
                await found.start(index)
            while any(node.party.missing() for node in found.nodes):  # noqa: ASYNC110
                await trio.sleep(0.02)
            for member in MEMBERS:
                await found.open(member)
            ready.put(None)
            await over.wait()
            found.nursery.cancel_scope.cancel()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            ready.put(error)

    thread = threading.Thread(target=run, name="lake", daemon=True)
    thread.start()
    problem = ready.get(timeout=TIMEOUT_S)
    if problem is not None:
        raise problem
    try:
        yield found
    finally:
        with contextlib.suppress(trio.RunFinishedError):
            found.token.run_sync_soon(over.set)
        thread.join(timeout=60)


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> dict[str, Path]:
    """A file of each owner's, with the same patients for the most part."""
    rng, root = np.random.default_rng(4), tmp_path_factory.mktemp("files")
    texture, radius, symmetry = rng.normal(19, 4, ROWS), rng.normal(14, 3, ROWS), rng.normal(0.18, 0.03, ROWS)
    logits = 0.2 * (texture - 19) + 0.4 * (radius - 14) + 15 * (symmetry - 0.18)
    malignant = (logits + rng.logistic(size=ROWS) > 0).astype(int)
    patient = [f"P-{number:04d}" for number in range(ROWS)]
    data = pd.DataFrame(
        {
            "patient": patient,
            "texture": texture,
            "malignant": malignant,
            "radius": radius,
            "symmetry": symmetry,
        }
    )
    made = {
        "clinic": data[["patient", "texture", "malignant"]],
        "laboratory": data[["patient", "radius"]].iloc[20:],
        "imaging": data[["patient", "symmetry"]].iloc[:-20],
    }
    found = {name: root / f"{name}.csv" for name in made}
    for name, table in made.items():
        table.round(4).to_csv(found[name], index=False)
    return found


@pytest.fixture(scope="module")
def browser():
    """A Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    where = find_browser()
    assert where is not None, WITHOUT
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=where, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that looks for barriers."""
    return (files("axe_playwright_python") / "axe.min.js").read_text()
