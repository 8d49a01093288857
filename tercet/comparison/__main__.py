"""The table of `docs/studies.md`: how well `explain` predicts seconds, on some plans, protocols and networks.

`python -m tercet.comparison` calibrates this machine and measures every setting, in about four minutes
where nothing else runs; with the name of a page it puts the table into the page, in place of the one that
is there, and a plot of four protocols beside it. It is run from the root of a checkout, for its examples.
The machine's own profile is left as it is.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from tercet.actors.machine import VARIABLE, save_profile
from tercet.comparison.calibration import calibrate
from tercet.comparison.measurements import CLOSE, Measurement, Origin
from tercet.comparison.networks import NETWORKS
from tercet.comparison.outcome import Comparison
from tercet.comparison.report import plot
from tercet.comparison.study import compare, protocol_of

PROTOCOLS = ("replicated", "rep4", "shamir:3", "shamir:5")
SETTINGS = (
    *(
        (plan, protocol, "lan", 1000)
        for plan in ("join", "operations", "train")
        for protocol in ("replicated", "shamir:3", "rep4", "plain")
    ),
    ("join", "replicated", "3ms", 10000),
    ("operations", "replicated", "lan", 20000),
    ("operations", "rep4", "lan", 20000),
    ("operations", "replicated", "wan", 20000),
    ("operations", "shamir:3", "3ms", 5000),
    ("train", "replicated", "3ms", 1000),
    ("train", "replicated", "10ms/100mbit/2ms", 5000),
    ("train", "replicated", "none", 100000),
    ("train", "rep4", "none", 100000),
    ("examples/ridge.py", "replicated", "3ms", 20000),
    ("examples/ridge.py", "shamir:3", "3ms", 20000),
    ("examples/ridge.py", "rep4", "10ms/100mbit/2ms", 100000),
    ("demo", "replicated", "3ms", 500),
    ("demo", "shamir:3", "3ms", 500),
    ("demo", "rep4", "3ms", 500),
    ("demo", "replicated", "wan", 500),
    ("demo", "shamir:5", "3ms", 500),
)
"""Plans, protocols, networks and rows; the first of them, on a LAN and 1,000 rows, are drawn."""
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
        say(f"{plan}, {protocol}, {network}, {rows:,} rows: {one.seconds:.3g} s")
    return found


def section(found: list[Measurement], drawing: str) -> str:
    """The table, with what it shows, and the plot."""
    close = sum(one.predicted_well for one in found)
    predicted = sum(not math.isnan(one.predicted_seconds) for one in found)
    return (
        f"{close} of {predicted} predictions are within {CLOSE - 1:.0%} of what was measured "
        f"(load {os.getloadavg()[0]:.1f} at the end).\n\n"
        f"![Rounds, bytes, seconds, memory and error of four protocols]({drawing})\n\n"
        f"{Comparison(Origin.here(), tuple(found)).markdown()}"
    )


def main(pages: list[str]) -> None:
    """Measure, and print the table or put it into a page."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "machine.json")
        found = measure(lambda line: print(line, file=sys.stderr))  # noqa: T201
    sys.stdout.write(str(Comparison(Origin.here(), tuple(found))))
    for page in map(Path, pages):
        drawing = page.with_suffix(".svg")
        text = section(found, drawing.name)
        old = page.read_text(encoding="utf-8")
        new = re.sub(f"(?s)(?<={BEGIN}).*?(?={END})", lambda _, text=text: "\n" + text + "\n", old)  # type: ignore[misc]
        if new == old:
            sys.exit(
                f"{page} has no lines {BEGIN.strip()} and {END.strip()} to put the table between; add them"
            )
        page.write_text(new, encoding="utf-8")
        plot([one for one in found if one.network == NETWORKS["lan"] and one.rows == 1000], drawing)


if __name__ == "__main__":
    main(sys.argv[1:])
