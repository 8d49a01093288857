"""Jobs of a member whose client speaks any verb in any order: names, waiting, leaving, and what others have.

Every run is a job, so what its client says of it is all that nodes go by: who may wait for it, whether it may
go on, and when it ends.
"""

from __future__ import annotations

import contextlib
import secrets

import numpy as np
import pytest
import trio

from tercet.actors import jobs
from tercet.client.connection import Request
from tercet.client.lake import open_lake
from tercet.errors import ConsentError, PeerLost, PlanError, ProtocolError, QuotaError, TercetError
from tests.attacks.lake import TIMEOUT_S, allow, apart, values_of

pytestmark = pytest.mark.early


@pytest.fixture
async def plan(attacked):
    """A plan of ann's that waits for the hospital, packed."""
    return (await total(attacked)).to_bytes()


async def total(attacked, name="a total"):
    table = await attacked.victim(plans="approved")
    b = attacked.builder(name)
    values_of(b, table).sum().reveal("total", to="analyst")
    return b.plan()


def connect(attacked, name="ann", **options):
    made = attacked.made
    return open_lake(made.cluster, identity=made.key(name), timeout_s=TIMEOUT_S, **options)


async def until(condition):
    with trio.fail_after(TIMEOUT_S / 2):
        while not await condition():  # noqa: ASYNC110 - nodes tell when asked
            await trio.sleep(0.02)


async def submitting(lake, session, packed, *more):
    request = Request("submit", [session, packed, *more], most=1 << 20)
    return [answer.body for answer in await lake.cluster.client._ask_all([request] * 3)]


@contextlib.asynccontextmanager
async def waiting_for(attacked, lake, session, packed, *more):
    """Wait for a job on the side; what it gave, or failed with, comes into the list."""
    ended = []

    async def wait():
        try:
            ended.append(await submitting(lake, session, packed, *more))
        except TercetError as error:
            ended.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await attacked.waiting()
        yield ended
        with trio.fail_after(TIMEOUT_S / 2):
            while not ended:  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_a_name_is_used_once_whatever_is_said_with_it(attacked, plan):
    session = secrets.token_bytes(16)
    other = (await total(attacked, "another total")).to_bytes()
    async with waiting_for(attacked, attacked.ann, session, plan, 60.0, False) as ended:
        for lake, packed, more in (
            (attacked.ann, plan, []),
            (attacked.ann, plan, [60.0, False]),
            (attacked.ann, plan, [30.0, True]),
            (attacked.ann, other, [60.0, True]),
            (attacked.insurer, plan, [60.0, True]),
            (attacked.insurer, plan, []),
        ):
            with pytest.raises(PlanError, match="names are used once"):
                await submitting(lake, session, packed, *more)
        assert len(await attacked.waiting()) == 1
        await attacked.hospital.approve(session.hex()[:8])
    assert [one["interrupted"] for one in ended[0]] == [0, 0, 0]


async def test_names_of_any_length_are_refused_by_a_sentence(attacked, plan):
    for name in (b"", b"short", bytes(17), bytes(1000)):
        with pytest.raises(PlanError, match="bytes; they have 16"):
            await submitting(attacked.ann, name, plan, 0.0, False)


async def test_a_member_waits_from_many_connections_and_nobody_else_does(attacked, plan):
    session = secrets.token_bytes(16)
    async with (
        connect(attacked) as second,
        waiting_for(attacked, attacked.ann, session, plan, 60.0, False) as first_ended,
        waiting_for(attacked, second, session, plan, 60.0, True) as second_ended,
    ):
        for verb in ("job", "fetch", "end"):
            with pytest.raises(PlanError, match="insurer has no job"):
                await attacked.insurer.cluster.client.ask(verb, [session])
        told = await attacked.insurer.cluster.client.ask("progress", [session])
        assert not any(one["nodes"] for one in told)
        await attacked.hospital.approve(session.hex()[:8])
    (first,), (again,) = first_ended, second_ended
    assert [one["revealed"] for one in first] == [one["revealed"] for one in again]


