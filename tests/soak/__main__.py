"""A soak: `python -m tests.soak`. Random plans and random faults, for TERCET_SOAK_MINUTES (20).

Three nodes run as `tercet node`, each in a network namespace of its own where the machine allows it; two
owners and two analysts use them, while two injectors break what they can (`tests.soak.faults`). In between,
and at the end, all is made whole and quiet: then every node must be ready, serve, and hold no more files and
memory than before. The last part has no faults, so that nothing may be lost. What was counted is printed as
JSON; the program ends with code 1 if anything was wrong.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.members.audit import log_lines
from tercet.members.audit_lines import parse
from tercet.members.config import ClusterFile
from tests.nodes.network import Namespaces, network
from tests.nodes.on_disk import NodesOnDisk, set_up
from tests.soak.faults import Faults
from tests.soak.members import TIMEOUT_S, Analyst, Owner, Turnstile
from tests.soak.record import Record
from tests.soak.vitals import Vitals, excess, vitals
from tests.soak.witness import Witness
from tests.soak.world import OWNERS, World

logger = logging.getLogger(__name__)

MEMBERS = {"hospital": "owner", "insurer": "owner", "ann": "analyst", "ben": "analyst"}
STORM = 0.8
"""The part of the time that has faults."""
ROUND_S = 150.0
"""Between two pauses, at most."""
INJECTORS = 2
IDLE_S = 30.0
"""How long nodes may take to notice that all clients have left."""


@attrs.define(eq=False)
class Soak:
    """One soak, from the first start of the nodes to the verdict."""

    nodes: NodesOnDisk
    seed: int
    seconds: float
    record: Record = attrs.field(factory=Record)
    world: World = attrs.field(factory=World)
    witness: Witness = attrs.field(factory=Witness)
    owners: Turnstile = attrs.field(factory=Turnstile)
    analysts: Turnstile = attrs.field(factory=Turnstile)
    pauses: list[list[Vitals]] = attrs.field(factory=list)
    """The vitals of all nodes in each pause; the first before anybody came."""

    async def run(self) -> None:
        """Storm, then calm, with pauses."""
        self.pauses.append(await trio.to_thread.run_sync(self._quiet))
        storm, calm = STORM * self.seconds, (1 - STORM) * self.seconds
        rounds = max(1, round(storm / ROUND_S))
        async with trio.open_nursery() as nursery:
            for name, role in MEMBERS.items():
                kind, turnstile = (Owner, self.owners) if role == "owner" else (Analyst, self.analysts)
                member = kind(name, turnstile, self.nodes, self.world, self.record, self.witness, self.seed)
                nursery.start_soon(member.live)
            for number in range(rounds):
                await self._round(storm / rounds, faults=number)
            self.record.calm = True
            for _ in range(2):
                await self._round(calm / 2, faults=None)
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(self._end)

    async def _round(self, seconds: float, *, faults: int | None) -> None:
        """Let everybody work for a while, with faults of a seed or without; then look at the nodes."""
        self.owners.open()
        self.analysts.open()
        with trio.move_on_after(seconds):
            if faults is None:
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:
                rng = random.Random(f"{self.seed} faults {faults}")
                injector = Faults(self.nodes, self.record, rng, timeout_s=TIMEOUT_S)
                for _ in range(INJECTORS):
                    nursery.start_soon(injector.inject)
        await self.analysts.close()  # while owners are still there to sign what they wait for
        await self.owners.close()
        self.pauses.append(await trio.to_thread.run_sync(self._quiet))
        logger.info("%d complaints; %s", len(self.record.complaints), self.pauses[-1])

    def _quiet(self) -> list[Vitals]:
        """Wait until all nodes are ready and idle, and look at each. Complains if one does not become so."""
        try:
            self.nodes.wait_until_ready()
        except AssertionError as error:
            self.record.complain(f"after all faults had ended, nodes were {error}")
        deadline = time.monotonic() + IDLE_S
        while True:
            found = [vitals(self.nodes, index) for index in range(3)]
            if not any(one.clients or one.runs for one in found):
                return found
            if time.monotonic() > deadline:
                self.record.complain(f"all clients had left, and nodes had {found}")
                return found
            time.sleep(0.2)

    # -- the verdict -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        for index in range(3):
            if code := self.nodes.stop(index):
                self.record.complain(f"n{index} ended with code {code} when it was told to stop")
        self.record.complaints += [*excess(self.pauses), *self._audited(), *self._logged()]

    def _audited(self) -> Iterator[str]:
        cluster = ClusterFile.read(self.nodes.cluster)
        for index, node in enumerate(cluster.nodes):
            yield from self.witness.complaints(node.name, self._audit_log(index), node.certificate, OWNERS)

    def _logged(self) -> Iterator[str]:
        """Whatever a node's log has that nobody foresaw."""
        for index in range(3):
            for line in (self.nodes.root / f"n{index}" / "log").read_text().splitlines():
                try:
                    told = json.loads(line)
                except ValueError:
                    yield f"n{index} logged {line!r}"
                    continue
                if "traceback" in told or told["level"] not in ("info", "warning"):
                    yield f"n{index} logged {told['message']} {told.get('traceback', '')[-2000:]}"

    def _audit_log(self, index: int) -> Path:
        return self.nodes.root / f"n{index}" / "audit.log"

    def summary(self) -> dict[str, Any]:
        """All that was counted."""
        events = [Counter(parse(line)["event"] for line in log_lines(self._audit_log(i))) for i in range(3)]
        return {
            "minutes": round(self.seconds / 60, 1),
            "seed": self.seed,
            "cut off and slowed": isinstance(self.nodes.network, Namespaces),
            "load": os.getloadavg(),
            **self.record.summary(),
            "results told": len(self.witness.told),
            "audit lines": {f"n{index}": dict(one) for index, one in enumerate(events)},
            "vitals": [[attrs.asdict(one) for one in pause] for pause in self.pauses],
        }


def main() -> int:
    """Run a soak; the exit code."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    seconds = 60 * float(os.environ.get("TERCET_SOAK_MINUTES", "20"))
    seed = int(os.environ.get("TERCET_SOAK_SEED", str(time.time_ns() % 10**6)))
    faulthandler.dump_traceback_later(2 * seconds + 900, exit=True)
    root = Path(tempfile.mkdtemp(prefix="tercet-soak-"))
    with network() as where:
        nodes = set_up(root, where, members=MEMBERS)
        soak = Soak(nodes, seed, seconds)
        try:
            for index in range(3):
                nodes.configure(index, timeout_s=TIMEOUT_S, grace_s=5.0)
            nodes.start(0, 1, 2)
            trio.run(soak.run)
        finally:
            nodes.close()
    sys.stdout.write(json.dumps(soak.summary(), indent=2) + "\n")
    if soak.record.complaints:
        logger.error("the soak has failed; %s has the nodes' files and logs", root)
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
