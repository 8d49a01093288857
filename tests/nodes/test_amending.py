"""A lake that changes while it runs: members come and go, keys are renewed, nodes move; and who may not."""

from __future__ import annotations

import contextlib
import datetime as dt
from functools import partial

import attrs
import numpy as np
import pytest
import trio
from typer.testing import CliRunner

from tercet import Allow
from tercet.cli import app
from tercet.client import node_checks
from tercet.client.lake import open_lake
from tercet.client.node_checks import ask_node, check_nodes, fetch_amendment, give_amendment
from tercet.client.reach import who_am_i
from tercet.errors import ConfigError, ConsentError, PeerLost, PlanError, TransportError
from tercet.members import succession
from tercet.members.approvals import Approval
from tercet.members.audit_lines import parse
from tercet.members.config import ClusterFile
from tercet.members.succession import current, draft, next_path, sign
from tercet.ml import LogisticRegression
from tercet.nodes.program import Settings
from tercet.nodes.roster import note_start
from tercet.nodes.setup import keys_of_node, make_member, renew_key
from tercet.nodes.vault import Vault
from tests.attacks.lake import TIMEOUT_S
from tests.nodes import test_studies as studies

AGES = {"id": np.arange(100), "age": np.linspace(20, 80, 100)}


def following(made, *parts, nodes=(0, 1), at=None, **options):
    """What follows the list of a lake, signed by nodes."""
    before = current(made.cluster)
    read = [ClusterFile.read_part(part) for part in parts]
    after = draft(before, read, takes_effect=at or dt.datetime.now(dt.UTC), **options)
    for index in nodes:
        after = sign(before, after, keys_of_node(made.root / f"n{index}" / "node.key", before))
    return after


async def give(made, after, who="olga"):
    """An operator gives it to all nodes, and has it beside her own; what the nodes say."""
    before = current(made.cluster)
    packed = after.to_text().encode()
    keys = who_am_i(before, made.key(who), made.cluster)
    found = await give_amendment(before, keys.identity, packed)
    if all(one.good for one in found):
        succession.place(made.cluster, packed)
    return found


async def adopted(lake, after):
    """All nodes go by a list, and are linked up."""
    with trio.fail_after(TIMEOUT_S):
        while not all(goes_by(node, after) for node in lake.nodes):  # noqa: ASYNC110
            await trio.sleep(0.02)


def goes_by(node, after):
    return node.gate.roster.cluster.number >= after.number and not node.party.missing()


async def amend(lake, *parts, **options):
    after = following(lake.made, *parts, **options)
    told = await give(lake.made, after)
    assert all(one.good for one in told), told
    await adopted(lake, after)
    return after


def events(node, *names):
    return [line for line in map(parse, node.gate.audit.lines(0)) if line["event"] in names]


async def test_members_come_and_go_while_a_plan_waits_and_runs(in_process, tmp_path):
    lake, before = in_process, current(in_process.made.cluster)
    table = await lake.victim(plans="approved", min_count=2)
    await lake.insurer.upload(AGES, name="costs", key="id", owner="insurer", allow=Allow(plans="any"))
    make_member("zoe", ["analyst"], tmp_path)
    found = []

    async def ask():
        found.append(await table.describe())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await lake.waiting()
        after = await amend(lake, tmp_path / "zoe.public.toml", removed=["insurer"])
        assert [one.number for one in await lake.hospital.plans()] == [waiting.number]
        await lake.hospital.approve(waiting.number)
    assert "age" in str(found[0])
    async with open_lake(lake.made.cluster, identity=tmp_path / "zoe.key", timeout_s=TIMEOUT_S) as zoe:
        assert {one.name for one in await zoe.entries()} == {"ages", "costs"}
    with pytest.raises((ConfigError, ConsentError, PeerLost), match=r"no member|lists no member"):
        await lake.insurer.entries()
    with pytest.raises(ConsentError, match="table 'costs' is insurer's, who is no member any more"):
        await (await lake.ann.table("costs")).describe()
    for node in lake.nodes:
        given, gone_over = events(node, "amendment", "amended")
        assert given["signers"] == ["n0", "n1"]
        assert gone_over["file"] == after.number == 2
        assert "insurer is removed, for good" in gone_over["changes"]
    # Who was removed gets in nowhere, whatever she writes into her file.
    (insurer,) = (one for one in before.members if one.name == "insurer")
    forged = tmp_path / "forged.toml"
    attrs.evolve(after, members=(*after.members, insurer), removed=()).write(forged)
    with pytest.raises(TransportError, match="not pinned"):
        async with open_lake(forged, identity=lake.made.key("insurer")):
            pass


