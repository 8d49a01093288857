"""Studies at a member's side: what all nodes have of them, compared, and the member's word on one.

A study is shown only if all nodes have the same one under its number and say the same of what it does, so one
honest node suffices for its owner to read the truth.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tercet.client.answers import alike, binary, time_of
from tercet.client.client import Client
from tercet.errors import ConsentError, ProtocolError
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.studies import RUN_BYTES, Study, StudyApproval
from tercet.members.study_files import MOST_BYTES


@attrs.frozen
class KnownStudy:
    """A study at the nodes: how often it has run and may run, until when, and who has still to sign it.

    Where nodes differ, as one that was away when a signature came, it is what the strictest says. They cannot
    differ in analyst and purpose, unless one lies; then these say so.
    """

    digest: bytes
    analyst: str
    purpose: str
    proposed: float
    until: float
    uses: int
    runs: int
    approved: tuple[str, ...]
    missing: tuple[str, ...]
    refusal: str

    @property
    def number(self) -> str:
        """What people call it: the first digits of its digest."""
        return self.digest.hex()[:8]


@attrs.frozen
class ShownStudy:
    """A study as all nodes have it, and the sentences in which all of them say what it does."""

    known: KnownStudy
    study: Study
    page: tuple[str, ...]


def read_study(path: str | Path) -> Study:
    """A study from its file. Raises ConsentError for what is none, OSError for what cannot be read."""
    with Path(path).open("rb") as file:
        return Study.from_bytes(file.read(MOST_BYTES + 1))


class StudyDesk:
    """Asks all nodes about studies, in a member's name."""

    def __init__(self, client: Client, cluster: ClusterFile, keys: MemberKeys) -> None:
        self.client = client
        self.cluster = cluster
        self.keys = keys

    async def propose(self, study: Study) -> KnownStudy:
        """Give a study to all nodes, for owners to look at; a second time does nothing.

        Raises ConsentError.
        """
        await self.client.ask("propose-study", [study.to_bytes()])
        return (await self._ask_for(study.digest()))[0]

    async def listed(self) -> list[KnownStudy]:
        """Studies that every node has."""
        answers = await self.client.ask_all_pages("studies")
        with _sense():
            first, *others = [{one["digest"]: one for one in told} for told in answers]
            return [
                _known([one, *(told[digest] for told in others)])
                for digest, one in first.items()
                if all(digest in told for told in others)
            ]

    async def find(self, number: str) -> KnownStudy:
        """A study by its first digits. Raises ConsentError if there is none, or several."""
        found = [one for one in await self.listed() if number and one.digest.hex().startswith(number)]
        if len(found) != 1:
            raise ConsentError(
                f"{len(found) or 'no'} studies begin with {number!r}; `tercet plans` lists them"
            )
        return found[0]

    async def show(self, number: str) -> ShownStudy:
        """A study by its first digits, to be read. Raises ConsentError if nodes show different ones."""
        digest = (await self.find(number)).digest
        known, told = await self._ask_for(digest)
        with _sense():
            studies = [Study.from_bytes(one["packed"]) for one in told]
            pages = [tuple(str(line) for line in one["page"]) for one in told]
        if known.digest != digest or any(one.digest() != digest for one in studies):
            raise ConsentError(f"the nodes have different studies as {number}; approve none, tell an auditor")
        if (known.analyst, known.purpose) != (studies[0].analyst, studies[0].purpose):
            raise ConsentError(
                f"a node says of study {number} another analyst or purpose than the study has; approve none, "
                "tell an auditor"
            )
        if len(set(pages)) != 1:
            raise ConsentError(
                f"the nodes say different things of study {number}: a table was replaced meanwhile, or a "
                "node lies; look again, and if it stays so, tell an auditor"
            )
        return ShownStudy(known, studies[0], pages[0])

    async def approve(self, shown: ShownStudy, *, uses: int | None = None, days: float | None = None) -> None:
        """Sign a study that was shown, and give the signature to all nodes.

        Raises ConsentError for no runs, or no days.
        """
        if uses is not None and uses < 1:
            raise ConsentError(f"nothing was signed: a study is approved for 1 run or more, not {uses}")
        if days is not None and not days > 0:
            raise ConsentError(f"nothing was signed: a study is approved for some days, not {days:g}")
        until = shown.study.until
        expires = None if days is None else int(min(time.time() + days * 86400, until))
        approval = StudyApproval.make(self.cluster.lake, shown.study, self.keys, uses=uses, expires=expires)
        await self.client.ask("approve-study", [attrs.asdict(approval)])

    async def refuse(self, number: str, why: str) -> KnownStudy:
        """End a study, as an owner who is asked or as its analyst."""
        known = await self.find(number)
        await self.client.ask("refuse-study", [known.digest, why])
        return known

    async def begin(self, study: Study) -> bytes:
        """Begin a run of a study; its name.

        Raises ConsentError if owners have not signed, or it was run as often as it may be.
        """
        run = secrets.token_bytes(RUN_BYTES)
        await self.client.ask("begin-study", [study.digest(), run])
        return run

    async def end(self, run: bytes) -> None:
        """A run takes no more requests."""
        await self.client.ask("end-study", [run])

    async def _ask_for(self, digest: bytes) -> tuple[KnownStudy, Sequence[Mapping[str, Any]]]:
        told = await self.client.ask("study", [digest])
        with _sense():
            return _known(told), told


@contextlib.contextmanager
def _sense() -> Iterator[None]:
    """Raise ProtocolError for an answer that no node of this release gives."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProtocolError(f"what a node answered makes no sense: {error!r}; see its release") from error


def _known(told: Sequence[Mapping[str, Any]]) -> KnownStudy:
    first = told[0]
    return KnownStudy(
        digest=binary(first["digest"]),
        analyst=alike(told, "analyst"),
        purpose=alike(told, "purpose"),
        proposed=time_of(first["proposed"]),
        until=time_of(min(one["until"] for one in told)),
        uses=int(min(one["uses"] for one in told)),
        runs=int(max(one["runs"] for one in told)),
        approved=tuple(
            sorted(map(str, set(first["approved"]).intersection(*(one["approved"] for one in told))))
        ),
        missing=tuple(sorted({str(owner) for one in told for owner in one["missing"]})),
        refusal=next((str(one["refusal"]) for one in told if one["refusal"]), ""),
    )
