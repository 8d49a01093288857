"""Comparisons of protocols and networks: what is measured, predicted and written; profiles of machines."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import tercet
from tercet.actors import Builder, Form, Type
from tercet.actors.calibration import PROBES, calibrate
from tercet.actors.estimate import explain
from tercet.actors.kinds import KINDS
from tercet.actors.machine import LOCAL, Machine, load_profile, save_profile
from tercet.cli import app
from tercet.errors import PlanError
from tercet.studies import find, markdown, network, write

PROTOCOLS = ("replicated", "shamir", "shamir:5", "additive", "plain")


@pytest.fixture(autouse=True)
def own_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCET_MACHINE", str(tmp_path / "machine.json"))


@pytest.mark.parametrize(
    ("plan", "protocols"),
    [("join", PROTOCOLS), ("operations", PROTOCOLS), ("demo", ("replicated", "shamir", "plain"))],
)
def test_protocols_agree(plan, protocols):
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
    assert seen == [("plain", 5), ("replicated", 5), ("plain", 6), ("replicated", 6)]
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
    profile = {
        "replicated": Machine(plan_s=1.0, instance_s=0.0, round_s=0.5, rates={"reduce": 1e-3, LOCAL: 0.0})
    }
    assert load_profile() == {}
    path = save_profile(profile)
    assert path.parent == tmp_path
    assert load_profile() == profile
    # A word read and a word sent for each of 1000 products, and what input and store take at the common rate.
    rest = 1000 * Machine().unit_s
    assert explain(plan).seconds == pytest.approx(1.5 + 2.0 + rest)
    assert explain(plan, "plain").seconds < 0.1
    path.write_text("[1]")
    with pytest.raises(PlanError, match="is no profile of a machine"):
        explain(plan)


async def test_calibration_measures_every_probe():
    machine = await calibrate("plain", repeat=1, processes=False)
    assert machine.rates.keys() == PROBES.keys()
    assert machine.plan_s > 0
    assert sum(rate > 0 for rate in machine.rates.values()) > len(PROBES) // 2
    assert PROBES.keys() - KINDS.keys() == {LOCAL}


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
