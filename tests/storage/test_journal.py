"""The journal: what was under way is there again after it was opened anew, in SQLite and in PostgreSQL."""

from __future__ import annotations

import attrs
import pytest

from tercet.storage.catalog import METADATA, Catalog
from tercet.storage.job_rows import JobEnd, JobRow
from tercet.storage.journal import LOOSE, Checkpoint, Journal, LooseValue

RUN, OTHER, DIGEST = b"r" * 16, b"o" * 16, b"d" * 32
VALUE = LooseValue("ann", frozenset({"a", "b"}), frozenset({"b"}))
APPROVAL = {"session": RUN, "digest": DIGEST, "approver": "clinic", "expires": 1e9, "signature": b"s" * 64}


@pytest.fixture(params=["sqlite", "postgresql"])
def reopened(request, tmp_path):
    """Opens the journal, each time as a node that was restarted does."""
    url = "sqlite:///catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")
    catalogs = []

    def again():
        catalogs.append(Catalog(url, base=tmp_path))
        return Journal(catalogs[-1])

    again()
    with catalogs[0].begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
    yield again
    for catalog in catalogs:
        catalog.close()


def test_loose_values_and_results_come_with_the_end_of_a_run(reopened):
    def waiting(journal, receiver):
        return [body for _, body in journal.results(receiver, 0, 10, 1000)]

    results = [("bob", b"1"), ("bob", b"2"), ("eve", b"3"), ("bob", b"4")]
    assert reopened().end(RUN, {"x#1": VALUE, "x#2": VALUE}, results, most=2) == (True, [])
    journal = reopened()
    assert journal.loose() == {"x#1": VALUE, "x#2": VALUE}
    assert sorted(journal.handles()) == ["x#1", "x#2"]
    assert (waiting(journal, "bob"), waiting(journal, "eve")) == ([b"2", b"4"], [b"3"])
    journal.forget(["x#1", "nothing"])
    journal.take_away("bob", RUN)
    journal.take_away("eve", OTHER)
    assert reopened().handles() == ["x#2"]
    assert (waiting(reopened(), "bob"), waiting(reopened(), "eve")) == ([], [b"3"])


def test_a_run_with_approvals_ends_once(reopened):
    journal = reopened()
    assert journal.ask(RUN, "ann", DIGEST, 3).approvals == ()
    journal.approve(APPROVAL)
    journal.approve(APPROVAL | {"expires": 2e9})
    asked = reopened().ask(RUN, "eve", b"e" * 32, 1)
    assert (asked.caller, asked.digest, asked.spent) == ("ann", DIGEST, False)
    assert asked.approvals == (APPROVAL | {"expires": 2e9},)
    journal.let_through(RUN)
    assert [journal.was_let_through(run) for run in (RUN, OTHER)] == [True, False]
    assert journal.end(RUN, {"x": VALUE}, [], most=2)[0]
    assert journal.end(RUN, {"y": VALUE}, [], most=2) == (False, [])
    assert list(reopened().loose()) == ["x"]
    assert reopened().ask(RUN, "ann", DIGEST, 3).spent
    assert [reopened().spent(RUN, caller) for caller in ("ann", "eve")] == [True, False]


def test_a_run_is_let_through_so_often(reopened):
    journal = reopened()
    assert not journal.ask(RUN, "ann", DIGEST, 2).spent
    journal.let_through(RUN)
    assert not journal.ask(RUN, "ann", DIGEST, 9).spent
    journal.let_through(RUN)
    assert reopened().ask(RUN, "ann", DIGEST, 9).spent


def test_names_stay_used_when_old_runs_are_forgotten(reopened):
    journal = reopened()
    journal.ask(RUN, "ann", DIGEST, 2)
    journal.let_through(RUN)
    journal.ask(OTHER, "ann", DIGEST, 2)
    journal.approve(APPROVAL | {"session": OTHER})
    journal.sweep(before=0.0)
    assert journal.ask(OTHER, "ann", DIGEST, 2).approvals != ()
    journal.sweep(before=1e12)
    assert journal.ask(RUN, "ann", DIGEST, 2).spent
    assert journal.ask(OTHER, "ann", DIGEST, 2).approvals == ()


def test_checkpoints(reopened):
    journal = reopened()
    first = Checkpoint(RUN, 1, RUN, "ann", DIGEST, ("r/1/a", "r/1/b"))
    second = Checkpoint(RUN + b"1", 1, RUN, "ann", DIGEST, ("r1/1/a",))
    other = Checkpoint(OTHER, 2, OTHER, "ann", DIGEST, ("o/2/a",))
    for one in (first, second, other):
        journal.reach(one)
    assert reopened().checkpoints(RUN) == [first, second]
    assert sorted(reopened().handles()) == ["o/2/a", "r/1/a", "r/1/b", "r1/1/a"]
    ended, gone = journal.end(RUN, {}, [], most=2)
    assert (ended, sorted(gone)) == (True, ["r/1/a", "r/1/b", "r1/1/a"])
    assert journal.abandon(RUN, "ann") == journal.abandon(OTHER, "eve") == []
    assert journal.sweep(before=0.0) == []
    assert journal.sweep(before=1e12) == ["o/2/a"]
    assert reopened().handles() == []


