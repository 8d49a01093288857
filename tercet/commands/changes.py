"""Commands by which a lake changes over the years: `renew`, `amend` and `adopt`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, say, sentences
from tercet.errors import ConfigError, ConsentError

if TYPE_CHECKING:
    from tercet.members.config import ClusterFile

app = typer.Typer()

NOTICE = dt.timedelta(days=1)
"""How long an amendment gives everybody to take it up, unless told otherwise."""


@app.command()
def renew(
    path: Annotated[Path, typer.Argument(help="A node's node.toml, or a member's NAME.key.")],
    cluster: ClusterPath = DEFAULT_CLUSTER,
    days: Annotated[float, typer.Option(help="How long the new certificate is valid.", min=1)] = 365.0,
    *,
    storage: Annotated[
        bool, typer.Option("--storage-key", help="Of a node: renew storage.key instead.")
    ] = False,
) -> None:
    """Make a new key of a node or member, for which the one before vouches, or a node's new storage key."""
    from tercet.members import succession
    from tercet.members.config import ClusterFile
    from tercet.members.node_file import NodeFile
    from tercet.nodes import setup
    from tercet.nodes.vault import renew_storage_key

    with sentences():
        file = NodeFile.read(path) if path.suffix == ".toml" else None
        if storage:
            if file is None:
                raise ConfigError("only nodes have a storage key; give node.toml")
            before = renew_storage_key(file)
            say(
                f"{file.storage_key} is a new key; back it up. {before} is the one before: keep it as long as"
            )
            say("you keep backups of the catalog from before, and destroy it with them.")
            return
        key, lake = (path, cluster) if file is None else (file.key, file.cluster)
        public = setup.renew_key(key, succession.current(lake), days=days)
        (entry,) = ClusterFile.read_part(public).entries
        say(f"{key} has a new key, beside those before it, with the digits {succession.digits(entry)}.")
        say(f"Pass {public} on to an operator, who runs")
        say(f"  tercet amend next.toml {public}")
        say("The lake goes by the key before until that takes effect, and finds the new one by itself.")


@app.command()
def amend(
    file: Annotated[Path, typer.Argument(help="The file that follows; made if it is not there.")],
    parts: Annotated[
        list[Path] | None,
        typer.Argument(help="Public parts, of new members or in the place of earlier ones."),
    ] = None,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    remove: Annotated[list[str] | None, typer.Option(help="A member who goes, for good.")] = None,
    revoke: Annotated[
        list[str] | None, typer.Option(help="Whose earlier keys are not to count any more.")
    ] = None,
    move: Annotated[
        list[str] | None, typer.Option(help="A node's new address.", metavar="NAME=HOST:PORT")
    ] = None,
    at: Annotated[str, typer.Option(help='When it takes effect, in UTC, or "now"; else in a day.')] = "",
    sign: Annotated[
        Path | None, typer.Option(help="Sign it with this node's key.", metavar="node.key")
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked.")] = False,
) -> None:
    """Make the cluster.toml that follows the present one, show what changes, and sign it.

    It takes effect with signatures of more than half of the nodes; pass it from operator to operator.
    """
    from tercet.client.wording import one_line
    from tercet.members import succession
    from tercet.members.config import ClusterFile
    from tercet.nodes import setup

    with sentences():
        before = succession.current(cluster)
        if file.exists():
            if parts or remove or revoke or move or at:
                raise ConfigError(f"{file} is there already; only sign it, or remove it to make another")
            after = ClusterFile.parse(file.read_bytes(), str(file))
            succession.require_follows(before, after)
        else:
            after = succession.draft(
                before,
                [ClusterFile.read_part(part) for part in parts or []],
                removed=remove or [],
                revoked=revoke or [],
                addresses=dict(map(_moved, move or [])),
                takes_effect=_when(at),
            )
            after.write(file)
        say(f"number {after.number} of this lake's cluster.toml takes effect on {_moment(after)}:")
        for change in succession.changes(before, after):
            say(f"  - {one_line(change)}")
        if sign is not None:
            if not yes and not typer.confirm("sign it?"):
                raise ConsentError("nothing was signed")
            after = succession.sign(before, after, setup.keys_of_node(sign, before))
            after.write(file)
        signed, needed = len(after.signatures), len(before.nodes) // 2 + 1
        names = ", ".join(one.node for one in after.signatures) or "nobody"
        say(f"signed by {names}, of {needed} that it takes")
        say(f"  tercet {f'adopt {file}' if signed >= needed else f'amend {file} --sign node.key'}")


def _moved(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals:
        raise ConfigError(f"--move {text} is not of the form NAME=HOST:PORT")
    return name, address


def _when(text: str) -> dt.datetime:
    now = dt.datetime.now(dt.UTC)
    if text in ("", "now"):
        return now if text else now + NOTICE
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--at {text} is no time; write 2027-01-31T12:00, which is in UTC") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _moment(file: ClusterFile) -> str:
    return (
        "" if file.takes_effect is None else f"{file.takes_effect.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    )


@app.command()
def adopt(
    file: Annotated[
        Path | None, typer.Argument(help="The file that follows; without, what the nodes have.")
    ] = None,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    identity: Annotated[
        Path | None,
        typer.Option("--identity", envvar="TERCET_IDENTITY", help="Your key.", metavar="NAME.key"),
    ] = None,
    node: Annotated[
        Path | None, typer.Option(help="On a node's machine: its node.toml.", metavar="node.toml")
    ] = None,
) -> None:
    """Take up the cluster.toml that follows the present one; an operator gives it to all nodes, too.

    It waits beside the present one, and takes its place when it takes effect.
    """
    import trio

    from tercet.client import node_checks
    from tercet.client.reach import who_am_i
    from tercet.members import succession
    from tercet.members.node_file import NodeFile

    with sentences():
        path = cluster if node is None else NodeFile.read(node).cluster
        before = succession.current(path)
        keys = None if identity is None or node is not None else who_am_i(before, identity, path)
        if file is not None:
            packed = file.read_bytes()
        elif keys is not None:
            packed = trio.run(node_checks.fetch_amendment, before, keys.identity)
        else:
            raise ConfigError(
                "give the file that follows, or your key with --identity to get it from the nodes"
            )
        before, after = succession.place(path, packed)
        say(f"number {after.number} of {path} takes the place of number {before.number} on {_moment(after)}")
        member = None if keys is None else before.member(keys.identity.name)
        if keys is None or member is None or "operator" not in member.roles or file is None:
            return
        found = trio.run(node_checks.give_amendment, before, keys.identity, packed)
        for finding in found:
            say(f"{'ok  ' if finding.good else 'BAD '} {finding.where}: {finding.what}")
        if not all(finding.good for finding in found):
            raise typer.Exit(1)
