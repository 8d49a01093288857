"""Transcripts: what is recorded adds up, survives a file, replays to the same shares, and is drawn."""

from __future__ import annotations

import pickle
import stat
import xml.etree.ElementTree as ET

import attrs
import msgpack
import numpy as np
import pytest
import trio
from typer.testing import CliRunner

import tercet
from tercet.actors import transcript
from tercet.actors.estimate import explain
from tercet.actors.party import Party
from tercet.actors.replay import replay
from tercet.cli import app
from tercet.comparison import find
from tercet.errors import PlanError, ProtocolError
from tercet.ml import LogisticRegression
from tercet.plans.shards import NODE
from tercet.testing.engines import Tasks

PROTOCOLS = ["replicated", "shamir", "rep4", "additive", "plain"]


def recorded(protocol, parties=None):
    with tercet.local(protocol=protocol) as lake, transcript.recording(parties) as tapes:
        find("join")(lake, 70)
        return tapes, list(lake.phases)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_recording_adds_up_and_every_party_replays(protocol, tmp_path):
    tapes, phases = recorded(protocol)
    ran = [phase for phase in phases if phase.name != "upload"]
    found = transcript.runs(tapes)
    assert [run[0].plan.name for run in found] == [phase.plan for phase in ran]
    for run, phase in zip(found, ran, strict=True):
        assert [tape.party for tape in run] == list(range(run[0].parties))
        sent = [0] * run[0].parties
        for line in transcript.conversation(run):
            assert line.sender != line.receiver
            assert 1 <= line.round <= phase.rounds
            sent[line.sender] += 8 * line.words
        assert tuple(sent) == phase.bytes_sent
        assert max((line.round for line in transcript.conversation(run)), default=0) == phase.rounds
    transcript.save(tapes, tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o600
    for tape in transcript.load(tmp_path / "run"):
        again = trio.run(replay, tape)
        assert again.differing == again.said_otherwise == 0
        assert dict(again.outcome.symbols) == dict(tape.symbols)


@pytest.mark.cases("replicated")
@pytest.mark.parametrize("protocol", ["replicated", "rep4"])
async def test_every_member_of_a_party_with_workers_says_the_same_again(protocol, tmp_path):
    """In another process, which has of the recording only what lies in its file; as much as is predicted."""
    rng, rows = np.random.default_rng(3), 300
    x, y = (
        {"id": np.arange(rows), "x": rng.normal(size=rows)},
        {"id": np.arange(rows), "y": np.arange(rows) % 2},
    )
    options = {"protocol": protocol, "tile_rows": 128, "workers": 2, "engine": Tasks}
    async with tercet.open_local(**options) as lake:
        left = await lake.upload(x, name="left", key="id", owner="clinic")
        right = await lake.upload(y, name="right", key="id", owner="insurer")
        with transcript.recording([1], file=tmp_path / "words") as tapes:
            both = await left.join(right, on="id")
            await LogisticRegression(solver="gd", max_iter=2, check=False).fit(both, target="y")
    assert {tape.member for tape in tapes} == {NODE, 0, 1}
    read, inside = pickle.loads(pickle.dumps(tapes)), np.zeros(2)
    for tape in read:
        again = await replay(tape)
        assert again.differing == again.said_otherwise == 0
        if tape.workers:
            assert tape.received
            crossed = sum(
                8 * said.words * times
                for said, times in tape.said.items()
                if said.inside and NODE in (said.to, tape.member)
            )
            told = explain(tape.plan, protocol, symbols=tape.symbols, workers=tape.workers)
            inside += np.array(
                [crossed, told.to_workers] if tape.member == NODE else [crossed, told.to_node / 2]
            )
    assert inside[0] == inside[1] > 0
    transcript.save(read[-2:], tmp_path / "run")
    assert [again.said for again in transcript.load(tmp_path / "run")] == [tape.said for tape in read[-2:]]
    tape = next(tape for tape in read if tape.member == 1)
    first = tape.received[0]
    tape.received[0] = attrs.evolve(first, arrays=[array + np.uint64(1) for array in first.arrays])
    assert (await replay(tape)).said_otherwise
    del tape.received[0]
    with pytest.raises(ProtocolError, match="the recording lacks what others said"):
        await replay(tape)


def test_a_replay_notices_another_message_and_another_result():
    tapes, _ = recorded("replicated", [1])
    assert {tape.party for tape in tapes} == {1}
    tape = next(tape for tape in tapes if tape.stored)
    opened = [i for i, one in enumerate(tape.heard) if tape.plan.nodes[one.node].kind == "open"]
    last = max(opened, key=lambda i: (tape.heard[i].node, tape.heard[i].step))
    heard = [*tape.heard]
    heard[last] = attrs.evolve(heard[last], arrays=[array + np.uint64(1) for array in heard[last].arrays])
    with pytest.raises(ProtocolError, match="failed its cross-check"):
        trio.run(replay, attrs.evolve(tape, heard=heard))
    handle, value = next(iter(tape.stored.items()))
    tiles = [tile.like(tile.data + np.uint64(1)) for tile in value.tiles]
    other = {**tape.stored, handle: attrs.evolve(value, tiles=tiles)}
    replayed = trio.run(replay, attrs.evolve(tape, stored=other))
    assert replayed.differing == sum(tile.data.size for tile in tiles)
    with pytest.raises(ProtocolError, match="did not end, or stored something else"):
        trio.run(replay, attrs.evolve(tape, stored=None))


def test_recording_ends_with_its_block():
    with pytest.raises(ZeroDivisionError), transcript.recording() as tapes:
        assert Party.witness is not None
        1 / 0  # noqa: B018
    assert Party.witness is None
    with tercet.local(protocol="plain") as lake:
        find("operations")(lake, 10)
    assert tapes == []


def test_the_drawing_has_the_bytes_of_every_node_that_talks():
    tapes, _ = recorded("replicated")
    run = transcript.runs(tapes)[0]
    text = "".join(ET.fromstring(transcript.draw(run)).itertext())
    for node in {line.node for line in transcript.conversation(run)}:
        size = sum(8 * line.words for line in transcript.conversation(run) if line.node == node)
        assert f"{size:,} bytes" in text


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", msgpack.packb(["tercet transcript 9", []]), msgpack.packb(3)]
)
def test_what_is_no_transcript_is_refused(content, tmp_path):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(PlanError, match="is no transcript that this version reads"):
        transcript.load(tmp_path / "bad")


def test_the_commands(tmp_path):
    run, file, picture = CliRunner().invoke, str(tmp_path / "run"), tmp_path / "run.svg"
    assert run(app, ["transcript", "record", "operations", "--rows", "70", "--out", file]).exit_code == 0
    printed = run(app, ["transcript", "print", file])
    assert printed.exit_code == 0
    assert "round    1  party 0 -> party 1" in printed.output
    replayed = run(app, ["transcript", "replay", file, "--party", "2"])
    assert "It said the same, and ended in the same shares." in replayed.output
    assert run(app, ["transcript", "draw", file, "--out", str(picture)]).exit_code == 0
    assert picture.read_text().startswith("<svg")
    assert run(app, ["transcript", "replay", file, "--party", "3"]).exit_code == 1
    assert run(app, ["transcript", "print", file, "--number", "9"]).exit_code == 1
