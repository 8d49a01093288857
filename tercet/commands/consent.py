"""Commands of who asks for consent, gives it and checks it: `propose`, `plans`, `show`, `approve` and so on.

Studies and plans share the verbs: a number names either.
"""

from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, IdentityPath, at_nodes, say, sentences
from tercet.errors import ConsentError

if TYPE_CHECKING:
    from tercet.client.member_api import WaitingPlan
    from tercet.client.study_api import ShownStudy
    from tercet.commands.console import AtNodes
    from tercet.members.seals import Head
    from tercet.nodes.program import Settings
    from tercet.plans.plan import Plan

app = typer.Typer()

SHOWN_PURPOSE = 80
"""Characters of a purpose in a list."""
LONGEST_NONSENSE = 200
"""Characters that are shown of what no node of this release writes."""

Number = Annotated[str, typer.Argument(help="First digits of a study or plan, as `tercet plans` lists them.")]


@app.command()
def propose(
    study: Annotated[Path, typer.Argument(help="A file that `lake.record` has written.")],
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
) -> None:
    """Ask all owners concerned for their consent to a study: once for all its requests and runs."""
    from tercet.client.study_api import read_study
    from tercet.client.wording import stands

    with sentences(), at_nodes(cluster, identity) as (desk, wait):
        known = wait(desk.studies.propose, read_study(study))
        for line in wait(desk.studies.show, known.digest.hex()).page:
            say(line)
        say(stands(known))


