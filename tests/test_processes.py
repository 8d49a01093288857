"""What stays when a lake is no longer wanted: no node, no thread, no word; and what a forked process may do.

Nodes are told by their process numbers, and those of a script that has ended by its standard error, which
they share: its end comes when the last of them has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
import trio

import tercet
from tercet.client.lake import open_lake, open_local
from tercet.client.loop import Loop
from tercet.errors import PlanError, SchemaError, TercetError
from tercet.ml import LogisticRegression

pytestmark = pytest.mark.early
PATIENCE_S = 120.0
"""How long things may take on a machine that is overloaded; nothing is expected to."""
TABLE = {"id": np.arange(60), "x": np.linspace(-1, 1, 60), "y": np.arange(60) % 3 == 0}


def wait_until(holds, what):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def loops():
    return [thread for thread in threading.enumerate() if thread.name == "tercet-lake"]


# -- lakes that nobody holds ---------------------------------------------------------------------------------


def rebind():
    lake = tercet.local(processes=True, protocol="plain")
    before = lake.cluster.pids
    lake = tercet.local(protocol="plain")
    wait_until(lambda: not any(map(runs, before)), "the nodes of the first lake end")
    lake.close()


def fail():
    lake = tercet.local(protocol="plain")
    lake.upload(TABLE, name="t", key="id", owner="o")
    raise ZeroDivisionError


def refuse():
    lake = tercet.local(protocol="plain")
    table = lake.upload(TABLE, name="t", key="id", owner="o")
    table.filter(table["x"])


def leave():
    table = tercet.local(protocol="plain").upload(TABLE, name="t", key="id", owner="o")
    other = table.lake.upload(TABLE, name="u", key="id", owner="o")
    joined = table[["x"]].join(other[["y"]], on="id")
    model = LogisticRegression().fit(joined, target="y")
    model.save("m")  # which the lake holds, and which holds the lake
    assert model.evaluate(joined).reveal().accuracy > 0


def be_in_a_cycle():
    lake = tercet.local(protocol="plain")
    lake.on_phase = lambda phase, plan: lake.phases
    lake.upload(TABLE, name="t", key="id", owner="o")


def leave_an_error():
    lake = tercet.local(protocol="plain")
    with pytest.raises(SchemaError) as caught:
        lake.upload({"id": [1, 1]}, name="t", key="id", owner="o")
    kept.append(caught.value.with_traceback(None))


kept = []


@pytest.mark.parametrize("use", [rebind, fail, refuse, leave, be_in_a_cycle, leave_an_error])
def test_a_lake_that_nobody_holds_is_closed(use):
    before = loops()
    with contextlib.suppress(ZeroDivisionError, SchemaError):
        use()
    gc.collect()
    wait_until(lambda: set(loops()) <= set(before), "the thread of the lake ends")


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t["x"] > 0, lambda t: t.describe])
def test_what_is_of_a_lake_keeps_it_open(hold):
    held = hold(tercet.local(protocol="plain").upload(TABLE, name="t", key="id", owner="o"))
    gc.collect()
    table = getattr(held, "table", None) or getattr(held, "__self__", held)
    assert len(table.reveal("x")["x"]) == 60
    lake = weakref.ref(table.lake)
    del held, table
    gc.collect()
    assert lake() is None


def test_a_lake_that_is_closed_and_forgotten():
    lake = tercet.local(protocol="plain")
    lake.close()
    lake.close()
    del lake
    gc.collect()


# -- interrupts and ends -------------------------------------------------------------------------------------


def test_an_interrupt_while_a_lake_opens_leaves_nothing():
    ends = threading.Event()

    @contextlib.asynccontextmanager
    async def never_open():
        try:
            # To the thread that waits, as it comes from a terminal; no other one would wake it.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            await trio.sleep_forever()
            yield
        finally:
            ends.set()

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Loop(never_open)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ends.is_set()
    assert not loops()


def script(text):
    """A program that has uploaded a table `t` to a lake of one node process, and goes on as `text` does."""
    begin = """\
        import os, signal, sys
        import numpy as np, tercet
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        print("begun", flush=True)
        lake = tercet.local(processes=True, protocol="plain")
        t = lake.upload({"id": np.arange(9), "x": np.arange(9.0)}, name="t", key="id", owner="o")
        print("open", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(text)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("cycle = [t]; cycle.append(cycle); del t, lake", 0, ""),
    ],
)
def test_no_node_outlives_its_script(end, code, said):
    program = script(end)
    out, error = program.communicate(timeout=PATIENCE_S)  # to the end of what nodes could say too
    assert out == "begun\nopen\n"
    assert program.returncode == code, error
    assert (said in error and "tercet" not in error) if said else error == ""


def test_a_script_that_is_killed_while_its_nodes_start():
    program = script("")
    assert program.stdout.readline() == "begun\n"
    program.kill()
    assert program.communicate(timeout=PATIENCE_S)[1] == ""


# -- forks ---------------------------------------------------------------------------------------------------

CHILD = """
def refused(what):
    try:
        what()
    except tercet.TercetError as error:
        return "a fork of it" in str(error)
    return False

def child():
    tried = [
        lambda: lake.upload({"id": [1]}, name="u", key="id", owner="o"),
        lambda: t.reveal("x"),
        lambda: t.filter(t["x"] > 1),
        lambda: lake.builder("b"),
        lambda: lake.cluster,
        lambda: lake.trace().__enter__(),
    ]
    return all(map(refused, tried)) and "of another process" in repr(lake) and not lake.close()
"""


