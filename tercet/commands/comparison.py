"""Commands of who studies protocols: `compare`, `calibrate`, `transcript`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tercet.commands.console import say, sentences
from tercet.errors import PlanError, ProtocolError, TercetError

if TYPE_CHECKING:
    from tercet import comparison
    from tercet.actors import transcript

app = typer.Typer()
transcripts = typer.Typer(
    no_args_is_help=True,
    help="Record, read, replay and draw what parties say in a run. Transcripts hold all its secrets.",
)
app.add_typer(transcripts, name="transcript")

Recorded = Annotated[Path, typer.Argument(help="A file that `tercet transcript record` wrote.")]
Number = Annotated[int, typer.Option(help="Which plan of the recording, from 1.", min=1)]


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def compare(
    plans: Annotated[
        list[str],
        typer.Argument(
            help="join, train, evaluate, demo, operations, functions of yours as in study.py:workload or "
            "package.module:workload, or a .json that --out wrote.",
            metavar="PLAN...",
        ),
    ],
    protocols: Annotated[
        str | None,
        typer.Option(help="Protocols, as in replicated,shamir:5.", show_default="replicated,plain"),
    ] = None,
    networks: Annotated[
        str | None,
        typer.Option(
            help="none, lan, wan, or latency, bandwidth, jitter as in 10ms/50mbit/2ms.",
            show_default="lan",
        ),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Numbers of rows, as in 1000,10000.", show_default="1000")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(help="Runs of each setting, for medians and ranges.", show_default="1")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Set against results of another machine or release.", metavar="FILE.json"),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="What to print: table, markdown, latex, json, csv.", metavar="FORMAT"),
    ] = "table",
    out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write a file: .txt, .md, .tex, .json, .csv, .png, .svg, .pdf.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Run plans under several protocols, networks and sizes, and compare what they take.

    Nodes are processes on this machine that talk TLS; links are slowed down as a network says. Prints rounds,
    bytes, seconds measured and predicted, memory, the largest error against the clear reference, and ratios
    to the first protocol. Of results in a .json, nothing is run.
    """
    from tercet import comparison
    from tercet.comparison.outcome import FORMATS, require_writable

    with sentences():
        given = {"protocols": protocols, "networks": networks, "rows": rows, "repeat": repeat}
        asked = {name: value for name, value in given.items() if value is not None}
        if form not in FORMATS:
            raise PlanError(f"there is no format {form!r}; choose one of {', '.join(FORMATS)}")
        for path in out or []:
            require_writable(path)
        earlier = None if against is None else comparison.load(against)
        failed: TercetError | None = None
        if plans[0].endswith(".json"):
            found = _read(plans, asked)
        else:
            found, failed = _measured(plans, asked)
        console = Console()
        text = found.written(form, console.width if console.is_terminal else None, earlier)
        console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        for path in out or []:
            found.write(path, earlier)
        if failed is not None:
            raise failed


def _read(plans: list[str], asked: Mapping[str, Any]) -> comparison.Comparison:
    """Results of an earlier run, which has had its options."""
    from tercet import comparison

    if len(plans) > 1 or asked:
        more = ", ".join([*plans[1:], *(f"--{name}" for name in asked)])
        raise PlanError(f"{plans[0]} has results already; leave out {more}, or name plans to run")
    return comparison.load(plans[0])


def _measured(plans: list[str], asked: Mapping[str, Any]) -> tuple[comparison.Comparison, TercetError | None]:
    """Results of a run, which says on standard error how far it is; and why it ended early, if it did."""
    from tercet import comparison

    options: dict[str, Any] = {
        name: _list(value) if isinstance(value, str) else value for name, value in asked.items()
    }
    if "rows" in options:
        try:
            options["rows"] = [int(one) for one in options["rows"]]
        except ValueError:
            raise typer.BadParameter(f"{asked['rows']!r} is no list of numbers of rows") from None
    progress = Console(stderr=True)
    measured: list[comparison.Measurement] = []

    def tell(one: comparison.Measurement) -> None:
        measured.append(one)
        told = f"{one.plan}, {one.label}, {one.network.name}, {one.rows:,} rows: {one.seconds:.3g} s"
        progress.print(told, markup=False, highlight=False, soft_wrap=True)

    try:
        return comparison.compare(plans, progress=tell, **options), None
    except TercetError as error:
        if not measured:
            raise
        return comparison.Comparison(comparison.Origin.here(), tuple(measured)), error


