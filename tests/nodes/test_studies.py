"""Studies at nodes: who may propose, sign, refuse and run which, how often, and what is let through."""

from __future__ import annotations

import datetime as dt
import functools
import secrets
import subprocess
import sys
import time

import attrs
import numpy as np
import pytest

from tercet import Allow
from tercet.client.lake import Sent
from tercet.errors import ConsentError, ProtocolError, TercetError
from tercet.members.studies import Asked, Study, StudyApproval, read_step, study_step
from tercet.nodes import study_runs
from tercet.nodes.study_runs import Studies
from tercet.storage import study_journal

AGES = {"id": np.arange(40), "age": np.linspace(20, 80, 40)}
COSTS = {"id": np.arange(40), "cost": np.linspace(1, 2, 40)}
DAY = 86400
JOIN = Asked("join", {"tables": [{"$table": "ages"}, {"$table": "costs"}], "on": "id"})
DESCRIBE = Asked("describe", {"table": {"$result": [1, []]}, "columns": ["age"], "to": "analyst"})
SENT = Asked("corr", {"table": {"$result": [1, []]}, "columns": None, "to": "insurer"})


def made(*requests, **changes):
    fields = {
        "purpose": "costs by age",
        "analyst": "ann",
        "uses": 2,
        "until": int(time.time()) + DAY,
    } | changes
    return Study.of(requests or (JOIN, DESCRIBE, SENT), **fields)


@pytest.fixture
async def lake(in_process):
    """The lake with a table of the hospital and one of the insurer, both of whom want to be asked."""
    await in_process.hospital.upload(AGES, name="ages", key="id", owner="hospital")
    await in_process.insurer.upload(COSTS, name="costs", key="id", owner="insurer")
    return in_process


def desks(lake):
    return [one.cluster.desk.studies for one in (lake.ann, lake.hospital, lake.insurer)]


def at_nodes(lake):
    return [node.gate.studies for node in lake.nodes]


async def signed(lake, study):
    """The study, proposed and signed by both owners."""
    ann, hospital, insurer = desks(lake)
    await ann.propose(study)
    for owner in (hospital, insurer):
        await owner.approve(await owner.show(study.number))
    return study


async def test_propose_show_approve_run(lake):
    ann, hospital, insurer = desks(lake)
    study = made()
    known = await ann.propose(study)
    assert (known.number, known.missing, known.uses, known.runs) == (
        study.number,
        ("hospital", "insurer"),
        2,
        0,
    )
    assert await ann.propose(study) == known
    with pytest.raises(ConsentError, match="waits for hospital, insurer, who can `tercet approve"):
        await ann.begin(study)
    shown = await hospital.show(study.number[:6])
    assert shown.study == study
    assert "it reads table ages, hospital's" in shown.page
    assert "for the purpose, in the analyst's words: 'costs by age'" in shown.page
    await hospital.approve(shown)
    await insurer.approve(await insurer.show(study.number), uses=1)
    (known,) = await ann.listed()
    assert (known.missing, known.approved, known.uses) == ((), ("hospital", "insurer"), 1)
    run = await ann.begin(study)
    with pytest.raises(ConsentError, match=r"has been run 1 times of 1; propose one with more uses"):
        await ann.begin(study)
    ids = [secrets.token_bytes(16) for _ in range(3)]
    requests = [
        JOIN,
        attrs.evolve(DESCRIBE, arguments={**DESCRIBE.arguments, "table": {"$result": [ids[0].hex(), []]}}),
        attrs.evolve(SENT, arguments={**SENT.arguments, "table": {"$result": [ids[0].hex(), []]}}),
    ]
    for at in at_nodes(lake):
        for position, (request, name) in enumerate(zip(requests, ids, strict=True), 1):
            for _ in range(2):  # as the steps of a computation are
                found = await at.admit("ann", run, position, request, name)
                assert found == study_runs.Admitted(study, position, frozenset({"hospital", "insurer"}))
        with pytest.raises(
            ConsentError, match=r"request 2, describe, was made in this run of study .* before"
        ):
            await at.admit("ann", run, 2, requests[1], secrets.token_bytes(16))
        changed = attrs.evolve(requests[1], arguments={**requests[1].arguments, "to": "insurer"})
        with pytest.raises(
            ConsentError, match="request 2, describe: to was recorded as 'analyst', and is 'ins"
        ):
            await at.admit("ann", run, 2, changed, ids[1])
        with pytest.raises(ConsentError, match="hospital has begun no such run"):
            await at.admit("hospital", run, 1, JOIN, ids[0])
        with pytest.raises(ConsentError, match="no such run"):
            await at.admit("ann", secrets.token_bytes(16), 1, JOIN, ids[0])
    await ann.end(run)
    with pytest.raises(ConsentError, match="has ended"):
        await at_nodes(lake)[0].admit("ann", run, 1, JOIN, ids[0])


