"""Comparisons of protocols and networks: what is measured, predicted and written; profiles of machines."""

from __future__ import annotations

import csv
import json

import attrs
import numpy as np
import pytest
from typer.testing import CliRunner

import tercet
from tercet.actors.estimate import explain
from tercet.actors.machine import (
    LOCAL,
    TALKING,
    Machine,
    Pace,
    load_profile,
    machine_for,
    save_profile,
)
from tercet.cli import app
from tercet.client.cluster import ClusterOptions, open_cluster
from tercet.comparison import Measurement, find, markdown, network, write
from tercet.comparison.__main__ import BEGIN, END, main
from tercet.comparison.calibration import PROBES, Bench, calibrate, chain_of_rounds
from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type
from tercet.plans.kinds import KINDS
from tercet.protocols.replicated import Replicated

pytestmark = pytest.mark.early
PROTOCOLS = ("replicated", "shamir", "shamir:5", "rep4", "additive", "plain")


@pytest.fixture(autouse=True)
def own_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCET_MACHINE", str(tmp_path / "machine.json"))


@pytest.mark.parametrize(
    ("plan", "protocols"),
    [("join", PROTOCOLS), ("operations", PROTOCOLS), ("demo", ("replicated", "plain"))],
)
def test_protocols_agree(plan, protocols):
    """That the demo's steps agree under Shamir's scheme too, `statistics/test_protocols_agree.py` holds."""
    found = tercet.compare(plan, protocols=protocols, networks=["none"], rows=[200], processes=False)
    assert [(one.protocol, one.parties) for one in found][-1] == ("plain", 1)
    for one in found:
        assert one.error < 1e-3
        assert (one.rounds > 0) == (one.bytes_most > 0) == (one.protocol != "plain")
        assert one.seconds > 0 < one.predicted_seconds


def test_a_function_of_yours_and_what_is_written(tmp_path):
    seen = []

    def mine(lake, rows):
        b = lake.builder("mine")
        b.constant(np.arange(3.0), scale=0)
        seen.append((lake.protocol, rows))
        return {"three": 3.0 + (lake.protocol == "replicated")}

    found = tercet.compare(
        mine, protocols=["replicated"], networks=["1ms/10mbit"], rows=[5, 6], processes=False
    )
    assert seen == [(name, rows) for rows in (5, 6) for name in ("plain", "replicated", "replicated")]
    assert [(one.plan, one.rows, one.plans, one.error) for one in found] == [
        ("mine", 5, 0, 1.0),
        ("mine", 6, 0, 1.0),
    ]
    for name in ("out.json", "out.csv", "out.svg"):
        write(found, tmp_path / name)
    assert json.loads((tmp_path / "out.json").read_text())[1]["rows"] == 6
    assert [row["rows"] for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())] == [
        "5",
        "6",
    ]
    assert "replicated 3, 1ms/10mbit, 6" in (tmp_path / "out.svg").read_text()
    assert markdown(found).count("\n") == 4


def test_workloads_from_files(tmp_path):
    file = tmp_path / "study.py"
    file.write_text("def workload(lake, rows):\n    return {'rows': rows}\n\ndef bad(lake):\n    return {}\n")
    assert find(str(file))(None, 7) == {"rows": 7}
    with pytest.raises(PlanError, match=r"no function `bad\(lake, rows\)`"):
        find(f"{file}:bad")
    with pytest.raises(PlanError, match="no plan 'jion' to compare; choose one of join"):
        find("jion")


def test_networks():
    assert (network("3ms").latency_ms, network("3ms").bandwidth_mbit) == (3.0, None)
    assert (network("1.5ms/50mbit").latency_ms, network("1.5ms/50mbit").bandwidth_mbit) == (1.5, 50.0)
    assert network("wan").latency_ms > network("lan").latency_ms
    with pytest.raises(PlanError, match="no network '3'"):
        network("3")
    with pytest.raises(PlanError, match="'five' parties"):
        tercet.compare("join", protocols=["shamir:five"])


# -- machines ------------------------------------------------------------------------------------------------