@app.command()
def calibrate(
    protocols: Annotated[str, typer.Option(help="Protocols, as in replicated,shamir:5.")] = "replicated",
    repeat: Annotated[int, typer.Option(help="Runs of each probe.", min=1)] = 3,
) -> None:
    """Measure what this machine takes for each kind of operation, so that `explain` predicts its seconds."""
    import trio

    from tercet import comparison
    from tercet.actors.machine import load_profile, save_profile
    from tercet.comparison.calibration import calibrate as measure

    with sentences():
        profile = load_profile()
        for protocol, parties in map(comparison.protocol_of, _list(protocols)):
            count, machine = trio.run(partial(measure, protocol, parties, repeat=repeat))
            profile[protocol, count] = machine
        path = save_profile(profile)
        Console().print(f"The profile is in {path}.", highlight=False, soft_wrap=True)


@transcripts.command()
def record(
    plan: Annotated[str, typer.Argument(help="join, train, evaluate, demo, operations, or a file.")],
    out: Annotated[Path, typer.Option(help="Where to write it.", metavar="FILE")] = Path("run.transcript"),
    protocol: Annotated[str, typer.Option(help="The protocol to run on.")] = "replicated",
    parties: Annotated[int | None, typer.Option(help="How many nodes.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of the made-up tables.", min=1)] = 100,
) -> None:
    """Run a plan on made-up tables, with all nodes in this process, and write down all that they say."""
    from tercet import comparison
    from tercet.actors import transcript
    from tercet.client.lake import local

    with sentences():
        workload = comparison.find(plan)
        with local(protocol=protocol, parties=parties) as lake, transcript.recording() as tapes:
            workload(lake, rows)
        transcript.save(tapes, out)
        for number, run in enumerate(transcript.runs(tapes), 1):
            words = sum(one.words for tape in run for one in tape.heard)
            say(f"{number:>3}  {run[0].plan.name}  {8 * words:,} bytes")
        say(f"The transcript is in {out}. It holds every secret of the run.")


@transcripts.command(name="print")
def print_(
    file: Recorded, number: Number = 1, rounds: Annotated[int, typer.Option(help="Rounds to print.")] = 50
) -> None:
    """Print who sent what in which round."""
    from tercet.actors import transcript

    with sentences():
        for line in transcript.conversation(_run(file, number)):
            if line.round <= rounds:
                say(str(line))


@transcripts.command()
def replay(
    file: Recorded,
    number: Number = 1,
    party: Annotated[int, typer.Option(help="The party that runs again.")] = 0,
) -> None:
    """Run one party again, alone, with the messages that its peers sent; it must end in the same shares."""
    import trio

    from tercet.actors.replay import replay as run_again

    with sentences():
        run = _run(file, number)
        tape = next((tape for tape in run if tape.party == party), None)
        if tape is None:
            raise PlanError(f"{file} has no party {party}; it has {', '.join(str(one.party) for one in run)}")
        again = trio.run(run_again, tape)
        say(f"{tape.plan.name}: {again.seconds:.3g} s alone, {tape.seconds:.3g} s among its peers")
        if again.differing:
            raise ProtocolError(f"party {party} ended in other shares: {again.differing} words differ")
        if again.said_otherwise:
            raise ProtocolError(f"party {party} said something else: {again.said_otherwise} messages differ")
        say("It said the same, and ended in the same shares.")


@transcripts.command()
def draw(
    file: Recorded,
    number: Number = 1,
    out: Annotated[Path, typer.Option(help="The drawing.", metavar="FILE.svg")] = Path("run.svg"),
) -> None:
    """Draw a plan with its rounds and the bytes that were sent for each node."""
    from tercet.actors import transcript

    with sentences():
        out.write_text(transcript.draw(_run(file, number)))
        say(f"The drawing is in {out}.")


def _run(file: Path, number: int) -> list[transcript.Tape]:
    """The tapes of one run of a recording."""
    from tercet.actors import transcript

    found = transcript.runs(transcript.load(file))
    if number > len(found):
        raise PlanError(f"{file} has {len(found)} plans; there is no number {number}")
    return found[number - 1]
