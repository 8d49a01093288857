"""What owners have signed is what runs: nothing that a study or plan names becomes something else."""

from __future__ import annotations

import functools
import threading
import time

import attrs
import numpy as np
import pytest
import trio

from tercet import Allow
from tercet.client.wording import one_line
from tercet.errors import ConsentError, StorageError, TercetError
from tercet.members.studies import Asked, Study, study_step
from tercet.ml import LogisticRegression
from tercet.nodes import study_runs as studies
from tercet.nodes.study_runs import Studies
from tests.attacks.lake import BY_HAND, ROWS, values_of

X = np.linspace(-1, 1, ROWS)
COLUMNS = {"id": np.arange(ROWS), "x": X, "sick": np.arange(ROWS) % 3 == 0}


@attrs.frozen
class Under:
    """Has all requests be one of a run of a study."""

    step: bytes

    def place(self, request):
        return attrs.evolve(request, study=self.step)


async def test_a_model_of_a_study_is_made_from_what_it_was_made_from(attacked):
    """A model of her own rows, by name; once all have signed, another one lies under the name."""
    hospital, ann = attacked.hospital, attacked.ann
    fits = Allow(computations=["models"])
    await hospital.upload(COLUMNS, name="patients", key="id", owner="hospital", allow=fits)
    await ann.upload(COLUMNS, name="mine", key="id", owner="ann")
    fit = LogisticRegression(max_iter=2, check=False).fit
    await (await fit(await ann.table("mine"), "sick")).save("risk")
    table, model = {"$table": "patients"}, {"$model": "risk"}
    requests = (
        Asked("describe", {"table": table, "columns": ["x"], "statistics": ["mean"], "to": "analyst"}),
        Asked("reveal_model", {"self": model, "to": "analyst"}),
    )
    study = Study.of(requests, purpose="means", analyst="ann", uses=2, until=int(time.time()) + 3600)
    await ann.desk.studies.propose(study)
    shown = await hospital.desk.studies.show(study.number)
    assert "it reads model risk, made from mine" in shown.page
    await hospital.desk.studies.approve(shown)
    run = await ann.desk.studies.begin(study)
    ann.requests = Under(study_step(run, 2))
    assert (await (await ann.model("risk")).reveal()).coef_.shape == (1, 1)
    ann.requests = None
    begun = await ann.desk.studies.begin(study)
    theirs = await fit(await ann.table("patients"), "sick")
    await ann.desk.forget("model", "risk")
    await theirs.save("risk")
    why = r"model 'risk' was made from mine .* and is made from patients now"
    for run in (run, begun):  # noqa: B020
        ann.requests = Under(study_step(run, 2))
        with pytest.raises(TercetError, match=why):
            await (await ann.model("risk")).reveal()
    for later in (ann.desk.studies.begin, ann.desk.studies.propose):
        with pytest.raises(TercetError, match=why):
            await later(study)


def numbers(attacked, handle, kind, victim):
    """A plan that reveals some numbers of ann's, and a total of the hospital's."""
    b = attacked.builder("my numbers, and a total")
    b.input(handle, kind).reveal("numbers", to="analyst")
    values_of(b, victim).sum().reveal("total", to="analyst")
    return b.plan()


async def test_a_plan_that_waits_reads_what_it_read_when_owners_were_asked(attacked):
    victim = await attacked.victim()
    handle, kind = await attacked.deal([1, 2, 3])
    plan, failed = numbers(attacked, handle, kind, victim), []

    async def ask():
        try:
            await attacked.ask(plan)
        except TercetError as error:
            failed.append(str(error))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            (waiting,) = await attacked.waiting()
            await attacked.ann.cluster.client.drop([handle])
            await attacked.deal([4, 5, 6], handle)
            await attacked.hospital.approve(waiting.number)
    assert "values have changed while the plan waited" in failed[0]


