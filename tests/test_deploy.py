"""What `deploy` has fits what is there: metrics, commands, files. Containers are not started here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tercet.actors.node import Node
from tercet.actors.party import Party
from tercet.cli import app
from tercet.nodes.metrics import registry_of
from tercet.nodes.program import Settings
from tercet.nodes.roster import Roster
from tercet.protocols.plain import Plain
from tercet.transports import Shaping
from tercet.transports.memory import MemoryTransport
from tests.nodes.on_disk import set_up

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\btercet_\w+")
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CONTAINER = (DEPLOY / "Containerfile").read_text()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The names of all metrics of a node."""
    made = set_up(tmp_path_factory.mktemp("deploy"))
    settings = Settings.read(made.root / "n0" / "node.toml")
    roster = Roster(settings.file, settings.index, settings.cluster)
    party = Party(0, parties=1, protocol=Plain)
    node = Node(party, MemoryTransport(), shaping=Shaping(), trusted_names=True)
    return {metric.name for metric in registry_of(node, roster).collect()}


def test_alerts_speak_of_what_nodes_export(exported):
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 6
    for rule in RULES:
        named = set(METRIC.findall(rule["expr"]))
        assert named <= exported, f"{rule['alert']} is on {named - exported}, which no node exports"
        assert named or rule["expr"].startswith("up{")
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_dashboard_shows_all_that_nodes_export(exported):
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    shown = {name for panel in panels for one in panel["targets"] for name in METRIC.findall(one["expr"])}
    assert shown == exported
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_each_node_has_a_database_and_a_directory():
    nodes = {name: one for name, one in COMPOSE["services"].items() if name != "postgres"}
    made = re.findall(r"^CREATE DATABASE (\w+);$", (DEPLOY / "databases.sql").read_text(), re.MULTILINE)
    assert made == list(nodes) == ["north", "south", "west"]
    assert [one["volumes"] for one in nodes.values()] == [[f"./{name}:/lake"] for name in nodes]
    ports = [port for one in nodes.values() for port in one["ports"]]
    inside = {port.partition(":")[2] for port in ports}
    assert len(set(ports)) == 3
    assert inside == set(re.findall(r"(?m)^EXPOSE (\d+)$", CONTAINER))
    for one in nodes.values():
        assert (
            DEPLOY / one["build"]["context"] / one["build"]["dockerfile"]
        ).resolve() == DEPLOY / "Containerfile"


def test_the_container_copies_and_runs_what_is_there():
    copied = [name for line in re.findall(r"(?m)^COPY (.*)$", CONTAINER) for name in line.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    (program,) = json.loads(re.findall(r"(?m)^ENTRYPOINT (.*)$", CONTAINER)[0])
    command, file = json.loads(re.findall(r"(?m)^CMD (.*)$", CONTAINER)[0])
    assert (program, file) == ("tercet", "/lake/node.toml")
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    (code,) = re.findall(r'(?m)^RUN cd /tmp && python -c "(.*)"$', CONTAINER)
    compile(code, "Containerfile", "exec")


def test_the_commands_of_the_page(tmp_path):
    """What the page says to run in a container, and what it has changed in node.toml."""
    page = (ROOT / "docs/operations.md").read_text()
    section = page[page.index("## In containers") :].partition("\n## ")[0]
    (line,) = re.findall(r"run --rm --no-deps \$name (init .*?)$", section, re.MULTILINE)
    options = line.replace("$name", "north").replace("/lake", str(tmp_path / "north")).split()
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "north" / "node.toml").read_text()
    (before, after) = re.findall(r"sed -i 's#(.*?)#(.*?)#'", section)[0]
    assert text.count(before) == 1
    assert after == "catalog = \"postgresql+psycopg://tercet@postgres/'$name'\""