def test_jobs(reopened):
    first, second = JobRow(RUN, "ann", b"plan", 1.0), JobRow(OTHER, "ann", b"plan", 2.0)
    journal = reopened()
    journal.put_job(second)
    journal.put_job(first)
    journal.fail_job(RUN, b"why")
    journal.fail_job(RUN, b"why else")  # it has ended
    journal.begin_job(OTHER, 3, b"plan", OTHER, 0)
    ended, second = (
        attrs.evolve(first, ended=True, error=b"why"),
        attrs.evolve(second, attempts=3, name=OTHER, step=0),
    )
    assert reopened().jobs() == [ended, second]
    journal.ask(OTHER, "ann", DIGEST, 2)
    journal.sweep(before=1e12)  # but jobs wait for as long as it takes
    journal.approve(APPROVAL | {"session": OTHER})
    assert len(reopened().ask(OTHER, "ann", DIGEST, 2).approvals) == 1
    journal.drop_job(RUN)
    journal.fail_job(RUN, b"why")
    assert reopened().jobs() == [second]


def test_a_job_and_its_run_come_to_their_end_together(reopened):
    journal = reopened()
    journal.put_job(JobRow(RUN, "ann", b"plan", 1.0))
    journal.ask(RUN, "ann", DIGEST, 2)
    assert journal.answer(RUN) == journal.answer(OTHER) == b""
    assert journal.end(RUN, {}, [], most=2, job=JobEnd(RUN, b"sealed")) == (True, [])
    assert journal.end(RUN, {}, [], most=2, job=JobEnd(RUN, b"other")) == (False, [])
    journal.fail_job(RUN, b"why")
    assert reopened().jobs() == [JobRow(RUN, "ann", b"plan", 1.0, ended=True)]
    assert (reopened().answer(RUN), reopened().spent(RUN, "ann")) == (b"sealed", True)


def test_a_job_goes_on_with_its_next_plan_when_the_one_before_ends(reopened):
    journal, first, second = reopened(), JobRow(RUN, "ann", b"one", 1.0), b"name of the next"
    journal.put_job(first)
    for _ in range(2):  # the second time after the nodes have fallen back to it
        assert journal.end(RUN, {}, [], most=2, job=JobEnd(RUN, b"sealed", b"two", second)) == (True, [])
        at_two = attrs.evolve(first, packed=b"two", name=second, step=1)
        assert reopened().jobs() == [at_two]
        assert (journal.answer(RUN), journal.answer(RUN, 0), journal.answer(RUN, 1)) == (b"", b"sealed", b"")
        assert journal.holder(second) == "ann"
        journal.ask(second, "ann", DIGEST, 2)
        journal.sweep(before=1e12)  # which is not for jobs under way
        assert not journal.spent(second, "ann")
        journal.begin_job(RUN, 1, b"one", RUN, 0)
        assert journal.answer(RUN, 0) == b""
    journal.end(RUN, {}, [], most=2, job=JobEnd(RUN, b"sealed", b"two", second))
    assert journal.end(second, {}, [], most=2, job=JobEnd(RUN, b"last")) == (True, [])
    assert (journal.answer(RUN, 0), journal.answer(RUN, 1)) == (b"sealed", b"last")
    assert journal.bytes_waiting("ann") == len(b"sealed" + b"last" + b"two")
    journal.drop_job(RUN)
    journal.end(RUN, {}, [], most=2, job=JobEnd(RUN, b"sealed", b"two", second))  # forgotten meanwhile
    assert (reopened().jobs(), reopened().answer(RUN, 0), journal.bytes_waiting("ann")) == ([], b"", 0)


def test_results_come_in_pages_and_make_room_for_those_of_the_same_sender(reopened):
    journal = reopened()
    for number in range(3):
        results = [("bob", bytes([number]) * 100)] * 2
        assert journal.end(bytes([number]) * 16, {}, results, 3, sender="ann") == (True, [])
    journal.end(b"e" * 16, {}, [("bob", b"of eve")], 3, sender="eve")
    first = journal.results("bob", 0, 2, 1 << 20)
    assert [body[:1] for _, body in first] == [b"\1", b"\2"]
    rest = journal.results("bob", first[-1][0], 10, 1 << 20)
    assert [body for _, body in rest] == [b"\2" * 100, b"of eve"]
    assert len(journal.results("bob", 0, 10, 1)) == 2
    assert [journal.bytes_waiting(name) for name in ("ann", "eve", "bob")] == [300, 6, 0]


def test_sizes_of_values_are_counted_also_those_that_no_release_has_noted(reopened):
    journal = reopened()
    journal.end(RUN, {"x": attrs.evolve(VALUE, size=700)}, [], 3)
    with journal._begin() as connection:
        connection.execute(LOOSE.insert().values(handle="y", caller="ann", sources="", rows=""))
    journal.measure({"x": 1, "y": 55}.__getitem__)
    assert {handle: one.size for handle, one in reopened().loose().items()} == {"x": 700, "y": 55}