async def test_a_job_ends_when_nobody_waits_for_it_any_more(attacked):
    """At once where its client has no patience, or says so; else when that is over, and not before."""
    plan = await total(attacked)

    async def gone():
        return not await attacked.hospital.plans()

    for patience_s in (0.0, 60.0):
        async with connect(attacked, patience_s=patience_s) as lake:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lake.cluster.client.run, plan)
                await attacked.waiting()
                nursery.cancel_scope.cancel()  # as when somebody interrupts the call
            await until(gone)
    for patience_s in (0.0, 1.0, 60.0):
        session = secrets.token_bytes(16)
        async with trio.open_nursery() as nursery, connect(attacked) as lake:
            nursery.start_soon(submitting, lake, session, plan.to_bytes(), patience_s, False)
            await attacked.waiting()
            nursery.cancel_scope.cancel()  # and no word of it: as when its machine has stopped
        if patience_s == 60.0:
            async with waiting_for(attacked, attacked.ann, session, plan.to_bytes(), 60.0, True) as ended:
                await attacked.hospital.approve(session.hex()[:8])
            assert len(ended[0]) == 3
        else:
            await until(gone)
    assert not any(job.caller == "ann" and not job.done.is_set() for job in jobs_of(attacked))


def jobs_of(attacked):
    return [job for node in attacked.nodes for job in node.jobs.jobs.values()]


async def test_a_client_that_has_lost_its_link_waits_again(attacked):
    """What its job has become meanwhile is the nodes' affair: it has not been begun again."""
    plan, found = await total(attacked), []
    client = attacked.ann.cluster.client

    async def run():
        found.append(await client.run(plan))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        (waiting,) = await attacked.waiting()
        await client._nodes[1].line.link.aclose()
        await until(linked_up_again(client))
        assert [one.session for one in await attacked.waiting()] == [waiting.session]
        await attacked.hospital.approve(waiting.number)
    assert found[0].interrupted == 0
    assert np.ldexp(found[0].revealed["total"], -10) > 0

    async def forgotten():
        return not any(job.session == waiting.session for job in jobs_of(attacked))

    await until(forgotten)


def linked_up_again(client):
    async def there():
        return not client.lost

    return there


async def test_nodes_that_stay_apart_are_told_of(attacked):
    """By the nodes, to a client who is linked up with all of them."""
    plan = await total(attacked)
    async with connect(attacked, patience_s=1.0) as lake, trio.open_nursery() as nursery:

        async def lose():
            await attacked.waiting()
            for node in attacked.nodes:
                for job in node.jobs.of("ann"):
                    await node.jobs._halt(job)
            nursery.start_soon(stay_apart)

        async def stay_apart():
            with apart(attacked):
                await trio.sleep_forever()

        nursery.start_soon(lose)
        with pytest.raises(PeerLost, match=r"the plan waited for 1 s, and party \d has no link to party 0"):
            await lake.cluster.client.run(plan)
        nursery.cancel_scope.cancel()


async def test_a_job_that_some_nodes_do_not_know_is_not_begun(attacked, plan):
    """Submitted again to one node only, as if it had been under way; nothing runs, and nothing stays."""
    session = secrets.token_bytes(16)
    connection = attacked.ann.cluster.client._nodes[0]
    connection.tell("submit", [session, plan, 1.5, True])

    async def known():
        return session in attacked.nodes[0].jobs.jobs

    async def failed():
        return attacked.nodes[0].jobs.jobs[session].done.is_set()

    await until(known)
    await until(failed)
    assert not any(node.party.running for node in attacked.nodes)
    assert await attacked.hospital.plans() == []
    assert "waited for 1.5 s, and it could not go on" in str(attacked.nodes[0].jobs.jobs[session].error)

    async def forgotten():
        return session not in attacked.nodes[0].jobs.jobs

    await until(forgotten)


async def test_a_member_cannot_take_the_place_of_a_job_that_a_node_has_forgotten(attacked, plan):
    """As after its restart, when everybody has seen the name in the list of plans."""
    session = secrets.token_bytes(16)
    await submitting(attacked.ann, session, plan)
    await attacked.waiting()
    for node in attacked.nodes:
        node.jobs.jobs.pop(session).scope.cancel()
    for more in ([], [60.0, False], [60.0, True]):
        with pytest.raises(ConsentError, match="another member's"):
            await submitting(attacked.insurer, session, plan, *more)