@pytest.mark.parametrize("leave", ["os._exit(7 if child() else 1)", "sys.exit(7 if child() else 1)"])
def test_a_fork_may_not_use_the_lake_and_does_it_no_harm(leave):
    program = script(
        CHILD
        + f"""
pid = os.fork()
if pid == 0:
    {leave}
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert len(t.reveal("x")["x"]) == 9
"""
    )
    assert program.communicate(timeout=PATIENCE_S) == ("begun\nopen\n", "")
    assert program.returncode == 0


def test_a_fork_of_a_trio_program_is_refused_at_once():
    program = script("""\
        import trio
        async def main():
            async with tercet.open_local(transport="tcp") as lake:
                u = await lake.upload({"id": [1, 2], "x": [1, 2]}, name="u", key="id", owner="o")
                pid = os.fork()
                if pid == 0:
                    refused = 0
                    for call in (
                        lambda: lake.upload({"id": [1], "x": [1]}, name="v", key="id", owner="o"),
                        lambda: u.reveal("x"),
                        lambda: lake.submit(u._reveal(["x"], "me")),
                        lambda: lake.jobs(),
                    ):
                        try:
                            await call()
                        except tercet.TercetError:
                            refused += 1
                    os._exit(refused)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
                assert len((await u.reveal("x"))["x"]) == 2
        trio.run(main)
    """)
    assert program.communicate(timeout=PATIENCE_S)[1] == ""
    assert program.returncode == 0


def test_a_fork_may_open_a_lake_of_its_own():
    program = script(
        CHILD
        + """
import multiprocessing
def work():
    assert child()
    with tercet.local(protocol="plain") as mine:
        own = mine.upload({"id": [1, 2], "x": [1.0, 2.0]}, name="t", key="id", owner="o")
        assert sorted(own.reveal("x")["x"]) == [1, 2]
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
assert process.exitcode == 0, process.exitcode
assert len(t.reveal("x")["x"]) == 9
"""
    )
    error = program.communicate(timeout=PATIENCE_S)[1]
    assert program.returncode == 0, error


def test_nodes_go_with_their_script_though_a_fork_of_it_stays():
    program = script("""\
        if os.fork() == 0:
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            os.read(0, 1)  # until the test lets it go
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    timer = threading.Timer(PATIENCE_S, program.stdin.close)
    timer.start()
    assert program.stderr.read() == ""
    assert timer.is_alive(), "a node is held by the fork"
    timer.cancel()
    program.communicate(timeout=PATIENCE_S)


def test_a_lake_is_not_pickled():
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(TABLE, name="t", key="id", owner="o")
        for what in (lake, table, table["x"]):
            for take in (pickle.dumps, copy.deepcopy):
                with pytest.raises(TercetError, match="in the process that opened it"):
                    take(what)


# -- threads and event loops ---------------------------------------------------------------------------------


def test_threads_share_a_lake():
    found, failures = {}, []
    with tercet.local(protocol="plain") as lake:

        def work(number):
            try:
                name = f"t{number}"
                table = lake.upload(TABLE, name=name, key="id", owner="o")
                found[number] = np.sort(table.assign(z=table["x"] * number).reveal("z")["z"])
            except TercetError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    for number in range(6):
        np.testing.assert_allclose(found[number], np.sort(TABLE["x"] * number), atol=1e-3)


def test_a_lake_that_another_thread_closes():
    said = []
    lake = tercet.local(protocol="plain")
    begun = threading.Event()

    def work():
        try:
            lake.call(wait_for_ever, begun)
        except TercetError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(PATIENCE_S)
    lake.close()
    thread.join(PATIENCE_S)
    assert said == ["this lake is closed; open it again"]


async def wait_for_ever(begun):
    begun.set()
    await trio.sleep_forever()


def test_beside_asyncio():
    async def main():
        with tercet.local(protocol="plain") as lake:
            return lake.upload(TABLE, name="t", key="id", owner="o").rows

    assert asyncio.run(main()) == 60


@pytest.mark.parametrize(
    "opening", [open_local, lambda: open_lake("cluster.toml", identity="ann.key")], ids=["local", "lake"]
)
def test_lakes_of_trio_programs_elsewhere(opening):
    async def enter():
        async with opening():
            raise AssertionError

    with pytest.raises(PlanError, match=r"under trio, and this is asyncio; .*works in scripts"):
        asyncio.run(enter())
    with pytest.raises(PlanError, match="under trio, and no event loop runs here"):
        enter().send(None)
    with pytest.raises(PlanError, match="to `async with` only"), opening():
        pass

    async def forget():
        return await opening()

    with pytest.raises(PlanError, match="to `async with` only"):
        trio.run(forget)
    with pytest.raises(AttributeError, match="not open yet, so it has no 'upload'; write `async with"):
        opening().upload(TABLE, name="t", key="id", owner="o")


async def test_a_trio_program_is_told_how_to_open_a_lake():
    with pytest.raises(PlanError, match="this is a trio program"):
        tercet.local()
    with pytest.raises(PlanError, match="this is a trio program"):
        tercet.connect("cluster.toml", identity="ann.key")
    lake = await trio.to_thread.run_sync(lambda: tercet.local(protocol="plain"))
    with pytest.raises(PlanError, match="this is a trio program"):
        lake.run(lake.builder("nothing").plan())
    await trio.to_thread.run_sync(lake.close)


def test_a_lake_does_not_wait_for_itself():
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(TABLE, name="t", key="id", owner="o")
        lake.on_phase = lambda phase, plan: table.describe()
        with pytest.raises(PlanError, match="would wait for itself"):
            table.reveal("x")
        lake.on_phase = lambda phase, plan: lake.close()
        with pytest.raises(PlanError, match="cannot be closed while it computes"):
            table.reveal("x")
