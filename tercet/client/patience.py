"""Runs that go on after a node was lost: wait until all are back, then run again from the latest checkpoint.

A run is named by random bytes, its attempts by these and a number, so that nothing of one attempt can be
taken for another's: keys, masks, values that it stored. What an attempt may have left is dropped before the
next. An attempt begins at the latest checkpoint that all nodes have of the same earlier attempt, or at the
beginning. Owners who have approved the run are asked again only if a node has come to its end (see
`ledger`).
"""

from __future__ import annotations

import logging
import secrets

import attrs
import trio

from tercet.actors.node import LONGEST_RETRY_S, RETRY_S
from tercet.actors.progress import Watch
from tercet.client.client import SESSION_BYTES, Asked, Client
from tercet.errors import PeerLost, ProtocolError, TercetError
from tercet.plans.passes import Since, latest, optimise
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.transports.names import party_name

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 16


@attrs.frozen
class Patience:
    """Runs plans of a client. After a loss, nodes have `seconds` to come back."""

    client: Client
    seconds: float

    async def run(self, plan: Plan, watch: Watch | None = None, asked: Asked | None = None) -> RunResult:
        """Run a plan to its end. Raises as `Client.run`, and PeerLost when patience has run out."""
        run, since = secrets.token_bytes(SESSION_BYTES), None
        for attempt in range(MOST_ATTEMPTS):
            name = run + bytes([attempt] if attempt else [])
            try:
                result = await self.client.run(plan, watch, session=name, since=since, asked=asked)
                return result.after(attempt)
            except PeerLost as error:
                if self.seconds <= 0:
                    raise
                await self._until_back(error, f"plan {plan.name!r}", attempt)
            except BaseException:
                self.client.post("abandon", [run])
                raise
            run, since = await self._go_on(plan, run)
        raise PeerLost(
            f"plan {plan.name!r} was interrupted {MOST_ATTEMPTS} times; look at the logs of the nodes",
            peer=party_name(0),
        )

    async def fetch(self, job: bytes, watch: Watch | None = None) -> RunResult:
        """What a job gave, once it has ended: the nodes see to it that it does. Raises as `run`."""
        attempt = 0
        while True:
            try:
                return await self.client.fetch(job, watch)
            except PeerLost as error:
                if self.seconds <= 0:
                    raise
                await self._until_back(error, f"job {job.hex()[:8]}", attempt)
                attempt += 1

    async def _until_back(self, error: PeerLost, what: str, attempt: int) -> None:
        """Wait until all nodes answer and have links to each other. Raises PeerLost with what is wrong."""
        logger.warning(
            "%s was interrupted: %s. Waiting for up to %g s until all nodes are back",
            what,
            str(error).rstrip("."),
            self.seconds,
        )
        pause, problem = min(RETRY_S * 2 ** min(attempt, MOST_ATTEMPTS), LONGEST_RETRY_S), "no node was asked"
        with trio.move_on_after(self.seconds):
            while problem:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)
                problem = await self._problem()
            return
        raise PeerLost(
            f"{str(error).rstrip('.')}; {what} waited for {self.seconds:g} s, and {problem}",
            peer=error.peer,
        ) from error

    async def _problem(self) -> str:
        """Why plans cannot run now, or nothing."""
        try:
            for index, told in enumerate(await self.client.ask("status")):
                if missing := told.get("missing_parties"):
                    return f"{party_name(index)} has no link to party {', '.join(map(str, missing))}"
        except TercetError as error:
            return str(error)
        return ""

    async def _go_on(self, plan: Plan, run: bytes) -> tuple[bytes, Since | None]:
        """Under which name to run a plan again, and from which checkpoint."""
        stored = [node.get("handle") for node in plan.nodes if node.kind == "store"]
        try:
            if stored:
                await self.client.drop(stored)
            answers = await self.client.ask("interrupted", [run])
        except PeerLost:
            return run, None  # lost again; the next attempt finds out, and waits
        try:
            spent = any(told["spent"] for told in answers)
            points = [[(bytes(one), int(point)) for one, point in told["points"]] for told in answers]
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"what a node told of a run makes no sense: {error!r}") from error
        if spent:
            self.client.post("abandon", [run])
            return secrets.token_bytes(SESSION_BYTES), None
        return run, await trio.to_thread.run_sync(lambda: latest(optimise(plan), points))