async def test_what_was_approved_and_has_failed_is_not_run_on_other_values(attacked, monkeypatch):
    """Nodes alone make further attempts, of what they have read before; a member has to ask anew."""
    victim = await attacked.victim()
    handle, kind = await attacked.deal([1, 2, 3])
    plan, run = numbers(attacked, handle, kind, victim), bytes(range(16))
    BY_HAND.add(plan)
    client = attacked.ann.cluster.client

    async def full(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        for node in attacked.nodes:
            broken.setattr(node.gate, "after_run", full)
        async with attacked.signing():
            with pytest.raises(TercetError, match="disk is full"):
                await client.run(plan, session=run)
    await client.drop([handle])
    await attacked.deal([4, 5, 6], handle)
    with pytest.raises(TercetError, match=r"names are random, and used once|names are used once"):
        await client.run(plan, session=run)


async def test_a_long_study_keeps_no_node_from_others(attacked, monkeypatch):
    """What takes as long as a study is long is done in threads, and not again for whoever lists studies."""
    await attacked.hospital.upload(COLUMNS, name="patients", key="id", owner="hospital")
    where, calls = threading.get_ident(), []

    def watched(function):
        def call(*args):
            calls.append(threading.get_ident())
            return function(*args)

        return call

    def proposed(columns):
        arguments = {"table": {"$table": "patients"}, "columns": ["x"] * columns, "to": "analyst"}
        asked = [Asked("describe", {**arguments, "statistics": ["mean"]})] * 40
        return Study.of(asked, purpose="means", analyst="ann", uses=2, until=int(time.time()) + 3600)

    study = proposed(8)
    with pytest.raises(ConsentError, match="at most 16,384 values in the arguments"):
        proposed(500)
    monkeypatch.setattr(studies, "page", watched(studies.page))
    monkeypatch.setattr(Studies, "_verdicts", watched(Studies._verdicts))
    assert (await attacked.ann.desk.studies.propose(study)).missing == ("hospital",)
    assert len(calls) >= 3 * len(attacked.nodes)
    assert where not in calls
    calls.clear()
    for _ in range(3):
        assert len(await attacked.hospital.desk.studies.listed()) == 1
    assert calls == []


async def test_what_is_signed_is_what_was_shown(attacked):
    """While an owner reads, another plan comes to wait under the number, which its author chooses."""
    victim = await attacked.victim()
    client, number = attacked.ann.cluster.client, "abcdef01"
    handle, kind = await attacked.deal([1, 2, 3])

    def under(plan, last):
        BY_HAND.add(plan)
        return functools.partial(client.run, plan, session=bytes.fromhex(number) + bytes(11) + bytes([last]))

    b = attacked.builder("my own numbers")
    (b.input(handle, kind) + values_of(b, victim).sum().reshape(1) * 0).sum().reveal("sum", to="analyst")
    async with trio.open_nursery() as first:
        first.start_soon(under(b.plan(), 1))
        (waiting,) = await attacked.waiting()
        assert waiting.number == number
        shown, _ = await attacked.hospital.show(number)
        first.cancel_scope.cancel()
    with trio.fail_after(60):
        while await attacked.hospital.plans():  # noqa: ASYNC110 - nodes tell when asked
            await trio.sleep(0.02)
    async with trio.open_nursery() as second:
        second.start_soon(under(numbers(attacked, handle, kind, victim), 2))
        await attacked.waiting()
        with pytest.raises(ConsentError, match=r"no plans that wait|another one than was"):
            await attacked.hospital.approve(shown)
        other, _ = await attacked.hospital.show(number)
        with pytest.raises(ConsentError, match="another one than was shown before"):
            await attacked.hospital.approve(attrs.evolve(other, digest=shown.digest))
        assert len(await attacked.waiting()) == 1
        second.cancel_scope.cancel()


@pytest.mark.parametrize(
    "text", ["a sum\nit reveals nothing", "a sum\x1b[8m", "mus a\u202e", "a sum" + " " * 600 + "of all"]
)
async def test_nobody_hides_what_a_plan_is_called_or_reveals(attacked, text):
    victim = await attacked.victim()
    for name, told in ((text, "sum"), ("a sum", text)):
        b = attacked.builder(name)
        values_of(b, victim).sum().reveal(told, to="analyst")
        assert "which people read before they sign" in await attacked.why_not(b.plan())
    assert "\x1b" not in one_line(text)
    assert "\n" not in one_line(text)
    assert len(one_line(text)) <= 512
