"""Studies in the journal: signed, counted and stepped through, also after a restart; in old databases too."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tercet.storage import study_journal
from tercet.storage.catalog import METADATA, Catalog, Entry
from tercet.storage.study_journal import StudyJournal

DIGEST, OTHER = b"d" * 32, b"o" * 32
FIRST, SECOND, THIRD = b"1" * 16, b"2" * 16, b"3" * 16
FIELDS = {"analyst": "ann", "packed": b"{}", "proposed": 5.0, "until": 100.0}
APPROVAL = {"digest": DIGEST, "approver": "clinic", "uses": 2, "expires": 2**40, "signature": b"s" * 64}


@pytest.fixture(params=["sqlite", "postgresql"])
def reopened(request, tmp_path):
    """Opens the journal, each time as a node that was restarted does."""
    url = "sqlite:///catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")
    catalogs = []

    def again():
        catalogs.append(Catalog(url, base=tmp_path))
        return StudyJournal(catalogs[-1])

    again()
    with catalogs[0].begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
    yield again
    for catalog in catalogs:
        catalog.close()


def test_studies_are_proposed_signed_and_refused(reopened):
    journal = reopened()
    assert journal.propose(DIGEST, FIELDS, most=1, models={})
    assert not journal.propose(OTHER, FIELDS, most=1, models={})
    assert journal.propose(OTHER, {**FIELDS, "analyst": "bob", "proposed": 4.0}, most=1, models={})
    assert reopened().propose(DIGEST, {**FIELDS, "proposed": 9.0}, most=1, models={})
    assert [one.digest for one in reopened().page((0.0, b""), 9)] == [OTHER, DIGEST]
    assert [one.digest for one in reopened().page((0.0, b""), 1)] == [OTHER]
    assert [one.digest for one in reopened().page((4.0, OTHER), 9)] == [DIGEST]
    assert reopened().page((FIELDS["proposed"], DIGEST), 9) == []
    journal.approve(APPROVAL)
    journal.approve({**APPROVAL, "uses": 1})
    journal.approve({**APPROVAL, "approver": "bank"})
    found = reopened().find(DIGEST)
    assert (found.analyst, found.packed, found.proposed, found.refusal, found.runs) == (
        "ann",
        b"{}",
        5.0,
        "",
        0,
    )
    assert found.approvals == ({**APPROVAL, "approver": "bank"}, {**APPROVAL, "uses": 1})
    journal.refuse(DIGEST, "no")
    journal.refuse(DIGEST, "why else")
    found = reopened().find(DIGEST)
    assert (found.refusal, found.approvals) == ("no", ())
    assert reopened().find(OTHER).refusal == ""
    assert reopened().find(b"x" * 32) is None


def test_uses_are_counted_over_restarts(reopened):
    assert not reopened().begin_run(FIRST, DIGEST, 2, 1.0)  # of no study
    reopened().propose(DIGEST, FIELDS, most=9, models={})
    reopened().propose(OTHER, FIELDS, most=9, models={})
    assert reopened().begin_run(FIRST, DIGEST, 2, 1.0)
    assert reopened().begin_run(FIRST, DIGEST, 2, 1.0)
    assert not reopened().begin_run(FIRST, OTHER, 2, 1.0)
    assert reopened().begin_run(SECOND, DIGEST, 2, 1.0)
    assert not reopened().begin_run(THIRD, DIGEST, 2, 1.0)
    assert (reopened().find(DIGEST).runs, reopened().find(OTHER).runs) == (2, 0)
    assert reopened().run(THIRD) is None


def test_each_position_is_one_computation(reopened):
    reopened().propose(DIGEST, FIELDS, most=9, models={})
    reopened().begin_run(FIRST, DIGEST, 2, 1.0)
    assert reopened().take_step(FIRST, 1, b"a" * 16)
    assert reopened().take_step(FIRST, 1, b"a" * 16)
    assert not reopened().take_step(FIRST, 1, b"b" * 16)
    assert not reopened().take_step(FIRST, 2, b"a" * 16)
    assert reopened().take_step(FIRST, 3, b"b" * 16)
    assert not reopened().take_step(FIRST, 3, b"a" * 16)
    assert not reopened().take_step(SECOND, 1, b"c" * 16)
    assert reopened().run(FIRST) == study_journal.RunRow(DIGEST, False, {1: b"a" * 16, 3: b"b" * 16})
    reopened().end_run(FIRST)
    assert not reopened().take_step(FIRST, 4, b"d" * 16)
    assert reopened().run(FIRST).ended


def test_studies_whose_time_is_up_are_forgotten(reopened):
    journal = reopened()
    journal.propose(DIGEST, FIELDS, most=9, models={})
    journal.propose(OTHER, {**FIELDS, "until": 200.0}, most=9, models={})
    journal.approve(APPROVAL)
    for run, digest in ((FIRST, DIGEST), (SECOND, OTHER)):
        journal.begin_run(run, digest, 2, 1.0)
        journal.take_step(run, 1, b"a" * 16)
    assert journal.sweep(100.0) == []
    assert journal.sweep(150.0) == [DIGEST]
    assert reopened().find(DIGEST) is None
    assert reopened().run(FIRST) is None
    assert reopened().run(SECOND).steps == {1: b"a" * 16}
    assert reopened().find(OTHER).runs == 1


def test_a_database_of_an_earlier_release_gets_the_tables(tmp_path):
    url = "sqlite:///catalog.sqlite"
    earlier = Catalog(url, base=tmp_path)
    earlier.put(Entry("table", "ages", "clinic", b"", b"", ("a#1",)))
    names = ("studies", "study_approvals", "study_runs", "study_steps", "catalog_version")
    with earlier.begin() as connection:
        for name in names:
            connection.execute(sa.text(f"DROP TABLE {name}"))
    earlier.close()
    catalog = Catalog(url, base=tmp_path, may_be_new=False)
    try:
        assert [one.name for one in catalog.entries()] == ["ages"]
        journal = StudyJournal(catalog)
        assert journal.page((0.0, b""), 9) == []
        assert journal.propose(DIGEST, FIELDS, most=1, models={})
    finally:
        catalog.close()
