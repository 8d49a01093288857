"""Progress: what parties tell of a run, the share that is made of it, and the bars."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tercet
from tercet.actors import course, session
from tercet.actors import progress as actors_progress
from tercet.actors.progress import Forecast, Progress, Reading
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.client import bars as progress
from tercet.client import client
from tercet.client.lake import open_local
from tercet.errors import ProtocolError
from tercet.ml import LogisticRegression

ROWS = 400
TABLE = {
    "id": np.arange(ROWS),
    "x": np.linspace(-2, 2, ROWS),
    "y": np.arange(ROWS) * 7 % 5 > np.arange(ROWS) % 3,
}


@pytest.fixture
def at_once(monkeypatch):
    """Runs are watched from their beginning, and closely."""
    monkeypatch.setattr(actors_progress, "WATCHED_AFTER_S", 0.0)
    monkeypatch.setattr(actors_progress, "WATCH_EVERY_S", 0.005)


counts = st.integers(0, 10**6)


@given(rounds=counts, sent=counts, seconds=st.floats(0, 1e5), latency=st.floats(0, 10), data=st.data())
def test_the_share_grows_from_nought_to_one(rounds, sent, seconds, latency, data):
    forecast = Forecast(rounds, sent, seconds)
    parts = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=5)))
    shares = [
        forecast.reading(
            [Progress(int(9 * part), 9, int(rounds * part), int(sent * part / 2))] * 2, latency
        ).share
        for part in (0.0, *parts, 1.0)
    ]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] <= 1 + 1e-12
    whole = [Progress(9, 9, rounds, sent)]
    assert rounds == 0 or math.isclose(forecast.reading(whole, latency).share, 1.0)


def test_work_and_waiting_count_by_the_time_that_they_take():
    local, far = (
        Forecast(100, 1000, 10.0).reading([Progress(1, 9, 50, 0)], latency) for latency in (0, 10.0)
    )
    assert local.share < 0.02
    assert far.share > 0.49
    assert Forecast(0, 0, 1.0).reading([Progress(3, 4, 0, 0)], 0.0) == Reading(0.75, 0, 0, True)
    assert not Forecast(1, 1, 1.0).reading([Progress(3, 4, 0, 0), Progress()], 0.0).begun


@pytest.mark.parametrize(
    "fields", [None, {}, {"done": 1, "nodes": 2, "rounds": -1, "bytes_sent": 3}, [1, 2, 3, 4]]
)
def test_what_is_no_progress_is_refused(fields):
    with pytest.raises(ProtocolError, match="how far a run is"):
        Progress.read(fields)


# -- what parties tell ---------------------------------------------------------------------------------------


FLUSHES = {Scheduler: "_flush", Lockstep: "_send_frames"}


def told_of_a_plan(monkeypatch, driver, matches):
    """All that party 0 would tell during a plan whose last rounds are over the rows that match, and after."""
    told, ended = [], []

    class Telling(driver):
        async def run(self):
            outcome = await super().run()
            if self.protocol.party == 0:
                told.append(self.progress())
                ended.append(outcome)
            return outcome

    async def flush(self):
        if self.protocol.party == 0:
            told.append(self.progress())
        await getattr(driver, FLUSHES[driver])(self)

    setattr(Telling, FLUSHES[driver], flush)
    monkeypatch.setattr(session, "runs_in_lockstep", lambda _: driver is Lockstep)
    monkeypatch.setattr(course, driver.__name__, Telling)
    with tercet.local() as lake:
        b = lake.builder("matched")
        random = b.random_words(2)
        opened, moved = [], []
        for first in (0, ROWS - matches):
            rows = {"id": np.arange(first, first + ROWS), f"x{first}": np.linspace(-2, 2, ROWS)}
            table = lake.upload(rows, name=f"t{first}", key="id", owner="clinic")
            keys, x = (b.input(part.handle, part.type) for part in (table.keys, table.parts[0]))
            shuffled = b.apply_all("shuffle", b.apply("prf", random, keys), x)
            opened.append(shuffled[0].open("pseudonyms of shuffled keys"))
            moved.append(shuffled[1])
        matched = b.apply("match", *opened, rows="n")
        x = b.apply("take", moved[0], matched, table=0)
        (x.select([0]).squeeze() < 0).to_ring().sum().reveal("below", to="analyst")
        assert lake.run(b.plan()).symbols == {"n": matches}
    return told, ended[0].statistics


@pytest.mark.parametrize("driver", FLUSHES)
def test_a_size_that_a_plan_reveals_cannot_be_told_from_its_progress(monkeypatch, driver):
    (few, few_cost), (many, many_cost) = (
        told_of_a_plan(monkeypatch, driver, matches) for matches in (2, 300)
    )
    assert 0 < max(one.bytes_sent for one in (*few, *many)) <= few_cost.bytes_sent < many_cost.bytes_sent
    assert 0 < max(one.rounds for one in (*few, *many)) < few_cost.rounds
    assert max(one.done for one in (*few, *many)) < few[-1].nodes


async def test_the_client_is_told_and_no_other_run(at_once):
    async with open_local(latency_ms=5) as lake:
        table = await lake.upload(TABLE, name="t", key="id", owner="clinic")
        readings = []
        plainly = lake.cluster.client.run

        async def run(plan, watch=None, asked=None):
            return await plainly(plan, readings.append, asked=asked)

        lake.cluster.client.run = run
        await LogisticRegression(max_iter=3).fit(table, target="y")
        begun = [one for one in readings if one.begun]
        assert len(begun) > 3
        assert [one.share for one in begun] == sorted(one.share for one in begun)
        assert 0 < begun[-1].share <= 1
        assert begun[-1].bytes_sent <= sum(lake.phases[-1].bytes_sent)
        assert begun[-1].rounds <= lake.phases[-1].rounds
        assert [Progress.read(one) for one in await lake.cluster.client.ask("progress", [b"x"])] == [
            Progress()
        ] * 3


# -- bars ----------------------------------------------------------------------------------------------------


def test_a_bar_in_a_script(at_once, capsys):
    with tercet.local(latency_ms=5, progress=True) as lake:
        table = lake.upload(TABLE, name="t", key="id", owner="clinic")
        LogisticRegression(max_iter=3).fit(table, target="y")
        drawn = capsys.readouterr().err
        assert "fit y on t" in drawn
        assert " rounds, " in drawn
        assert "%|" in drawn
        lake.progress = False
        LogisticRegression(max_iter=3).fit(table, target="y")
    assert capsys.readouterr() == ("", "")


async def test_bars_in_trio(at_once, capsys):
    async with open_local(latency_ms=5, progress=True) as lake:
        table = await lake.upload(TABLE, name="t", key="id", owner="clinic")
        await LogisticRegression(max_iter=3).fit(table, target="y")
    assert " rounds, " in capsys.readouterr().err


def test_nothing_is_drawn_where_nobody_looks(at_once, capsys):
    with tercet.local(latency_ms=2) as lake:
        table = lake.upload(TABLE, name="t", key="id", owner="clinic")
        LogisticRegression(max_iter=3).fit(table, target="y")
    assert capsys.readouterr() == ("", "")


def test_who_looks(monkeypatch):
    assert not progress.somebody_looks()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert progress.somebody_looks()


def test_a_bar_that_cannot_be_drawn_does_not_end_the_run(at_once, monkeypatch, caplog):
    def fail(*_):
        raise OSError(5, "the terminal is gone")

    monkeypatch.setattr(progress, "_draw", fail)
    caplog.set_level("INFO", "tercet.actors.progress")
    with tercet.local(latency_ms=5, progress=True) as lake:
        table = lake.upload(TABLE, name="t", key="id", owner="clinic")
        assert LogisticRegression(max_iter=3).fit(table, target="y").reveal().coef_.shape == (1, 1)
    assert "no longer watched" in caplog.text


def test_a_bar(capsys):
    with progress.watching("a plan", wanted=True) as show:
        show(Reading(0.0, 0, 0, begun=False))
        assert progress.WAITING in capsys.readouterr().err
        show(Reading(0.25, 10, 3_000_000, begun=True))
        assert "a plan:  25%|" in (drawn := capsys.readouterr().err)
        assert "10 rounds, 3.0 MB" in drawn
    capsys.readouterr()
    show(Reading(0.5, 20, 6_000_000, begun=True))
    assert capsys.readouterr().err == ""
    with progress.watching("a plan", wanted=False) as nothing:
        assert nothing is None


def test_bars_of_an_upload(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 1e-9)
    monkeypatch.setattr(client, "PIECE_BYTES", 1)
    file = tmp_path / "t.csv"
    file.write_text("id,x\n" + "".join(f"{i},{i / 7}\n" for i in range(ROWS)))
    with tercet.local(progress=True, tile_rows=128) as lake:
        assert lake.upload(file, name="t", key="id", owner="clinic").rows == ROWS
        drawn = capsys.readouterr().err
        assert "read t: 400 rows" in drawn
        shares = [int(part[-3:]) for part in drawn.split("%|")[:-1]]
        assert shares == sorted(shares)
        assert {21, 43, 64, 67, 100} <= set(shares)  # two of its three numbers a row are the key's
        lake.progress = False
        lake.upload(file, name="u", key="id", owner="clinic")
    assert capsys.readouterr().err == ""


def test_short_uploads_have_no_bar(capsys):
    with progress.counting("upload t", 10, wanted=True) as advance:
        advance(5)
        advance(5)
    with progress.counting("upload t", 10, wanted=False) as nothing:
        assert nothing is None
    assert capsys.readouterr() == ("", "")


def test_an_upload_goes_on_without_its_terminal(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "the terminal is gone")

    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 1e-9)
    with tercet.local(progress=True) as lake:
        monkeypatch.setattr(sys, "stderr", Gone())
        assert lake.upload(TABLE, name="t", key="id", owner="clinic").rows == ROWS