async def test_a_job_that_is_no_plan_ends_no_node(attacked):
    """Party 0 makes its plan when it was interrupted, perhaps before anybody has looked at it."""
    with apart(attacked):
        for node in attacked.nodes:
            node.party._check_peers = lost_party_0
        sessions = [secrets.token_bytes(16) for _ in range(2)]
        await submitting(attacked.ann, sessions[0], b"no plan")
        await submitting(attacked.ann, sessions[1], b"tercet request 1\nno request either")

        async def interrupted():
            return all(job.interruption is not None for job in jobs_of(attacked))

        await until(interrupted)
        for node in attacked.nodes:
            del node.party._check_peers
    for session in sessions:
        with pytest.raises(PlanError), trio.fail_after(TIMEOUT_S / 2):
            await attacked.ann.cluster.client.ask("fetch", [session])
    assert (await attacked.run(await total(attacked))).revealed["total"] > 0


def lost_party_0():
    raise PeerLost("party 0 has fallen silent", peer="party 0")


async def test_attended_jobs_are_bounded(attacked, plan):
    """Those under way by the quota of plans; those that are done, and that nobody has let go, make room."""
    allow(attacked, queued=2)
    names = [secrets.token_bytes(16) for _ in range(2)]
    async with (
        waiting_for(attacked, attacked.ann, names[0], plan, 60.0, False) as first,
        waiting_for(attacked, attacked.ann, names[1], plan, 60.0, False) as second,
    ):
        await until(both_wait(attacked))
        with pytest.raises(QuotaError, match="ann has 2 plans that are under way or wait for their turn"):
            await submitting(attacked.ann, secrets.token_bytes(16), plan, 60.0, False)
        for name in names:
            await attacked.hospital.approve(name.hex()[:8])
    assert len(first[0]) == len(second[0]) == 3
    third = secrets.token_bytes(16)
    async with waiting_for(attacked, attacked.ann, third, plan, 60.0, False):
        assert [job.session for job in attacked.nodes[0].jobs.of("ann")] == [names[1], third]
        await attacked.hospital.approve(third.hex()[:8])


def both_wait(attacked):
    async def there():
        return len(await attacked.hospital.plans()) == 2

    return there


async def test_attended_jobs_push_none_out_that_is_left_alone(attacked, plan):
    alone = secrets.token_bytes(16)
    await submitting(attacked.ann, alone, plan)
    async with attacked.signing():
        await attacked.ann.cluster.client.fetch(alone)
        for _ in range(3):
            await submitting(attacked.ann, secrets.token_bytes(16), plan, 60.0, False)
    assert [job.session for job in await attacked.ann.jobs()] == [alone]


async def test_a_job_that_is_refused_pushes_none_out(attacked, plan, monkeypatch):
    """Else the journal keeps what nobody counts any more, as often as she likes."""
    monkeypatch.setattr(jobs, "MOST_JOBS", 2)
    sessions = [secrets.token_bytes(16) for _ in range(4)]
    async with attacked.signing():
        for session in sessions:
            await submitting(attacked.ann, session, plan)
            await attacked.ann.cluster.client.fetch(session)
            with pytest.raises(PlanError, match="bytes; they have 16"):
                await submitting(attacked.ann, bytes(17), plan)
    assert [job.session for job in await attacked.ann.jobs()] == sessions[2:]
    for node in attacked.nodes:
        assert {row.run for row in node.jobs._journal.jobs()} == set(sessions[2:])


async def test_a_job_that_ends_as_its_turn_comes_gives_that_back(attacked, monkeypatch):
    """Else a member who ends jobs at the right time takes all turns, for good."""
    handle, kind = await attacked.deal([1, 2, 3])
    b = attacked.builder("own numbers")
    b.input(handle, kind).reveal("numbers", to="analyst")
    gate = attacked.nodes[0].gate
    bound, reached = gate._bound, trio.Event()

    async def slow(plan):
        if gate._turns.taken:
            reached.set()
            await trio.sleep(0.5)
        return await bound(plan)

    monkeypatch.setattr(gate, "_bound", slow)
    session = secrets.token_bytes(16)
    await submitting(attacked.ann, session, b.plan().to_bytes())
    with trio.fail_after(TIMEOUT_S / 2):
        await reached.wait()
    await attacked.ann.cluster.client.ask("end", [session])

    async def given_back():
        return not gate._turns.taken and not any(node.party.running for node in attacked.nodes)

    await until(given_back)


@pytest.mark.parametrize("verb", ["run", "resume", "interrupted", "abandon"])
async def test_what_members_said_of_attempts_is_said_no_more(attacked, plan, verb):
    for args in ([bytes(16)], [bytes(16), plan], [bytes(16), plan, bytes(16), 0]):
        with pytest.raises(ProtocolError, match="do not know"):
            await attacked.ann.cluster.client.ask(verb, args)