async def test_results_are_those_of_the_same_run(lake):
    study = await signed(lake, made())
    (ann, *_), at = desks(lake), at_nodes(lake)[1]
    first, second = await ann.begin(study), await ann.begin(study)
    mine, theirs = secrets.token_bytes(16), secrets.token_bytes(16)
    await at.admit("ann", first, 1, JOIN, mine)
    await at.admit("ann", second, 1, JOIN, theirs)
    other = attrs.evolve(DESCRIBE, arguments={**DESCRIBE.arguments, "table": {"$result": [theirs.hex(), []]}})
    with pytest.raises(ConsentError, match="result of request 1, and is result of another run"):
        await at.admit("ann", first, 2, other, secrets.token_bytes(16))


async def test_studies_last_over_restarts(lake):
    study = await signed(lake, made(uses=1))
    run = await desks(lake)[0].begin(study)
    for node in lake.nodes:
        gate = node.gate
        again = Studies(gate.vault, gate.roster, gate.audit)
        with pytest.raises(ConsentError, match="has been run 1 times of 1"):
            await again.begin("ann", study.digest(), secrets.token_bytes(16))
        await again.begin("ann", study.digest(), run)
        await again.admit("ann", run, 1, JOIN, b"a" * 16)


async def test_one_node_that_counts_suffices(lake):
    """Nodes that were put back as they were before a run have forgotten that it was one."""
    study = await signed(lake, made(uses=1))
    await desks(lake)[0].begin(study)
    for node in lake.nodes[:2]:
        with node.gate.vault.catalog.begin() as connection:
            connection.execute(study_journal.RUNS.delete())
    with pytest.raises(ConsentError, match="has been run 1 times of 1"):
        await desks(lake)[0].begin(study)


async def test_an_owner_refuses_also_a_study_that_runs(lake):
    study = await signed(lake, made())
    ann, hospital, _ = desks(lake)
    run = await ann.begin(study)
    await hospital.refuse(study.number, "ask the board\nfirst")
    why = f"hospital has refused study {study.number}: ask the board"
    for refused in (
        lambda: ann.begin(study),
        lambda: ann.propose(study),
        lambda: at_nodes(lake)[2].admit("ann", run, 1, JOIN, b"a" * 16),
    ):
        with pytest.raises(ConsentError, match=why):
            await refused()
    with pytest.raises(ConsentError, match=why):
        await hospital.approve(await hospital.show(study.number))
    assert (await ann.listed())[0].refusal.startswith(why)
    other = made(purpose="another")
    await ann.propose(other)
    await ann.refuse(other.number, "")
    with pytest.raises(ConsentError, match=r"ann has withdrawn study .*: no reason was given"):
        await ann.begin(other)


async def test_only_owners_of_the_named_tables_are_asked(lake):
    ann, hospital, insurer = desks(lake)
    study = made(Asked("describe", {"table": {"$table": "ages"}, "columns": ["age"]}))
    assert (await ann.propose(study)).missing == ("hospital",)
    with pytest.raises(ConsentError, match="insurer is not asked to approve study"):
        await insurer.approve(await insurer.show(study.number))
    with pytest.raises(ConsentError, match="insurer is not asked about study"):
        await insurer.refuse(study.number, "")
    await hospital.approve(await hospital.show(study.number))
    await ann.begin(study)
    with pytest.raises(ConsentError, match="is ann's, not insurer's"):
        await insurer.begin(study)


async def test_who_lets_use_a_table_freely_is_not_asked(lake):
    free = Allow(plans="any")
    await lake.insurer.upload(COSTS, name="free", key="id", owner="insurer", allow=free)
    await lake.ann.upload(COSTS, name="own", key="id", owner="ann")
    study = made(Asked("join", {"tables": [{"$table": "free"}, {"$table": "own"}], "on": "id"}))
    ann, *_ = desks(lake)
    assert (await ann.propose(study)).missing == ()
    await ann.begin(study)


