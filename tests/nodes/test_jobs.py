"""Jobs go on when their client has left, and are its alone: fetched, cancelled, or heard to have failed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import trio

import tercet
from tercet import Allow
from tercet.actors.service import Service
from tercet.errors import PlanError
from tercet.ml import LogisticRegression
from tercet.nodes.job_words import INTERRUPTED, Told

TABLE = {"id": np.arange(100), "age": np.linspace(20, 80, 100), "old": np.arange(100) * 7 % 100 > 40}


def connect(nodes, member):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


def sum_of_ages(lake):
    builder = lake.builder("sum of ages")
    lake.table("ages").features(builder, ["age"]).sum().reveal("sum", to="analyst")
    return builder.plan()


@pytest.fixture(scope="module")
def table(nodes):
    with connect(nodes, "hospital") as lake:
        lake.upload(TABLE, name="ages", key="id", owner="hospital")
        free = Allow(plans="any", readers=("insurer",))
        lake.upload(TABLE, name="free", key="id", owner="hospital", allow=free)
    return nodes


def test_a_job_waits_for_approval_and_is_fetched_another_day(table):
    with connect(table, "ann") as lake:
        job = lake.submit(sum_of_ages(lake))
        assert [one.state for one in lake.jobs() if one.session == job.session] == ["under way"]
    with connect(table, "hospital") as lake:
        table.wait_for(lake.plans, "waiting for the hospital")  # a submitted job is reviewed before it waits
        (waiting,) = lake.plans()
        assert (waiting.number, waiting.caller) == (job.number, "ann")
        lake.approve(job.number)
    for _ in range(2):  # a result can be fetched more than once
        with connect(table, "ann") as lake:
            again = next(one for one in lake.jobs() if one.session == job.session)
            found = again.result()
            assert found.revealed["sum"].shape == (1,)
            assert [str(item) for item in found.disclosed] == ["sum (1) to analyst"]
            assert next(one for one in lake.jobs() if one.session == job.session).state == "done"


def test_a_job_is_its_clients_alone(table):
    with connect(table, "ann") as lake:
        job = lake.submit(sum_of_ages(lake))
        with connect(table, "insurer") as other:
            assert job.session not in [one.session for one in other.jobs()]
            stolen = tercet.client.lake.Job(other, job.session)
            for attempt in (stolen.result, stolen.cancel):
                with pytest.raises(PlanError, match="insurer has no job"):
                    attempt()
        job.cancel()
        assert job.session not in [one.session for one in lake.jobs()]
        with pytest.raises(PlanError, match="ann has no job"):
            job.result()
    with connect(table, "hospital") as lake:
        assert lake.plans() == []


def test_a_job_that_fails_says_why(table):
    with connect(table, "insurer") as lake:
        builder = lake.builder("rows")
        lake.table("free").features(builder, ["age"]).reveal("rows", to="analyst")
        job = lake.submit(builder.plan())
        with pytest.raises(tercet.ConsentError, match="single rows"):
            job.result()
        (told,) = [one for one in lake.jobs() if one.session == job.session]
        assert (told.state, "single rows" in told.why) == ("failed", True)


def test_a_fit_is_collected_from_elsewhere(table):
    with connect(table, "insurer") as lake:
        job = LogisticRegression().submit(lake.table("free"), target="old")
    with connect(table, "insurer") as lake:
        again = next(one for one in lake.jobs() if one.session == job.session)
        model = LogisticRegression().collect(again, lake.table("free"), target="old")
        assert model.predict(lake.table("free")).rows == 100


def test_jobs_on_one_machine():
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(TABLE, name="ages", key="id", owner="hospital")
        builder = lake.builder("sum of ages")
        table.features(builder, ["age"]).sum().reveal("sum", to="analyst")
        job = lake.submit(builder.plan())
        assert job.result().revealed["sum"].shape == (1,)
        assert [one.state for one in lake.jobs()] == ["done"]


async def test_a_job_that_is_over_when_all_have_answered_ends_no_node(in_process, monkeypatch):
    """Its client leaves while party 0 asks about it, and so the job is not there any more."""
    (jobs, *_) = (node.gate.jobs for node in in_process.nodes)

    async def everybody(run):
        return [Told(INTERRUPTED, attended=True)] * 3

    monkeypatch.setattr(jobs, "_ask_everybody", everybody)
    await jobs._see_to(bytes(16))
    assert not jobs.jobs


async def test_who_is_asked_about_a_job_and_lost_is_not_waited_for(in_process):
    """The question went with the link: with a long time-out, the job would stand still for as long."""
    first, *_, last = in_process.nodes
    found = []

    async def ask():
        found.append(await first.gate.jobs._ask_everybody(bytes(16)))

    last.party.on_word = lambda *_: None
    with trio.fail_after(first.party.timeout_s / 4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            assert not found
            first.party.hang_up(2)
    assert found == [None]


async def test_what_a_job_is_is_told_of_one_moment():
    """Else nodes whose job goes on to its next plan meanwhile would seem to differ on what it is."""
    job = SimpleNamespace(packed=b"first", step=0)

    async def plan_of(_, packed):
        job.packed, job.step = b"second", 1
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(to_bytes=lambda: b"the plan of the " + packed)

    service = SimpleNamespace(gate=SimpleNamespace(plan_of=plan_of), caller="ann")
    told, _ = await Service._show_job(service, job, ended=False)
    assert told == {"packed": b"the plan of the first", "asked": b"first", "steps": 1}


async def test_a_job_that_is_being_written_down_is_not_taken_for_interrupted(in_process, monkeypatch):
    """Else it would be begun again while it is begun, under one name."""
    lake, last = in_process, in_process.nodes[2].gate.jobs
    table = await lake.ann.upload(TABLE, name="mine", key="id", owner="ann")
    results, noting, noted, note = [], trio.Event(), trio.Event(), last._note
    lake.ann.on_result = lambda _, result: results.append(result)

    async def slowly(job, **options):
        noting.set()
        await noted.wait()
        await note(job, **options)

    monkeypatch.setattr(last, "_note", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.describe)
        await noting.wait()
        (run,) = last.jobs
        assert not last.jobs[run].stands_still
        nursery.start_soon(in_process.nodes[0].gate.jobs._see_to, run)
        await trio.sleep(0.3)
        noted.set()
    assert [one.interrupted for one in results] == [0] * len(results)
    assert results


async def test_a_job_that_is_cancelled_while_it_is_written_down_is_not_begun(in_process, monkeypatch):
    jobs, begun = in_process.nodes[0].gate.jobs, []
    monkeypatch.setattr(jobs, "begin", lambda *one: begun.append(one))

    noted = jobs._note

    async def note(job, **options):
        await jobs.end(job)  # which the writing overtakes
        await noted(job, **options)

    monkeypatch.setattr(jobs, "_note", note)
    for patience_s in (1.0, None):
        with pytest.raises(PlanError, match="cancelled before it was begun"):
            await jobs.submit(bytes(16), b"", "ann", patience_s)
    assert (begun, jobs.jobs, jobs._journal.jobs()) == ([], {}, [])