def test_a_profile_is_kept_and_explain_reads_it(tmp_path):
    b = Builder("sum")
    x = b.input("x", Type(Form.RING, (1000,), 16, 2.0**20))
    (x * x).store("y")
    plan = b.plan()
    paces = {TALKING: Pace(0.25, 1e-3), LOCAL: Pace(0.0, 0.0)}
    one = Machine(plan_s=1.0, round_s=0.5, inline_s=0.0, cores=3, paces=paces)
    profile = {("replicated", 3): one, ("shamir", 3): one, ("shamir", 7): attrs.evolve(one, plan_s=9.0)}
    assert load_profile() == {}
    path = save_profile(profile)
    assert path.parent == tmp_path
    assert load_profile() == profile
    # A run, a round, two steps, and a word read and a word sent for each of 1000 products.
    assert explain(plan).seconds == pytest.approx(1.0 + 0.5 + 2 * 0.25 + 2.0)
    assert explain(plan, "plain").seconds < 0.1
    assert [machine_for("shamir", parties).plan_s for parties in (3, 5, 7)] == [1.0, 1.0, 9.0]
    path.write_text("[1]")
    with pytest.raises(PlanError, match="is no profile of a machine"):
        explain(plan)


async def test_calibration_measures_every_probe():
    parties, machine = await calibrate("plain", repeat=1, processes=False)
    assert parties == 1
    assert machine.paces.keys() == PROBES.keys()
    assert machine.plan_s > 0 < machine.inline_s
    assert sum(pace.step_s + pace.unit_s > 0 for pace in machine.paces.values()) > len(PROBES) // 2
    assert PROBES.keys() - KINDS.keys() == {LOCAL}


async def test_a_calibrated_machine_takes_what_the_probes_took():
    """With rounds, on nodes in this process: what a probe took is what its rehearsal takes."""
    async with open_cluster(ClusterOptions()) as cluster:
        bench = Bench(cluster, Replicated, repeat=3)
        machine = await bench.paces(Machine(cores=3), ["store", "local", "truncate"])
        machine = await bench.rounds(machine)
        taken = await bench.measure(deep := bench.plan("rounds", chain_of_rounds, 64))
    assert machine.paces.keys() == {"store", "local", "truncate"}
    assert 0.2 < bench.rehearsed(deep, machine) / taken.seconds < 5


def test_the_table_goes_into_the_page(tmp_path, monkeypatch, capsys):
    one = Measurement(
        plan="join", protocol="plain", parties=1, corruptions=0, malicious=False, network="none", rows=5,
        plans=1, rounds=0, bytes_sent=(0,), seconds=1.0, predicted_seconds=1.29, peak_mb=1.0, error=0.0,
    )  # fmt: skip
    other = attrs.evolve(one, predicted_seconds=0.76)
    monkeypatch.setattr("tercet.comparison.__main__.measure", lambda say: [one, other])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n\n{END}after\n")
    main([str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n1 of 2 predictions are within 30% of what was measured")
    assert text.endswith(f"| 0.76 | 1 | 0.0e+00 |\n\n{END}after\n")
    assert "| join | plain | none | none | 5 |" in text
    assert attrs.evolve(one, parties=4, corruptions=1, malicious=True).security == "1 of 4, malicious"
    assert attrs.evolve(one, parties=5, corruptions=2).security == "2 of 5, semi-honest"
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines <!-- measured -->"):
        main([str(page)])


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command(tmp_path):
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(
        app,
        ["compare", "join", "--protocols", "plain", "--networks", "none", "--rows", "50", "--out", str(out)],
    )
    assert ran.exit_code == 0, ran.output
    (one,) = json.loads(out.read_text())
    assert (one["protocol"], one["rows"], one["error"]) == ("plain", 50, 0.0)
    assert one["peak_mb"] > 1
    wrong = CliRunner().invoke(app, ["compare", "jion"])
    assert wrong.exit_code == 1
    assert CliRunner().invoke(app, ["compare", "join", "--rows", "many"]).exit_code == 2
