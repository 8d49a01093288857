"""The command line: what it prints, and that it fails with a sentence."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import tercet
import tercet.demo
from tercet.cli import app
from tercet.commands import HOMES
from tercet.comparison import NETWORKS, WORKLOADS
from tercet.comparison.outcome import DRAWN, ENDINGS, FORMATS
from tercet.errors import PeerLost
from tercet.members.config import ROLES
from tercet.members.rules import GROUPS, PARAMETERS_PER_ROW, USUAL
from tercet.plans.types import CLASSES, SIZES
from tercet.protocols import registry

pytestmark = pytest.mark.smoke
runner = CliRunner()


def refuse(*arguments: str) -> str:
    """The sentence with which the command ends, on standard error, and nothing else anywhere."""
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_version():
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"tercet {tercet.__version__}\n"


def test_the_version_needs_nothing_that_takes_long_to_import():
    """A shell that asks for it waits 0.2 s, and not 2: numba and SQLAlchemy, say, are most of these."""
    ask = (
        "import sys; from tercet.cli import app; code = app(['--version'], standalone_mode=False); "
        "print(code, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120
    )
    version, loaded = done.stdout.splitlines()
    assert version == f"tercet {tercet.__version__}"
    code, *modules = loaded.split()
    assert code == "0"
    assert {name.partition(".")[0] for name in modules}.isdisjoint({"numpy", "trio", "sqlalchemy"})
    assert {name for name in modules if name.startswith("tercet.")} == {
        "tercet.cli",
        "tercet.commands",
        "tercet.commands.console",
        "tercet.errors",
    }


def test_help_needs_nothing_that_takes_long_to_import():
    """Of all commands: `tercet --help` takes twice what `tercet --version` does, not thirty times."""
    ask = f"import sys; {'; '.join(f'import {home}' for home in set(HOMES.values()))}; print(*sys.modules)"
    loaded = _loaded(ask)
    assert _packages(loaded).isdisjoint({"numpy", "trio", "sqlalchemy", "cryptography"})
    own = {name for name in loaded if name.startswith("tercet.")}
    assert own == {"tercet.commands", "tercet.commands.console", "tercet.errors", *HOMES.values()}


def test_who_signs_and_lists_needs_nothing_that_computes_or_of_nodes():
    """What `tercet approve` and `tercet tables` import when they are called: half of what a lake does."""
    loaded = _loaded("import sys, tercet.client.reach, tercet.client.loop; print(*sys.modules)")
    assert _packages(loaded).isdisjoint({"sqlalchemy", "numba", "pandas", "scipy", "rich"})
    assert not [name for name in loaded if name.startswith(("tercet.nodes", "tercet.storage", "tercet.ml"))]
    assert loaded.isdisjoint(
        {"tercet.client.cluster", "tercet.client.lake", "tercet.actors.node", "tercet.actors.estimate"}
    )


def _loaded(program: str) -> set[str]:
    """Modules that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def _packages(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded}


EARLY_TYPER = tuple(map(int, importlib.metadata.version("typer").split(".")[:2])) < (0, 20)


@pytest.mark.skipif(EARLY_TYPER, reason="early typer beside a late click leaves out what arguments are")
def test_help_names_what_there_is():
    """Its words are written out, since what they name takes long to import."""
    for command, words in {
        "upload": (GROUPS, CLASSES, USUAL, SIZES, [f"default: {PARAMETERS_PER_ROW}"]),
        "init": (ROLES,),
        "compare": (WORKLOADS, NETWORKS, FORMATS, ENDINGS, DRAWN),
        "transcript record": (WORKLOADS,),
    }.items():
        told = runner.invoke(app, [*command.split(), "--help"], env={"COLUMNS": "400"}).output
        assert not [word for some in words for word in some if word not in told]


def test_every_module_of_commands_has_those_that_are_looked_for_in_it():
    package = Path(tercet.commands.__file__).parent
    names = {f"tercet.commands.{file.stem}" for file in package.glob("*.py")}
    assert set(HOMES.values()) == names - {"tercet.commands.__init__", "tercet.commands.console"}
    for name in set(HOMES.values()):
        has = typer.main.get_group(importlib.import_module(name).app).commands
        assert set(has) == {command for command, home in HOMES.items() if home == name}


def test_no_command_shows_the_help():
    assert "demo" in runner.invoke(app, []).output


def test_protocols_are_listed():
    result = runner.invoke(app, ["protocols"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "3 parties" in lines["replicated"]
    assert "1 party" in lines["plain"]


def test_a_protocol_that_does_not_load_is_listed_all_the_same(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "broken", "tercet.protocols.plain:Plain")
    whole = registry.get

    def get(name):
        if name == "broken":
            raise tercet.ProtocolError("it is broken")
        return whole(name)

    monkeypatch.setattr(registry, "get", get)
    result = runner.invoke(app, ["protocols"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "does not load: it is broken" in result.stdout


def test_unknown_protocol():
    sentence = refuse("demo", "--protocol", "replicatd", "--json")
    assert "did you mean 'replicated'" in sentence
    assert "plain" in sentence


def test_wrong_number_of_parties():
    assert "3 parties, not 5" in refuse("demo", "--parties", "5", "--json")


def test_negative_latency():
    assert "latency_ms=-1" in refuse("demo", "--latency-ms", "-1", "--json")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("missing/a.png", "does not exist"), ("a.pdf", ".png"), ("folder.png", "is a directory")],
)
def test_a_picture_that_cannot_be_written_is_refused_at_once(tmp_path, name, complaint):
    (tmp_path / "folder.png").mkdir()
    assert complaint in refuse("demo", "--json", "--plot", str(tmp_path / name))


def test_missing_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    assert "pip install scikit-learn" in refuse("demo", "--json")


def test_a_lost_node_is_a_sentence(monkeypatch):
    def lose(*_):
        raise PeerLost("party 1 was silent for 6 s", peer="party 1")

    monkeypatch.setattr(tercet.demo, "run", lose)
    assert refuse("demo", "--json") == "error: party 1 was silent for 6 s\n"


def test_a_system_error_is_a_sentence(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tercet.demo, "run", fail)
    assert "No space left" in refuse("demo", "--json")


def test_json_is_the_only_output(monkeypatch):
    class Report:
        def to_json(self):
            return {"auc": 1.0}

    def run(_, watcher):
        watcher.end("upload", tercet.demo.Cost(1.0, 2, 3))
        return Report()

    monkeypatch.setattr(tercet.demo, "run", run)
    result = runner.invoke(app, ["demo", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"auc": 1.0}
    assert result.stderr == ""