async def test_a_table_that_comes_to_be_another_owners_needs_that_owner(lake):
    study = await signed(lake, made())
    ann, *_ = desks(lake)
    await lake.insurer.upload(COSTS, name="costs", key="id", owner="insurer", min_count=3)  # replaced
    await ann.begin(study)
    await lake.insurer.drop("costs")
    with pytest.raises(ConsentError, match="waits for the owner of a table that is gone"):
        await ann.begin(study)
    await lake.hospital.upload(COSTS, name="costs", key="id", owner="hospital")
    assert (await ann.listed())[0].missing == ()
    await ann.begin(study)
    with pytest.raises(ConsentError, match="has been run 2 times of 2"):
        await ann.begin(study)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"analyst": "eve"}, "the study is eve's, and ann proposes it"),
        ({"until": int(time.time()) - 9}, "let it end after today"),
        ({"until": int(time.time()) + 800 * DAY}, "within two years"),
        ({"requests": [Asked("guess", {"table": {"$table": "ages"}})]}, "no computation 'guess'"),
        (
            {"requests": [Asked("corr", {"table": {"$table": "ages"}, "to": "eve"})]},
            "'eve', who is no member",
        ),
        ({"requests": [Asked("corr", {"table": {"$table": "age"}})]}, "reads table 'age', and there is none"),
        (
            {"requests": [Asked("predict", {"m": {"$model": "risk"}})]},
            "reads model 'risk', and there is none",
        ),
        (
            {"requests": [Asked("reveal_rows", {"self": {"$table": "ages"}, "names": ["age"]})]},
            "hospital does not let single rows of table 'ages' be revealed",
        ),
    ],
)
async def test_what_cannot_run_is_not_proposed(lake, change, why):
    ann, *_ = desks(lake)
    requests = change.pop("requests", [JOIN])
    with pytest.raises(ConsentError, match=why):
        await ann.propose(made(*requests, **change))
    assert await ann.listed() == []


async def test_readers_only(lake):
    only = Allow(readers=("insurer",))
    await lake.hospital.upload(AGES, name="few", key="id", owner="hospital", allow=only)
    with pytest.raises(ConsentError, match="hospital does not let ann use table 'few'"):
        await desks(lake)[0].propose(made(Asked("corr", {"table": {"$table": "few"}})))


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"receivers": ("ann",)}, "lets results of table 'few' go to ann, hospital only"),
        ({"columns": ("weight",)}, "lets only 'weight' of table 'few' be used, and 'describe' uses 'age'"),
        ({"until": dt.date(2020, 1, 31)}, "let table 'few' be used until .*, and that is over"),
    ],
)
async def test_what_rules_forbid_is_not_proposed(lake, rules, why):
    data = {**AGES, "weight": AGES["age"] + 1}
    await lake.hospital.upload(data, name="few", key="id", owner="hospital", allow=Allow(**rules))
    asked = Asked("describe", {"table": {"$table": "few"}, "columns": ["age"], "to": "insurer"})
    with pytest.raises(ConsentError, match=f"hospital {why}"):
        await desks(lake)[0].propose(made(asked))
    keys = Asked("join", {"tables": [{"$table": "few"}, {"$table": "costs"}], "on": "id"})
    if "until" not in rules:
        await desks(lake)[0].propose(made(keys))


async def test_who_frees_computations_is_asked_about_others_only(lake):
    free = Allow(computations=("statistics", "tables"))
    await lake.hospital.upload(AGES, name="free", key="id", owner="hospital", allow=free)
    describe = Asked("describe", {"table": {"$table": "free"}, "columns": ["age"], "to": "analyst"})
    fit = Asked("fit", {"table": {"$table": "free"}, "target": "age"})
    ann, *_ = desks(lake)
    assert (await ann.propose(made(describe))).missing == ()
    assert (await ann.propose(made(describe, fit))).missing == ("hospital",)