@app.command()
def plans(identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """List studies, and the plans that wait for approval: whose, and who has still to approve them."""
    from tercet.client.wording import one_line, stands
    from tercet.members.rules import moment
    from tercet.members.study_pages import quotation

    with sentences(), at_nodes(cluster, identity) as (desk, wait):
        for known in wait(desk.studies.listed):
            say(
                f"{known.number}  study of {known.analyst} since {moment(known.proposed)}, "
                f"{quotation(known.purpose[:SHOWN_PURPOSE])}; {stands(known)}"
            )
        for one in wait(desk.plans):
            say(
                f"{one.number}  {one_line(one.name)}, for {one.caller} since {moment(one.asked)}; waits for "
                f"{', '.join(one.missing)}"
            )


@app.command()
def show(
    number: Number,
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    svg: Annotated[Path | None, typer.Option(help="Draw a plan to this file.", metavar="FILE.svg")] = None,
) -> None:
    """Show what a study or a waiting plan reads, what comes out, to whom; of a plan, also what it costs."""
    with sentences(), at_nodes(cluster, identity) as nodes:
        if _is_study(nodes, number):
            if svg is not None:
                raise ConsentError(f"{number} is a study, which cannot be drawn; leave out --svg")
            _show_study(nodes, number)
            return
        _, found = _show_plan(nodes, number)
        if svg is not None:
            from tercet.plans.drawing import to_svg

            svg.write_text(to_svg(found), encoding="utf-8")


def _is_study(nodes: AtNodes, number: str) -> bool:
    """Whether a number is a study's. Raises ConsentError if several have it, or nothing."""
    desk, wait = nodes
    studies = [one for one in wait(desk.studies.listed) if number and one.digest.hex().startswith(number)]
    plans = [one for one in wait(desk.plans) if number and one.session.hex().startswith(number)]
    if len(studies) + len(plans) != 1:
        found = len(studies) + len(plans)
        raise ConsentError(
            f"{found or 'no'} studies or plans begin with {number!r}; `tercet plans` lists them"
        )
    return bool(studies)


def _show_study(nodes: AtNodes, number: str) -> ShownStudy:
    from tercet.client.wording import stands

    desk, wait = nodes
    shown: ShownStudy = wait(desk.studies.show, number)
    for line in shown.page:
        say(line)
    say(stands(shown.known))
    say(f"digest {shown.known.digest.hex()}")
    return shown


def _show_plan(nodes: AtNodes, number: str) -> tuple[WaitingPlan, Plan]:
    from tercet.actors.estimate import explain
    from tercet.client.wording import describe_plan

    desk, wait = nodes
    waiting, found = wait(desk.show, number)
    for line in describe_plan(waiting, found, wait(desk.entries)):
        say(line)
    say(str(explain(found, desk.cluster.protocol, len(desk.cluster.nodes), apart=True)))
    return waiting, found


@app.command()
def approve(
    number: Number,
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    yes: Annotated[
        bool, typer.Option("--yes", help="Sign without being asked, after `tercet show`.")
    ] = False,
    uses: Annotated[int | None, typer.Option(help="Of a study, no more runs than so many.", min=1)] = None,
    days: Annotated[float | None, typer.Option(help="Of a study, no longer than so many days.")] = None,
) -> None:
    """Show a study or a waiting plan, ask whether to sign it, and sign: a study for all its runs."""
    from tercet.client.wording import one_line

    with sentences(), at_nodes(cluster, identity) as nodes:
        desk, wait = nodes
        if _is_study(nodes, number):
            shown = _show_study(nodes, number)
            _require_yes(yes)
            wait(partial(desk.studies.approve, shown, uses=uses, days=days))
            say(f"you have approved study {shown.known.number}")
            return
        if uses is not None or days is not None:
            raise ConsentError("a plan is approved for one run, at most a week; leave out --uses and --days")
        waiting, _ = _show_plan(nodes, number)
        _require_yes(yes)
        wait(desk.approve, waiting)
        say(f"plan {waiting.number} ({one_line(waiting.name)}) is approved")


def _require_yes(yes: bool) -> None:
    if not yes and not typer.confirm("sign it?"):
        raise ConsentError("nothing was signed")


@app.command()
def refuse(
    number: Number,
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    reason: Annotated[str, typer.Option("--reason", "--why", help="For who has asked.")] = "",
) -> None:
    """End a study, also one that was approved, or a waiting plan."""
    from tercet.client.wording import one_line

    with sentences(), at_nodes(cluster, identity) as nodes:
        desk, wait = nodes
        if _is_study(nodes, number):
            say(f"study {wait(desk.studies.refuse, number, reason).number} is refused")
            return
        waiting = wait(desk.refuse, number, reason)
        say(f"plan {waiting.number} ({one_line(waiting.name)}) is refused")


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
            from tercet.nodes.program import Settings

            logs = _audit_here(Settings.read(node, may_change=False), again=again, keep=not verify)
        elif identity is not None:
            logs = _audit_all(cluster, identity, again=again, keep=not verify)
        else:
            raise typer.BadParameter("give a node.toml, or your key with --identity")
        for name, head, lines in logs:
            for line in lines:
                say(f"{name} {_audited(line)}")
            say(f"{name}: {head.lines} lines, whole; head {head.digest}")


def _audited(line: str) -> str:
    """A line of a log, of which its node has written what it likes."""
    from tercet.client.wording import one_line
    from tercet.members.audit_lines import understood

    told = understood(line)
    if told is None:
        return f"has a line that makes no sense: {line[:LONGEST_NONSENSE]!a}"
    number, seconds, event, facts = told
    try:
        shown = str(facts)
    except RecursionError:
        shown = "(more than can be shown)"
    return (
        f"{number} {dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ} {one_line(event)} {shown}"
    )


def _audit_here(settings: Settings, *, again: bool, keep: bool) -> list[tuple[str, Head, list[str]]]:
    """The name of a node on its machine, where its log stands, and lines, from the head on that is known."""
    from tercet.members.audit import log_lines
    from tercet.members.audit_lines import check_lines, lines_after, require
    from tercet.members.seals import Head
    from tercet.members.verified import Verified

    path, certificates = settings.file.directory / "audit.log", settings.certificates
    where, noted = str(path), Verified.beside(settings.file.key)
    known = noted.head(*certificates)
    since = Head() if again else known
    lines = log_lines(path, certificates, max(0, since.lines - 1))
    new = lines_after(since, lines, where=where)
    kept = list(new) if keep else []
    head = check_lines(kept if keep else new, certificates, where=where, since=since, known=known)
    if head.lines < known.lines:
        require(head, known, where=where)
    noted.remember({certificates[-1]: head})
    return [(settings.cluster.nodes[settings.index].name, head, kept)]


def _audit_all(
    cluster: Path, identity: Path, *, again: bool, keep: bool
) -> list[tuple[str, Head, list[str]]]:
    """The same of all nodes."""
    from tercet.members.succession import current
    from tercet.members.verified import Verified

    noted = Verified.beside(identity)
    nodes = current(cluster).nodes
    known = {one.name: noted.head(*one.certificates) for one in nodes}
    with at_nodes(cluster, identity) as (desk, wait):
        logs: dict[str, tuple[Head, list[str]]] = wait(partial(desk.audit, known, again=again, keep=keep))
    noted.remember({one.certificate: logs[one.name][0] for one in nodes})
    return [(name, head, lines) for name, (head, lines) in logs.items()]
