"""Commands of who gives consent, and of who checks it: `plans`, `show`, `approve`, `refuse`, `audit`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

import tercet
from tercet.actors.plan import Plan
from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, IdentityPath, say, sentences
from tercet.consent.audit import Head, check_lines, lines_after, log_lines, parse, require
from tercet.consent.verified import Verified
from tercet.nodes.config import ClusterFile
from tercet.nodes.desk import WaitingPlan
from tercet.nodes.program import Settings

app = typer.Typer()

Log = tuple[str, Head, list[str]]
"""The name of a node, where its log stands, and lines of it."""
SHOWN_APART = ("before", "number", "time", "event")

Number = Annotated[str, typer.Argument(help="First digits of the plan, as `tercet plans` lists it.")]


@app.command()
def plans(identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """List the plans that wait for approval, and whose."""
    with sentences(), tercet.connect(cluster, identity=identity) as lake:
        for one in lake.plans():
            asked = dt.datetime.fromtimestamp(one.asked, dt.UTC)
            say(
                f"{one.number}  {one.name}, for {one.caller} since {asked:%Y-%m-%d %H:%M} UTC; waits for "
                f"{', '.join(one.missing)}"
            )


@app.command()
def show(
    plan: Number,
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    svg: Annotated[Path | None, typer.Option(help="Draw the plan to this file.", metavar="FILE.svg")] = None,
) -> None:
    """Show what a waiting plan reads, reveals, to whom, and what it costs."""
    with sentences(), tercet.connect(cluster, identity=identity) as lake:
        waiting, found = lake.show(plan)
        protocol, parties = lake.cluster.protocol, lake.cluster.parties
        owners = {handle: f"{one.kind} {one.name}" for one in lake.entries() for handle in one.handles}
        for line in _describe(waiting, found, owners):
            say(line)
        say(str(found.explain(protocol, parties, apart=True)))
        if svg is not None:
            svg.write_text(found.svg(), encoding="utf-8")


def _describe(waiting: WaitingPlan, plan: Plan, owners: dict[str, str]) -> list[str]:
    handles = [str(node.get("handle")) for node in plan.nodes if node.kind == "input"]
    reads = [owners.get(handle, f"what was computed before: {handle}") for handle in handles]
    lines = [f"plan {waiting.number}: {plan.name}, for {waiting.caller}", "it reads"]
    lines += [f"  - {one}" for one in dict.fromkeys(reads)]
    lines.append("it reveals" if plan.disclosures() else "it reveals nothing")
    lines += [f"  - {item}" for item in plan.disclosures()]
    return [*lines, f"digest {plan.digest().hex()}"]


@app.command()
def approve(plan: Number, identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """Sign a waiting plan, for one run of it: `tercet show` says what it does."""
    with sentences(), tercet.connect(cluster, identity=identity) as lake:
        waiting = lake.approve(plan)
        say(f"plan {waiting.number} ({waiting.name}) is approved")


@app.command()
def refuse(
    plan: Number,
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    why: Annotated[str, typer.Option(help="A reason, for who has asked.")] = "",
) -> None:
    """End a waiting plan."""
    with sentences(), tercet.connect(cluster, identity=identity) as lake:
        waiting = lake.refuse(plan, why)
        say(f"plan {waiting.number} ({waiting.name}) is refused")


@app.command()
def audit(
    node: Annotated[Path | None, typer.Argument(help="At a node: its node.toml.")] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", envvar="TERCET_IDENTITY", help="Your key.")
    ] = None,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    whole: Annotated[bool, typer.Option("--all", help="Show all lines, not only those since then.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Verify all lines, and show none.")] = False,
) -> None:
    """Show what is new in the audit log of a node, or in those of all nodes, and verify it.

    How far logs were verified is noted beside your key, or the node's, and the next time goes on from there.
    Note the heads that it prints elsewhere too: a log that was cut at its end has an earlier one.
    """
    again = whole or verify
    with sentences():
        if node is not None:
            logs = _audit_here(Settings.read(node), again=again, keep=not verify)
        elif identity is not None:
            logs = _audit_all(cluster, identity, again=again, keep=not verify)
        else:
            raise typer.BadParameter("give a node.toml, or your key with --identity")
        for name, head, lines in logs:
            for line in map(parse, lines):
                facts = {key: value for key, value in line.items() if key not in SHOWN_APART}
                when = dt.datetime.fromtimestamp(line["time"], dt.UTC)
                say(f"{name} {line['number']} {when:%Y-%m-%dT%H:%M:%SZ} {line['event']} {facts}")
            say(f"{name}: {head.lines} lines, whole; head {head.digest}")


def _audit_here(settings: Settings, *, again: bool, keep: bool) -> list[Log]:
    """The log of a node on its machine, from the head on that is known of it."""
    path, certificate = settings.file.directory / "audit.log", settings.identity.certificate_pem
    where, noted = str(path), Verified.beside(settings.file.key)
    known = noted.head(certificate)
    since = Head() if again else known
    lines = log_lines(path, certificate, max(0, since.lines - 1))
    new = lines_after(since, lines, where=where)
    kept = list(new) if keep else []
    head = check_lines(kept if keep else new, certificate, where=where, since=since, known=known)
    if head.lines < known.lines:
        require(head, known, where=where)
    noted.remember({certificate: head})
    return [(settings.cluster.nodes[settings.index].name, head, kept)]


def _audit_all(cluster: Path, identity: Path, *, again: bool, keep: bool) -> list[Log]:
    """The logs of all nodes, from the heads on that are known of them."""
    noted = Verified.beside(identity)
    nodes = ClusterFile.read(cluster).nodes
    known = {one.name: noted.head(one.certificate) for one in nodes}
    with tercet.connect(cluster, identity=identity) as lake:
        logs = lake.audit(known, again=again, keep=keep)
    noted.remember({one.certificate: logs[one.name][0] for one in nodes})
    return [(name, head, lines) for name, (head, lines) in logs.items()]