async def test_quotas_and_forgetting(lake, monkeypatch):
    monkeypatch.setattr(study_runs, "MOST_STUDIES", 2)
    ann, *_ = desks(lake)
    first, second, third = (made(purpose=f"purpose {number}") for number in range(3))
    await ann.propose(first)
    await ann.propose(second)
    with pytest.raises(ConsentError, match="ann has 2 studies at this node already"):
        await ann.propose(third)
    for at in at_nodes(lake):
        monkeypatch.setattr(time, "time", lambda: first.until + 1.0)
        await at.sweep()
        monkeypatch.undo()
    assert await ann.listed() == []


async def test_lists_come_in_pages(lake):
    ann, *_ = desks(lake)
    many = [made(purpose=f"purpose {number}") for number in range(2 * study_runs.PAGE_STUDIES + 1)]
    for study in many:
        await ann.propose(study)
    assert [one.digest for one in await ann.listed()] == [one.digest() for one in many]
    told = await ann.client.ask("studies")
    assert all(len(one["studies"]) == study_runs.PAGE_STUDIES and one["more"] for one in told)
    for mark in ([], [1.0], [1, b""], ["a", b""], [1.0, b"", b""], b"", 1):
        with pytest.raises(ProtocolError, match="not where a page of"):
            await ann.client.ask("studies", [mark])


async def test_owners_of_a_model_are_asked_for_its_metrics_on_other_rows(lake):
    free = Allow(computations=("statistics", "tables", "fit"))
    await lake.hospital.upload(AGES, name="free", key="id", owner="hospital", allow=free)
    await lake.ann.upload(AGES, name="own", key="id", owner="ann", allow=free)
    fit = Asked("fit", {"table": {"$table": "free"}, "target": "age"})
    ann, *_ = desks(lake)
    for table, missing in (("free", ()), ("own", ("hospital",))):
        model = {"$result": [1, []]}
        asked = fit, Asked("score", {"self": model, "table": {"$table": table}, "to": "analyst"})
        assert (await ann.propose(made(*asked))).missing == missing


async def test_forged_and_malformed_approvals(lake):
    study = made()
    ann, hospital, _ = desks(lake)
    await ann.propose(study)
    keys, digest = hospital.keys, hospital.cluster.digest()
    good = attrs.asdict(StudyApproval.make(digest, study, keys))
    wrong = [
        ({**good, "signature": b"s" * 64}, "not signed with the key of hospital"),
        ({**good, "uses": 1}, "not signed"),
        ({**good, "approver": "insurer"}, "hospital is not asked"),
        ({**good, "digest": b"x" * 32}, "there is no study"),
        (attrs.asdict(StudyApproval.make(b"l" * 32, study, keys)), "not signed"),
        (attrs.asdict(StudyApproval.make(digest, study, keys, expires=9)), "has expired"),
    ]
    for fields, why in wrong:
        with pytest.raises(ConsentError, match=why):
            await hospital.client.ask("approve-study", [fields])
    for fields in ({**good, "uses": 1.5}, {**good, "more": 1}, {}, {**good, "expires": "9"}):
        with pytest.raises(TercetError, match="malformed"):
            await hospital.client.ask("approve-study", [fields])
    assert (await ann.listed())[0].missing == ("hospital", "insurer")


async def test_nodes_that_show_different_things_are_not_believed(lake, monkeypatch):
    study = made()
    ann, hospital, _ = desks(lake)
    await ann.propose(study)

    async def another_page(digest):
        return {**await honest(digest), "page": ["nothing comes out"]}

    async def another_study(digest):
        return {**await honest(digest), "packed": made(uses=9).to_bytes()}

    async def another_purpose(digest):
        return {**await honest(digest), "purpose": "nothing to worry about"}

    async def another_analyst(digest):
        return {**await honest(digest), "analyst": "hospital"}

    lies = {
        another_page: "say different things",
        another_study: "have different studies",
        another_purpose: "another analyst or purpose",
        another_analyst: "another analyst or purpose",
    }
    for at in at_nodes(lake):  # whichever lies
        honest = at.show
        for lie, why in lies.items():
            monkeypatch.setattr(at, "show", lie)
            with pytest.raises(ConsentError, match=why):
                await hospital.show(study.number)
        monkeypatch.setattr(at, "show", honest)


