"""`tercet portal`: what it says when it cannot start, and the lake of made-up owners."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from h11 import LocalProtocolError
from typer.testing import CliRunner

from tercet.cli import app
from tercet.commands import portal as portal_command
from tercet.demo import portal_demo
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.portal import app as portal_app
from tests.portal.asking import Browser, multipart

ROOT = Path(__file__).parents[2]


def said(*arguments: object) -> str:
    """What the command says as it fails."""
    found = CliRunner().invoke(app, ["portal", *map(str, arguments)])
    assert found.exit_code == 1
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found.output


def test_what_keeps_it_from_starting_is_a_sentence(tmp_path):
    assert "give your key with --identity" in said()
    assert "cluster.toml" in said("--identity", tmp_path / "a.key", "--cluster", tmp_path / "cluster.toml")
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", tmp_path / f"n{i}") for i in range(3)]
    make_cluster([*parts, make_member("a", ["owner"], tmp_path)], tmp_path / "c.toml", protocol="replicated")
    make_member("stranger", ["owner"], tmp_path)
    told = said("--identity", tmp_path / "stranger.key", "--cluster", tmp_path / "c.toml")
    assert "lists no member with the certificate of stranger" in told


async def test_the_demonstration_has_a_portal_for_each_and_a_study_that_waits():
    lines: list[str] = []
    ready = trio.Event()

    def say(line: str) -> None:
        lines.append(line)
        if "asked about a study" in line:
            ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(portal_demo.run, say)
        with trio.fail_after(120):
            await ready.wait()
        links = [line.split()[-1] for line in lines if "http" in line]
        assert len(links) == len(portal_demo.MEMBERS)
        browser = Browser(links[0].split("/")[2])
        at = await trio.to_thread.run_sync(browser.open, links[0])
        text = ""
        with trio.fail_after(60):  # a node that is busy does not answer a look in time
            while "All 3 nodes are ready." not in text:
                text = (await trio.to_thread.run_sync(browser.get, f"{at}/")).text
        assert "Who comes back to hospital within 30 days?" in text
        nursery.cancel_scope.cancel()


async def test_answers_that_are_cut_off_are_no_failure_of_its_end(tmp_path, monkeypatch):
    """Hypercorn answers once more what ends in the middle of its answer, which h11 refuses."""
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", tmp_path / f"n{i}") for i in range(3)]
    make_cluster([*parts, make_member("a", ["owner"], tmp_path)], tmp_path / "c.toml", protocol="replicated")

    async def cut_off(_, config, *, task_status, **__):
        os.close(int(config.bind[0].removeprefix("fd://")))
        task_status.started()
        try:
            await trio.sleep(at)
        finally:
            raise LocalProtocolError("can't handle event type Response")

    monkeypatch.setattr(portal_app, "serve_http", cut_off)
    serve = functools.partial(portal_app.serve, tmp_path / "c.toml", tmp_path / "a.key")
    at = math.inf
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        nursery.cancel_scope.cancel()
    at = 0.0
    with pytest.raises(ExceptionGroup) as caught:
        await serve()
    assert caught.group_contains(LocalProtocolError)


AS_IN_A_TERMINAL = """
import os, signal, sys
for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(one, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "tercet", *sys.argv[1:]])
"""
"""The command, also where those who run the tests ignore signals, as under nohup."""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_files_that_wait_go_however_it_is_told_to_end(tmp_path, end):
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", tmp_path / f"n{i}") for i in range(3)]
    make_cluster([*parts, make_member("a", ["owner"], tmp_path)], tmp_path / "c.toml", protocol="replicated")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", AS_IN_A_TERMINAL, "portal", "--identity", "a.key", "--cluster", "c.toml"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            link = next(line for line in process.stdout if "http" in line).split()[-1]
            browser = Browser(link.split("/")[2])
            at = browser.open(link)
            content = {"csrf": browser.csrf(f"{at}/upload")}
            body, kind = multipart(content, "file", "a.csv", b"id,age\nx,1\ny,2\n")
            assert browser.ask("POST", f"{at}/upload", body, content_type=kind).status == 303
            assert [one.name for one in scratch.rglob("*") if one.is_file()] == ["table.csv"]
            process.send_signal(end)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_raised_nowhere(end):
    """Ctrl-C would be, where Python is just then: in the middle of an answer, which then fails in its way.

    Nor does a second one cut off what is removed at the end.
    """
    ended = []

    async def answers():
        try:
            os.kill(os.getpid(), end)
            for _ in range(100_000):
                len(ended)  # Python, where a signal would be raised
            with trio.fail_after(60):
                await trio.sleep_forever()
        finally:
            os.kill(os.getpid(), end)
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            ended.append(trio.current_effective_deadline())

    before = signal.signal(end, signal.SIG_DFL)  # also where those who run the tests ignore it
    try:
        await portal_command._until_told(answers)
    finally:
        signal.signal(end, before)
    assert ended == [-math.inf]


@pytest.mark.parametrize("option", ["--port", "--demo", "--identity", "--cluster"])
def test_its_options_are_told(option):
    assert option in CliRunner().invoke(app, ["portal", "--help"], env={"COLUMNS": "160"}).output
