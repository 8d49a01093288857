"""What an analyst's portal does by itself: records guided studies, asks for them, runs them, keeps results.

Studies, choices and results are files in a folder beside the key, `ann.studies` for `ann.key`, which is
readable by its owner alone. A run goes on in a task of the portal's, whatever page is open, and ends with the
portal: its nodes are told so.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import trio

from tercet.actors.progress import Reading
from tercet.client.lake import AsyncLake
from tercet.client.study_api import KnownStudy
from tercet.errors import ConsentError, PlanError, StorageError, TercetError
from tercet.members.studies import Study
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.portal.guided import Guided, Terms
from tercet.portal.mishaps import unforeseen
from tercet.portal.outcomes import Outcome

STUDY, CHOICES = "{}.study.json", "{}.choices.json"
RUN = re.compile(r"([0-9a-f]{8})\.run-([0-9a-f]{8})\.json")
MOST_RUNS = 2
"""Runs under way at a time; nodes have limits of their own."""


@attrs.define(eq=False)
class Run:
    """A run of a guided study: under way, or how it has ended. Times are those of the wall clock."""

    number: str
    study: str
    purpose: str
    begun: float
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    ended: float | None = None
    why: str = ""
    """Why it has failed."""
    step: str = ""
    """What is computed now."""
    reading: Reading | None = None
    step_begun: float = 0.0
    rounds: int = 0
    bytes_sent: int = 0
    """Of all steps that have ended."""
    outcome: Outcome | None = None

    @property
    def state(self) -> str:
        """One word, or two, for people."""
        if self.ended is None:
            return "under way"
        return "done" if self.outcome is not None else "failed" if self.why else "cancelled"

    @property
    def all_rounds(self) -> int:
        """Rounds so far."""
        return self.rounds + (self.reading.rounds if self.reading else 0)

    @property
    def all_bytes(self) -> int:
        """Bytes so far, sent by all parties."""
        return self.bytes_sent + (self.reading.bytes_sent if self.reading else 0)

    @property
    def left_s(self) -> float | None:
        """Seconds that the present step takes yet, at its rate; None while nobody knows."""
        if self.reading is None or not self.reading.begun or self.reading.share <= 0:
            return None
        return (time.time() - self.step_begun) * (1 - self.reading.share) / self.reading.share

    def begins(self, _: str, plan: str) -> None:
        """A step begins."""
        self.step, self.reading, self.step_begun = plan, None, time.time()

    def takes(self, _: str, reading: Reading) -> None:
        """How far the step is."""
        if reading.begun and (self.reading is None or not self.reading.begun):
            self.step_begun = time.time()
        self.reading = reading

    def ends_step(self, _: Plan, result: RunResult) -> None:
        """A step has ended."""
        self.rounds += result.rounds
        self.bytes_sent += sum(result.bytes_sent)
        self.reading = None


class StudyWork:
    """The guided studies of a member, and their runs."""

    def __init__(
        self, identity: Path, lake: Callable[[], Awaitable[AsyncLake]], nursery: trio.Nursery
    ) -> None:
        self._folder = identity.with_name(f"{identity.stem}.studies")
        self._lake = lake
        self._nursery = nursery
        self.runs: dict[str, Run] = {}
        """By number, the latest last; those of earlier portals are read when they are asked for."""

    # -- studies ---------------------------------------------------------------------------------------------

    async def propose(self, guided: Guided, terms: Terms) -> KnownStudy:
        """Rehearse what was chosen on made-up rows, and ask owners for it. Raises what either does."""
        lake = await self._lake()
        async with lake.rehearse(rows=terms.rows) as made_up:
            recording = made_up.record(
                self._place() / f"{secrets.token_hex(4)}.part",
                purpose=terms.purpose,
                uses=terms.uses,
                days=terms.days,
            )
            await guided.compute(made_up)
            study = recording.study
        known = await self.propose_file(study.to_text().encode())
        self._keep(CHOICES.format(known.number), guided.to_text())
        return known

    async def propose_file(self, packed: bytes) -> KnownStudy:
        """Ask owners for a study that was recorded elsewhere. Raises ConsentError for what is none."""
        study = Study.from_bytes(packed)
        path = self._keep(STUDY.format(study.number), packed.decode())
        return await (await self._lake()).propose(path)

    def guided(self, number: str) -> Guided | None:
        """What was chosen for a study; None of one that did not come about here.

        Raises PlanError or StorageError if that cannot be read.
        """
        path = self._folder / CHOICES.format(number)
        return Guided.from_text(_read(path)) if path.is_file() else None

    def has_study(self, number: str) -> bool:
        """Whether a study was asked for here."""
        return (self._folder / STUDY.format(number)).is_file()

    def study_text(self, number: str) -> str | None:
        """The file of a study that was asked for here. Raises StorageError if that cannot be read."""
        path = self._folder / STUDY.format(number)
        return _read(path) if path.is_file() else None

    def _place(self) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    def _keep(self, name: str, text: str) -> Path:
        """Write a file whole or not at all. Raises StorageError."""
        path = self._folder / name
        temporary = path.with_name(f"{name}.{secrets.token_hex(4)}.part")
        try:
            self._place()
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise StorageError(f"{path} cannot be written ({error.strerror or error})") from error
        return path

    # -- runs ------------------------------------------------------------------------------------------------

    def begin(self, known: KnownStudy) -> Run:
        """Run an approved study. Raises PlanError for one whose computation is not known here."""
        guided = self.guided(known.number)
        if guided is None:
            raise PlanError(
                f"study {known.number} was not put together in this portal; run the notebook that recorded it"
            )
        if sum(one.ended is None for one in self.runs.values()) >= MOST_RUNS:
            raise PlanError(f"{MOST_RUNS} runs are under way; wait for one of them, or cancel it")
        run = Run(secrets.token_hex(4), known.number, known.purpose, time.time())
        self.runs[run.number] = run
        self._nursery.start_soon(self._run, run, guided)
        return run

    async def _run(self, run: Run, guided: Guided) -> None:
        try:
            with run.scope:
                # A lake follows one study at a time, so each run has one of its own, over the same links.
                lake = AsyncLake((await self._lake()).cluster, progress=False)
                lake.on_phase, lake.on_progress = run.begins, run.takes
                lake.on_result = run.ends_step
                async with lake.study(self._folder / STUDY.format(run.study)):
                    run.outcome = await guided.compute(lake)
                name, text = f"{run.study}.run-{run.number}.json", run.outcome.to_text()
                await trio.to_thread.run_sync(self._keep, name, text)
        except (TercetError, OSError) as error:
            run.why = str(error)
        except Exception as error:  # noqa: BLE001 - a portal goes on
            run.why = unforeseen(f"run {run.number}", error)
        finally:
            run.ended = time.time()

    def run(self, number: str) -> Run:
        """A run by its number, also one of an earlier portal. Raises ConsentError if there is none."""
        if number not in self.runs:
            self.read_earlier()
        if number not in self.runs:
            raise ConsentError(f"there is no run {number!r:.40}")
        return self.runs[number]

    def read_earlier(self) -> None:
        """Know of the runs whose results lie in the folder; of one that cannot be read, that it is so."""
        found: list[Run] = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                named = RUN.fullmatch(path.name)
                if named is not None and named[2] not in self.runs:
                    found.append(self._earlier(path, study=named[1], number=named[2]))
        self.runs.update((one.number, one) for one in sorted(found, key=lambda one: one.begun))

    def _earlier(self, path: Path, *, study: str, number: str) -> Run:
        """A run of an earlier portal."""
        run = Run(number, study, "", 0.0, ended=0.0)
        try:
            run.begun = run.ended = path.stat().st_mtime
            run.outcome = Outcome.from_text(_read(path))
        except (TercetError, OSError) as error:
            run.why = f"{error}; see {path.name} in {path.parent.name}"
        with contextlib.suppress(TercetError):
            text = self.study_text(study)
            run.purpose = "" if text is None else Study.from_bytes(text.encode()).purpose
        return run


def _read(path: Path) -> str:
    """The text of a file. Raises StorageError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StorageError(f"{path.name} cannot be read ({error})") from error