async def test_a_node_that_lies_does_not_choose_what_a_list_says(lake, monkeypatch):
    study = made()
    ann, hospital, _ = desks(lake)
    await ann.propose(study)
    at = at_nodes(lake)[0]
    honest = at.listed

    async def lie(*mark):
        told = await honest(*mark)
        return {**told, "studies": [{**one, "purpose": "harmless"} for one in told["studies"]]}

    monkeypatch.setattr(at, "listed", lie)
    found = (await hospital.listed())[0]
    assert "different ones" in found.purpose
    assert found.analyst == "ann"


@pytest.mark.parametrize(
    "wrong", [{"until": 1e300}, {"proposed": float("nan")}, {"digest": "ab"}, {"approved": [[1]]}], ids=str
)
async def test_a_list_that_makes_no_sense_is_refused_in_a_sentence(lake, monkeypatch, wrong):
    ann, hospital, _ = desks(lake)
    await ann.propose(made())

    async def lie(at, *mark):
        told = await honest[at](*mark)
        return {**told, "studies": [one | wrong for one in told["studies"]]}

    honest = {at: at.listed for at in at_nodes(lake)}
    for at in honest:
        monkeypatch.setattr(at, "listed", functools.partial(lie, at))
    with pytest.raises(ProtocolError, match="makes no sense"):
        await hospital.listed()


async def notebook(lake):
    ages = await lake.table("ages")
    both = await ages.join(await lake.table("costs"), on="id")
    return await both.describe(["age"], statistics=["mean"]), await both.corr(["age", "cost"], to="insurer")


async def test_from_made_up_rows_to_a_run_in_a_trio_program(lake, tmp_path):
    file = tmp_path / "study.json"
    async with lake.ann.rehearse(rows=50) as made_up:
        with made_up.record(file, purpose="costs by age", days=1) as recording:
            _, sent = await notebook(made_up)
    assert isinstance(sent, Sent)
    known = await lake.ann.propose(file)
    assert await lake.ann.studies() == [known]
    for owner in (lake.hospital, lake.insurer):
        shown = await owner.show_study(known.number)
        for days in (float("nan"), -1.0, 0.0):
            with pytest.raises(ConsentError, match="approved for some days"):
                await owner.approve_study(shown, days=days)
        await owner.approve_study(shown, days=1e300)  # no longer than the study
    async with lake.ann.study(file) as following:
        described, sent = await notebook(lake.ann)
        with pytest.raises(ConsentError, match="request 4"):
            await (await lake.ann.table("ages")).describe(["age"])
    assert following.study == recording.study
    np.testing.assert_allclose(described["age"]["mean"], AGES["age"].mean(), rtol=1e-3)
    assert isinstance(sent, Sent)
    assert len(await lake.insurer.received()) >= 1
    assert lake.ann.requests is None
    with pytest.raises(ConsentError, match="has been run 1 times of 1"):
        async with lake.ann.study(file):
            pass
    await lake.hospital.refuse_study(known.number, "thanks")
    with pytest.raises(ConsentError, match=r"recorded before it is approved, on made-up rows"):
        lake.ann.record(file, purpose="p")
    for node in lake.nodes:
        lines = [one for one in node.gate.audit.lines(0, 256) if '"admitted"' in one]
        assert len(lines) == 3
        assert not any('"waits"' in one for one in node.gate.audit.lines(0, 256))


async def test_everything_is_in_the_audit_log(lake):
    study = await signed(lake, made())
    ann, hospital, _ = desks(lake)
    await ann.begin(study)
    await hospital.refuse(study.number, "enough")
    for node in lake.nodes:
        lines = "\n".join(node.gate.audit.lines(0, 256))
        for event in ("proposed", "approved", "begins", "refused-study"):
            assert f'"event":"{event}"' in lines.replace(" ", "")
        assert study.digest().hex() in lines


def test_what_requests_say_of_their_study():
    run = secrets.token_bytes(16)
    assert read_step(study_step(run, 300)) == (run, 300)
    for packed in (b"", run, run + b"abc"):
        with pytest.raises(ConsentError, match="malformed"):
            read_step(packed)


def test_pages_know_every_computation_that_nodes_know():
    """In an interpreter of its own, as that of a node, where nothing else declares computations."""
    program = (
        "import tercet.nodes.program; from tercet.ml.computations import COMPUTATIONS;"
        "from tercet.members.study_pages import DOES; print(sorted(COMPUTATIONS.keys() ^ DOES.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