async def test_renewed_keys(in_process, monkeypatch):
    lake, root = in_process, in_process.made.root
    table = await lake.victim(plans="approved", min_count=2)
    before = current(lake.made.cluster)
    parts = [renew_key(root / name, before) for name in ("n1/node.key", "ann.key", "hospital.key")]
    found = []

    async def ask():
        found.append(await table.describe())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (waiting,) = await lake.waiting()
        # One node lacks the approval, so the plan waits there while the other two have it in their journals.
        plan = (await lake.hospital.show(waiting.number))[1]
        desk = lake.hospital.cluster.desk
        approval = Approval.make(desk.cluster.lake, waiting.session, plan.digest(), desk.keys)
        for node in lake.nodes[:2]:
            await node.gate._approve("hospital", attrs.asdict(approval))
        after = await amend(lake, *parts)
        client = lake.hospital.cluster.client
        with trio.fail_after(TIMEOUT_S):
            while len(client.lost) < 3:  # noqa: ASYNC110 - each node ends its own link
                await trio.sleep(0.02)
        for node in client._nodes:
            assert "goes by another certificate of hospital from now on; ask again" in str(node.error())
        assert [one.missing for one in await lake.waiting()] == [("hospital",)]
        with pytest.raises(ConsentError, match="not signed with the key of hospital"):
            await lake.nodes[2].gate._approve("hospital", attrs.asdict(approval))
        await lake.hospital.approve(waiting.number)
    assert "age" in str(found[0])
    assert lake.nodes[1].transport._identity.certificate_pem == after.nodes[1].certificate
    assert [len(events(node, "renewed")) for node in lake.nodes] == [0, 1, 0]
    async with open_lake(lake.made.cluster, identity=lake.made.key("aud"), timeout_s=TIMEOUT_S) as auditor:
        logs = await auditor.audit()
        assert {len(lines) == head.lines for head, lines in logs.values()} == {True}
        heads = {name: head for name, (head, _) in logs.items()}
        again = await auditor.audit(heads, again=True, by_hash=True)
        assert {name: lines[: heads[name].lines] for name, (_, lines) in again.items()} == {
            name: lines for name, (_, lines) in logs.items()
        }
    olga = who_am_i(after, lake.made.key("olga"), lake.made.cluster).identity
    findings = await check_nodes(after, olga)
    assert all(one.good for one in findings), findings
    monkeypatch.setattr(node_checks, "LITTLE_DISK", 1 << 80)
    told = [one.what for one in await check_nodes(after, olga) if not one.good]
    for place in ("audit log", "storage", "catalog"):
        assert sum(one.startswith(f"the disk of its {place} has") for one in told) == 3


async def test_a_study_outlives_a_key_and_not_its_owners(in_process):
    lake, root = in_process, in_process.made.root
    await lake.hospital.upload(studies.AGES, name="ages", key="id", owner="hospital")
    await lake.insurer.upload(studies.COSTS, name="costs", key="id", owner="insurer")
    study = await studies.signed(lake, studies.made(uses=9))
    ann = lake.ann.cluster.desk.studies
    await amend(lake, renew_key(root / "hospital.key", current(lake.made.cluster)))
    await ann.begin(study)
    await amend(lake, revoked=["hospital"])
    with pytest.raises(ConsentError, match="waits for hospital"):
        await ann.begin(study)
    with contextlib.suppress(PeerLost):
        await lake.hospital.plans()  # the link of before
    hospital = lake.hospital.cluster.desk.studies
    await hospital.approve(await hospital.show(study.number))
    await ann.begin(study)
    await amend(lake, removed=["insurer"])
    with pytest.raises(ConsentError, match="reads tables of insurer, no member of the lake any more"):
        await ann.begin(study)


