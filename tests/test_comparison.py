"""Comparisons of protocols and networks: what is measured, predicted and written; profiles of machines."""

from __future__ import annotations

import json
import math
from pathlib import Path

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
from tercet.comparison import Measurement, Network, Origin, Run, find, load, network
from tercet.comparison.__main__ import BEGIN, END, main
from tercet.comparison.calibration import PROBES, Bench, calibrate, chain_of_rounds
from tercet.errors import PlanError
from tercet.plans import Builder, Form, Type
from tercet.plans.kinds import KINDS
from tercet.protocols.replicated import Replicated

pytestmark = pytest.mark.early
EXAMPLE = Path(__file__).parents[1] / "examples" / "ridge.py"
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
        assert one.seconds > 0
        assert one.predicted_seconds > 0 or one.parties == 1
        assert math.isnan(one.predicted_seconds) == (one.protocol == "plain")
        assert math.isnan(one.peak_mb)


def test_a_function_of_yours():
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
    assert [(one.plan, one.rows, one.runs[0].plans, one.error) for one in found] == [
        ("mine", 5, 0, 1.0),
        ("mine", 6, 0, 1.0),
    ]


def test_figures_are_compared_whatever_they_are():
    def of(*, plain, other):
        def workload(lake, rows):
            return plain if lake.protocol == "plain" else other

        (found,) = tercet.compare(
            workload, protocols=["replicated"], networks=["none"], rows=[5], repeat=2, processes=False
        )
        assert len(found.runs) == 2
        return found.error

    assert of(plain={"a": np.array([1.0, math.nan]), "b": 2}, other={"a": [1.5, math.nan], "b": 2}) == 0.5
    assert math.isnan(of(plain={"a": 1.0}, other={"a": math.nan}))
    with pytest.raises(PlanError, match="workload returned NoneType, not a dict of figures by name"):
        of(plain=None, other=None)
    with pytest.raises(PlanError, match="returned what is no number"):
        of(plain={"a": "many"}, other={})
    for other in ({}, {"a": [1.0, 1.0]}, {"a": 1.0, "b": 1.0}):
        with pytest.raises(PlanError, match="return the same figures on every protocol"):
            of(plain={"a": 1.0}, other=other)


