"""The table of `docs/studies.md`: how well `explain` predicts seconds, on some plans, protocols and networks.

`python -m tercet.comparison` calibrates this machine and measures every setting, in about four minutes where
nothing else runs; with the name of a page it puts the table into the page, in place of the one that is there.
The machine's own profile is left as it is.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from tercet.actors.machine import VARIABLE, save_profile
from tercet.comparison.calibration import calibrate
from tercet.comparison.report import cells, markdown
from tercet.comparison.study import CLOSE, Measurement, compare, protocol_of

PROTOCOLS = ("replicated", "rep4", "shamir:3", "shamir:5", "plain")
SETTINGS = (
    ("join", "replicated", "lan", 1000),
    ("join", "replicated", "3ms", 10000),
    ("join", "shamir:3", "lan", 1000),
    ("join", "rep4", "lan", 1000),
    ("operations", "replicated", "lan", 1000),
    ("operations", "replicated", "lan", 20000),
    ("operations", "replicated", "wan", 20000),
    ("operations", "shamir:3", "lan", 1000),
    ("operations", "shamir:3", "3ms", 5000),
    ("operations", "rep4", "lan", 1000),
    ("operations", "rep4", "lan", 20000),
    ("operations", "plain", "none", 20000),
    ("train", "replicated", "lan", 1000),
    ("train", "replicated", "3ms", 1000),
    ("train", "replicated", "10ms/100mbit", 5000),
    ("train", "replicated", "none", 100000),
    ("train", "rep4", "lan", 1000),
    ("train", "rep4", "none", 100000),
    ("demo", "replicated", "3ms", 500),
    ("demo", "rep4", "3ms", 500),
    ("demo", "replicated", "wan", 500),
    ("demo", "shamir:3", "3ms", 500),
    ("demo", "shamir:5", "3ms", 500),
    ("demo", "plain", "none", 500),
)
"""Plans, protocols, networks and rows."""
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


def measure(say: Callable[[str], None]) -> list[Measurement]:
    """Calibrate every protocol, then run every setting, and say how far it is."""
    profile = {}
    for name in PROTOCOLS:
        protocol, parties = protocol_of(name)
        count, machine = trio.run(calibrate, protocol, parties)
        profile[protocol, count] = machine
        say(f"calibrated {name}: a round takes {machine.round_s * 1e3:.2f} ms")
    save_profile(profile)
    found = []
    for plan, protocol, network, rows in SETTINGS:
        (one,) = compare(plan, protocols=[protocol], networks=[network], rows=[rows])
        found.append(one)
        say(", ".join(cells(one)))
    return found


def section(found: list[Measurement]) -> str:
    """The table, with what it shows."""
    close = sum(one.predicted_well for one in found)
    today = dt.datetime.now(tz=dt.UTC).date()
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    return (
        f"{close} of {len(found)} predictions are within {CLOSE - 1:.0%} of what was measured "
        f"({today}, {cores} cores, load {load:.1f} at the end).\n\n{markdown(found)}"
    )


def main(pages: list[str]) -> None:
    """Measure, and print the table or put it into a page."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "machine.json")
        text = section(measure(lambda line: print(line, file=sys.stderr)))  # noqa: T201
    sys.stdout.write(text)
    for page in map(Path, pages):
        old = page.read_text(encoding="utf-8")
        new = re.sub(f"(?s)(?<={BEGIN}).*?(?={END})", lambda _: "\n" + text + "\n", old)
        if new == old:
            sys.exit(
                f"{page} has no lines {BEGIN.strip()} and {END.strip()} to put the table between; add them"
            )
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
