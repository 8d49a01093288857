"""Plans that wait for their owners: what was approved meanwhile counts only if it still does in the end."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from tercet import Allow
from tercet.errors import ConsentError
from tercet.members.approvals import Approval
from tercet.members.quota import Quota
from tercet.members.succession import current
from tercet.nodes.quotas import Quotas
from tercet.nodes.setup import renew_key
from tercet.nodes.waiting import Board, Waiting
from tercet.plans import Builder
from tests.attacks.lake import TIMEOUT_S
from tests.nodes.test_amending import amend

SESSION = b"s" * 24


class Asked:
    """A plan of ann's on a board, which waits for two owners, and what was approved."""

    def __init__(self):
        self.board, self.worthless, self.failure = Board(Quotas(Quota())), set(), None
        self.waiting = Waiting(SESSION, "ann", Builder("p").plan(), b"", ("bob", "zoe"), self.check)

    def check(self, waiting, approval):
        if approval.approver in self.worthless:
            raise ConsentError(f"the approval of {approval.approver} has expired")

    async def wait(self):
        try:
            await self.board.wait(self.waiting)
        except ConsentError as error:
            self.failure = error

    async def approve(self, who):
        self.waiting.approvals[who] = Approval(SESSION[:16], b"", who, 0.0)
        self.waiting.changed.set()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def asked():
    found = Asked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.wait)
        await trio.testing.wait_all_tasks_blocked()
        yield found
        nursery.cancel_scope.cancel()


async def test_an_approval_that_has_expired_is_given_again(asked):
    await asked.approve("bob")
    asked.worthless.add("bob")
    await asked.approve("zoe")
    assert asked.waiting.missing == ["bob"]
    assert not asked.board.under_way
    asked.worthless.clear()
    await asked.approve("bob")
    asked.board.require_approved(SESSION)
    asked.worthless.add("zoe")
    with pytest.raises(ConsentError, match="the approval of zoe has expired; run the plan again"):
        asked.board.require_approved(SESSION)


async def test_who_is_gone_is_not_waited_for(asked):
    asked.board.look_again(["somebody"])
    await trio.testing.wait_all_tasks_blocked()
    assert asked.failure is None
    asked.board.look_again(["zoe"])
    await trio.testing.wait_all_tasks_blocked()
    assert "waits for zoe, no member of the lake any more" in str(asked.failure)


async def test_a_key_that_is_revoked_while_a_plan_waits(in_process):
    lake, root = in_process, in_process.made.root
    table = await lake.victim(plans="approved", min_count=2)
    costs = {"id": np.arange(100), "cost": np.linspace(1, 9, 100)}
    await lake.insurer.upload(
        costs, name="costs", key="id", owner="insurer", min_count=2, allow=Allow(plans="approved")
    )
    done = trio.Event()

    async def ask():
        await table.join(await lake.ann.table("costs"), on="id")
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await lake.waiting()
        await lake.hospital.approve(waiting.number)
        await amend(lake, renew_key(root / "hospital.key", current(lake.made.cluster)), revoked=["hospital"])
        for node in lake.nodes:
            (found,) = node.gate.board.plans.values()
            keys = lake.insurer.cluster.desk.keys
            approval = Approval.make(node.gate.roster.cluster.lake, found.run, found.plan.digest(), keys)
            await node.gate._approve("insurer", attrs.asdict(approval))
        assert [found.missing for node in lake.nodes for found in node.gate.board.plans.values()] == [
            ["hospital"]
        ] * 3
        with pytest.raises(Exception, match="goes by another certificate"):
            await lake.hospital.plans()
        await lake.hospital.approve((await lake.waiting())[0].number)
        with trio.fail_after(TIMEOUT_S):
            await done.wait()
