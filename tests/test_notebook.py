"""Notebooks: a session in a real kernel, whose cells run inside an event loop that is not trio's."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from tests.nodes.on_disk import set_up

PREPARE = """
import asyncio, numpy as np, tercet
from tercet.actors import progress
from tercet.ml import LogisticRegression
assert asyncio.get_running_loop().is_running()
progress.WATCHED_AFTER_S = 0.0
row = np.arange(30_000)  # so many that the nodes are asked during the fit how far they are
rows = {"id": row, "x": row / 7500 - 2, "y": row % 7 > row // 6000}
"""
FIT = """
model = LogisticRegression(max_iter=3).fit(table, target="y")
model.summary()
"""


def run(*cells: str, errors: bool = False) -> list[list[dict]]:
    """What each cell has put out."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=errors)
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def text(outputs: list[dict]) -> str:
    return "".join(str(one.get("text", "")) for one in outputs)


def check_session(outputs: list[list[dict]]) -> None:
    """A bar in the cell that fits, and a table of HTML for the summary."""
    assert " rounds, " in text(outputs[2])
    assert any("<table" in one.get("data", {}).get("text/html", "") for one in outputs[2])
    assert text(outputs[3]) == "tercet.errors.TercetError: this lake is closed; open it again\n"


AFTERWARDS = """
lake.close()
try:
    model.reveal()
except tercet.TercetError as error:
    print(f"{type(error).__module__}.{type(error).__name__}: {error}")
"""


@pytest.mark.smoke
def test_a_lake_on_this_machine():
    upload = 'lake = tercet.local(latency_ms=2)\ntable = lake.upload(rows, name="t", key="id", owner="me")'
    check_session(run(PREPARE, upload, FIT, AFTERWARDS))


def test_a_cell_that_is_run_again_leaves_no_node():
    start = "lake = tercet.local(processes=True, protocol='plain'); pids.append(lake.cluster.pids[0])"
    upload = "table = lake.upload({'id': [1, 2], 'x': [1, 2]}, name='t', key='id', owner='me')"
    cells = run(
        "import os, time, tercet; pids = []",
        f"{start}\n{upload}\nprint(table.reveal('x')['x'].sum())",
        f"{start}\n{upload}\nprint(table.reveal('x')['x'].sum())",
        "while os.path.exists(f'/proc/{pids[0]}'): time.sleep(0.01)",
        "table",
        "table.filter(table['x'])",
        errors=True,
    )
    assert text(cells[1]) == text(cells[2]) == "3\n"
    assert "<table" in cells[4][0]["data"]["text/html"]
    assert cells[4][0]["data"]["text/plain"].startswith("table 't': 2 secret rows")
    assert len(cells[5][0]["traceback"]) < 6


@pytest.fixture
def nodes(tmp_path):
    made = set_up(tmp_path)
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


def test_a_lake_elsewhere(nodes):
    connect = f'lake = tercet.connect("{nodes.cluster}", identity="{nodes.key("hospital")}")'
    upload = f'{connect}\ntable = lake.upload(rows, name="t", key="id", owner="hospital")'
    check_session(run(PREPARE, upload, FIT, AFTERWARDS))
