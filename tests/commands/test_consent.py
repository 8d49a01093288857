"""Studies on the command line: one command to ask, one for each owner to read and sign."""

from __future__ import annotations

import numpy as np
import pytest
import trio
from typer.testing import CliRunner

from tercet.cli import app
from tercet.commands import consent
from tests.nodes.conftest import in_process  # noqa: F401 - a fixture
from tests.nodes.test_studies import lake, made  # noqa: F401 - a fixture


@pytest.fixture
def command(lake):  # noqa: F811
    """Runs the command as a member; what it prints, in one piece."""

    async def run(member, *words, says="", code=0):
        who = ("--identity", str(lake.made.key(member)), "--cluster", str(lake.made.cluster))

        def invoke():
            return CliRunner().invoke(app, [*map(str, words), *who], input=says, env={"COLUMNS": "500"})

        done = await trio.to_thread.run_sync(invoke)
        assert done.exit_code == code, done.output
        return done.output

    return run


async def test_three_commands_for_a_study_of_two_owners(lake, command, tmp_path):  # noqa: F811
    study = made()
    file = tmp_path / "study.json"
    file.write_text(study.to_text())
    asked = await command("ann", "propose", file)
    assert f"study {study.number} of ann" in asked
    assert "waits for hospital, insurer" in asked
    told = await command("hospital", "approve", study.number, says="n\n", code=1)
    assert "it reads table ages, hospital's" in told
    assert "nothing was signed" in told
    told = await command("hospital", "approve", study.number, says="y\n")
    assert "sign it?" in told
    assert f"you have approved study {study.number}" in told
    assert "waits for insurer" in await command("insurer", "plans")
    told = await command("insurer", "approve", study.number[:5], "--yes", "--uses", 1)
    assert "  2. describe: describes columns" in told
    assert "approved by all; run 0 of 1 times, until" in await command("ann", "show", study.number)
    await lake.ann.cluster.desk.studies.begin(study)
    assert "run 1 of 1 times" in await command("ann", "plans")
    await command("insurer", "refuse", study.number, "--reason", "a new board")
    assert f"insurer has refused study {study.number}: a new board" in await command("ann", "plans")


async def test_wrong_numbers_and_files(lake, command, tmp_path):  # noqa: F811
    file = tmp_path / "study.json"
    assert "cannot be read" in await command("ann", "propose", file, code=1)
    file.write_text("{")
    assert "is no JSON text" in await command("ann", "propose", file, code=1)
    for verb in ("show", "approve", "refuse"):
        assert "no studies or plans begin with '12'" in await command("hospital", verb, "12", code=1)
    ages = await lake.ann.table("ages")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ages.describe(["age"], statistics=["mean"]))
        (plan, *_) = await lake.waiting()
        why = await command("hospital", "approve", plan.number, "--days", 3, code=1)
        assert "leave out --uses and --days" in why
        told = await command("hospital", "approve", plan.number, says="y\n")
        assert f"plan {plan.number} (" in told
    assert np.all(plan.missing == ("hospital",))


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"number": 1, "time": 253402300800, "event": "x"}',
        '{"number": 1, "time": 1, "event": "x", "deep": ' + "[" * 800 + "]" * 800 + "}",
        "1",
        '{"number": 1}',
        '{"number": 1, "time": 1e300, "event": "x"}',
        '{"number": 1, "time": "now", "event": "x"}',
        '{"number": 1, "time": 1, "event": ["\\u202e"]}',
        '{"number": 1, "time": 1, "event": "\\u001b[2J\\n"}',
    ],
)
def test_lines_of_logs_are_shown_whatever_nodes_write(line):
    shown = consent._audited(line)
    assert shown.isprintable()
    assert len(shown) < (2000 if "deep" in line else 400)