async def test_a_fit_goes_on_when_a_key_is_renewed(in_process):
    lake, rng = in_process, np.random.default_rng(5)
    lake.ann.checkpoint_every = 3
    x = rng.normal(size=100)
    data = {"id": np.arange(100), "x": x, "sick": (x + rng.normal(size=100) > 0).astype(int)}
    table = await lake.ann.upload(data, name="mine", key="id", owner="ann")
    options = {"solver": "gd", "max_iter": 10, "learning_rate": 0.5}
    whole = await LogisticRegression(**options).fit(table, target="sick")
    results, lake.ann.on_result = [], lambda _, result: results.append(result)
    gate, held = lake.nodes[0].gate, trio.Event()
    reached = gate.reached

    async def hold(*args):
        await reached(*args)
        if not held.is_set():
            held.set()
            lake.nodes[0].party._peers[2].line.send = never  # no further until that link is made anew

    async def never(*_):
        await trio.sleep_forever()

    gate.reached = hold
    model = LogisticRegression(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(model.fit, table, target="sick"))
        await held.wait()
        await amend(lake, renew_key(lake.made.root / "n2" / "node.key", current(lake.made.cluster)))
    assert results[0].interrupted >= 1
    expected, found = [(await one.reveal()).coef_ for one in (whole, model)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


async def test_who_may_not(in_process, tmp_path):
    lake, made = in_process, in_process.made
    make_member("mallory", ["operator"], tmp_path)
    part = tmp_path / "mallory.public.toml"
    alone = following(made, part, nodes=(2,))
    for one in await give(made, alone):
        assert not one.good
        assert "takes those of 2 of 3" in one.what
    good = following(made, part, at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    for one in await give(made, good, who="ann"):
        assert "takes the role operator" in one.what
    for packed in (b"", b"\xff", b"format = 1", b"x = " + b"[" * 5000, b"#" * (1 << 21)):
        with pytest.raises(PlanError):
            await lake.nodes[0].gate.answer("olga", "amend", [packed])
    renewed = renew_key(made.root / "n0" / "node.key", current(made.cluster))
    taken = following(made, renewed)
    (made.root / "n0" / "node.key").rename(tmp_path / "stolen")
    with pytest.raises(PlanError, match=r"node\.key cannot be read"):
        await lake.nodes[0].gate.answer("olga", "amend", [taken.to_text().encode()])
    assert not any(next_path(made.root / f"n{index}" / "cluster.toml").exists() for index in range(3))
    assert {node.gate.roster.cluster.number for node in lake.nodes} == {1}


async def test_a_node_whose_new_key_is_away_tries_again(in_process, tmp_path, caplog):
    lake, made = in_process, in_process.made
    key = made.root / "n0" / "node.key"
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    after = following(made, renew_key(key, current(made.cluster)), at=at)
    told = await give(made, after)
    assert all(one.good for one in told), told
    key.rename(tmp_path / "away")
    with trio.fail_after(TIMEOUT_S):
        while "node.key cannot be read" not in caplog.text:  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert lake.nodes[0].gate.roster.cluster.number == 1
    (tmp_path / "away").rename(key)
    await adopted(lake, after)
    assert caplog.text.count("node.key cannot be read") == 1


async def test_a_moved_node_and_what_waits(in_process):
    lake, made = in_process, in_process.made
    before = current(made.cluster)
    async with trio.open_nursery() as nursery:
        address, moved = await moved_to(before.nodes[0].address, nursery)
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3)
        after = following(made, at=at, addresses={"n0": address})
        told = await give(made, after)
        assert all(one.good for one in told), told
        aud = who_am_i(before, made.key("aud"), made.cluster).identity
        assert ClusterFile.parse(await fetch_amendment(before, aud), "it") == after
        assert (await ask_node(before, aud, 1, "status"))[2]["coming"][0] == 2
        assert {node.gate.roster.cluster.number for node in lake.nodes} == {1}
        other = following(made, at=at + dt.timedelta(hours=1))
        with pytest.raises(PlanError, match="another number 2 waits already"):
            await lake.nodes[0].gate.answer("olga", "amend", [other.to_text().encode()])
        await adopted(lake, after)
        with pytest.raises(TransportError, match=r"goes by number 2 .* this end by number 1: get the newer"):
            await ask_node(before, aud, 1, "status")
        lake.nodes[1].party.hang_up(0)
        await moved.wait()
        await adopted(lake, after)
        assert "age" in str(await (await lake.victim()).describe())
        nursery.cancel_scope.cancel()


async def moved_to(address, nursery):
    """Another address at which a node answers, and an event when it was asked there."""
    host, port = address.split(":")
    asked = trio.Event()

    async def pass_on(source, to):
        async for data in source:
            await to.send_all(data)
        await to.send_eof()

    async def answer(stream):
        asked.set()
        async with await trio.open_tcp_stream(host, int(port)) as node, trio.open_nursery() as both:
            both.start_soon(pass_on, stream, node)
            both.start_soon(pass_on, node, stream)

    (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    return f"127.0.0.1:{listener.socket.getsockname()[1]}", asked


def test_no_node_starts_on_an_earlier_list(nodes_at_rest):
    made, home = nodes_at_rest, nodes_at_rest.root / "n0"
    settings = Settings.read(home / "node.toml")
    vault = Vault(settings.file)

    def start(cluster):
        note_start(settings.file.cluster, cluster, vault.journal, vault.catalog)

    first = settings.cluster
    start(first)
    other = attrs.evolve(first, members=first.members[1:])
    start(other)  # as long as it keeps nothing
    start(first)
    vault.catalog.labels = lambda: [object()]
    with pytest.raises(ConfigError, match=r"another number 1 than this node has gone by.*`tercet amend`"):
        start(other)
    second = following(made, removed=["insurer"])
    unsigned = attrs.evolve(second, signatures=second.signatures[:1])
    with pytest.raises(ConfigError, match="signatures of 1 nodes"):
        start(unsigned)
    start(second)
    start(second)
    fourth = two_more(made, settings.file.cluster, second)
    start(fourth)
    start(fourth)
    with pytest.raises(ConfigError, match=r"is number 1 of the lake's, and this node has gone by number 4"):
        start(first)


def two_more(made, path, second):
    """The second file that follows one, where a node has both and has gone by neither."""
    succession.place(path, second.to_text().encode())
    succession.place(made.cluster, second.to_text().encode())
    for _ in range(2):
        after = following(made)
        succession.place(path, after.to_text().encode())
        succession.place(made.cluster, after.to_text().encode())
    return current(path)


async def test_a_node_that_missed_a_list(in_process):
    lake, made = in_process, in_process.made
    paths = [made.root / f"n{index}" / "cluster.toml" for index in range(3)]
    second = following(made, removed=["insurer"])
    for path in (*paths, made.cluster):
        succession.place(path, second.to_text().encode())
        assert current(path) == second
    third = following(made, revoked=["ann"])
    for path in paths:
        succession.place(path, third.to_text().encode())
        assert current(path) == third
    for node in lake.nodes:
        node.gate.roster.changed.set()
    await adopted(lake, third)
    for node in lake.nodes:
        assert [line["file"] for line in events(node, "amended")] == [2, 3]


def test_the_commands(nodes_at_rest, monkeypatch):
    monkeypatch.chdir(nodes_at_rest.root)
    root = nodes_at_rest.root

    def command(*args, code=0):
        done = CliRunner().invoke(app, [*map(str, args)])
        assert done.exit_code == code, done.output
        return done.output

    for days in ("1e9", "inf"):
        assert "a certificate cannot be valid for" in command("renew", "ann.key", "--days", days, code=1)
    early = command("amend", "early.toml", "--at", "9999-12-31T23:59:59-12:00", code=1)
    assert "is beyond the calendar" in early
    told = command("renew", "n1/node.toml")
    assert "tercet amend next.toml" in told
    assert "n1/public.toml" in told
    command("renew", "ann.key")
    parts = ("n1/public.toml", "ann.public.toml")
    told = command("amend", "next.toml", *parts, "--remove", "insurer", "--move", "n2=h:7000", "--at", "now")
    assert "number 2 of this lake's cluster.toml takes effect on" in told
    for what in (
        "insurer is removed",
        "n2 moves from",
        "ann has a new key",
        "n1 has a new key",
    ):
        assert what in told
    assert "signed by nobody, of 2 that it takes" in told
    assert "signatures of 0 nodes" in command("adopt", "next.toml", code=1)
    assert "only sign it" in command("amend", "next.toml", "--remove", "ann", code=1)
    command("amend", "next.toml", "--sign", "n1/node.key", "--yes")
    assert "only nodes sign" in command("amend", "next.toml", "--sign", "olga.key", "--yes", code=1)
    assert "adopt next.toml" in command("amend", "next.toml", "--sign", "n2/node.key", "--yes")
    assert "number 2 of" in command("adopt", "next.toml", "--node", "n1/node.toml")
    settings = Settings.read(root / "n1" / "node.toml")
    assert settings.cluster.number == 2
    assert settings.identity.certificate_pem == settings.cluster.nodes[1].certificate
    assert len(settings.certificates) == 2
    assert Settings.read(root / "n0" / "node.toml").cluster.number == 1
    Vault(settings.file)
    before = settings.file.storage_key.read_text()
    assert "back it up" in command("renew", "n1/node.toml", "--storage-key")
    assert settings.file.storage_key.read_text() != before
    Vault(settings.file)
    assert "only nodes have a storage key" in command("renew", "ann.key", "--storage-key", code=1)