def test_the_example_is_as_precise_on_every_protocol_and_the_page_has_it():
    found = tercet.compare(
        str(EXAMPLE), protocols=[*PROTOCOLS], networks=["none"], rows=[300], processes=False
    )
    assert max(one.error for one in found) < 1e-5
    with tercet.local() as lake:
        assert find(str(EXAMPLE))(lake, 300)["off by"] < 1e-4
    code = EXAMPLE.read_text(encoding="utf-8").partition("NAMES =")[2]
    assert code in (EXAMPLE.parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")


def test_workloads_from_files_and_modules(tmp_path, monkeypatch):
    file = tmp_path / "study_of_mine.py"
    file.write_text("def workload(lake, rows):\n    return {'rows': rows}\n\ndef bad(lake):\n    return {}\n")
    assert find(str(file))(None, 7) == {"rows": 7}
    with pytest.raises(PlanError, match=r"no function `bad\(lake, rows\)`"):
        find(f"{file}:bad")
    with pytest.raises(PlanError, match="no plan 'jion' to compare; choose one of join"):
        find("jion")
    with pytest.raises(PlanError, match=r"if it is a file, write study_of_mine\.py:workload"):
        find("study_of_mine:workload")
    with pytest.raises(PlanError, match=r"no module 'gone\.study' can be imported"):
        find("gone.study:workload")
    monkeypatch.syspath_prepend(tmp_path)
    assert find("study_of_mine:workload")(None, 7) == {"rows": 7}
    with pytest.raises(PlanError, match=r"no function `none\(lake, rows\)`"):
        find("study_of_mine:none")
    file.write_text("1 +")
    with pytest.raises(PlanError, match="does not load: SyntaxError"):
        find(str(file))


def test_networks():
    assert network("3ms") == Network("3ms", 3.0)
    assert network("1.5ms/50mbit") == Network("1.5ms/50mbit", 1.5, 50.0)
    assert network("10ms/1gbit/2ms") == Network("10ms/1gbit/2ms", 10.0, 1000.0, 2.0)
    assert network("10ms/2ms") == Network("10ms/2ms", 10.0, None, 2.0)
    assert network("wan").latency_ms > network("lan").latency_ms
    for wrong in ("3", "10ms/2ms/50mbit", "10ms/50mbit/", "٣ms"):
        with pytest.raises(PlanError, match=f"no network '{wrong}'"):
            network(wrong)
    for wrong in ("1ms/2ms", "1ms/0mbit", "70000ms"):
        with pytest.raises(PlanError, match=r"Network: |a jitter is at most the latency"):
            network(wrong)
    with pytest.raises(PlanError, match="'five' parties"):
        tercet.compare("join", protocols=["shamir:five"])
    with pytest.raises(PlanError, match="parties; write a number, as in shamir:5"):
        tercet.compare("join", protocols=["shamir:" + "5" * 5000])


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
    run = Run(
        plans=1, rounds=0, bytes_sent=(0,), seconds=1.0, predicted_seconds=1.29, peak_mb=1.0, error=0.0
    )  # fmt: skip
    one = Measurement(
        plan="join", protocol="shamir", parties=3, corruptions=1, malicious=False, network=network("lan"),
        rows=1000, runs=(run,),
    )  # fmt: skip
    other = attrs.evolve(one, protocol="other", runs=(attrs.evolve(run, predicted_seconds=0.76),))
    monkeypatch.setattr("tercet.comparison.__main__.measure", lambda say: [one, other])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n\n{END}after\n")
    main([str(page)])
    text = page.read_text()
    assert "(page.svg)\n" in text
    assert text.startswith(f"before\n{BEGIN}\n1 of 2 predictions are within 30% of what was measured")
    assert text.endswith(f"| 0.76 | 1 | 0 |\n\n{END}after\n")
    assert "| join | lan | 1,000 | shamir:3 | 1 of 3, semi-honest |" in text
    assert attrs.evolve(one, parties=4, corruptions=1, malicious=True).security == "1 of 4, malicious"
    assert attrs.evolve(one, parties=5, corruptions=2).security == "2 of 5, semi-honest"
    assert "old" not in text
    assert "shamir:3" in (tmp_path / "page.svg").read_text()
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines <!-- measured -->"):
        main([str(page)])


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command(tmp_path):
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(
        app,
        [
            "compare",
            "join",
            "--protocols",
            "plain",
            "--networks",
            "none",
            "--rows",
            "50",
            "--repeat",
            "2",
            "--out",
            str(out),
        ],
    )
    assert ran.exit_code == 0, ran.output
    (one,) = json.loads(out.read_text())["measurements"]
    assert (one["protocol"], one["rows"], len(one["runs"])) == ("plain", 50, 2)
    assert one["runs"][0]["error"] == 0.0
    assert one["runs"][0]["peak_mb"] > 1
    assert (load(out).origin.tercet, load(out).origin.cores) == (tercet.__version__, Origin.here().cores)
    assert load(out).table() in ran.output
    wrong = CliRunner().invoke(app, ["compare", "jion"])
    assert wrong.exit_code == 1
    assert CliRunner().invoke(app, ["compare", "join", "--rows", "many"]).exit_code == 2


def test_what_was_measured_before_a_failure_is_kept(tmp_path):
    file = tmp_path / "study.py"
    file.write_text(
        "from tercet import PlanError\n\n"
        "def workload(lake, rows):\n"
        "    if lake.protocol == 'shamir':\n"
        "        raise PlanError('shamir cannot do this')\n"
        "    return {'rows': rows}\n"
    )
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(
        app, ["compare", str(file), "--protocols", "plain,shamir,rep4", "--out", str(out), "--rows", "5"]
    )
    assert ran.exit_code == 1
    assert "error: shamir cannot do this" in ran.output
    assert [one.protocol for one in load(out)] == ["plain"]
