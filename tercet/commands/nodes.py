"""Commands of who runs a node, or joins a lake: `init`, `node`, `check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, IdentityPath, say, sentences
from tercet.errors import ConfigError

if TYPE_CHECKING:
    from tercet.client.node_checks import Finding
    from tercet.nodes.preflight import Checked

app = typer.Typer()


@app.command()
def init(
    parts: Annotated[
        list[Path] | None, typer.Argument(help="With --cluster: public parts, nodes in their order.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the node or member.")] = "",
    address: Annotated[str, typer.Option(help="Where the others find this node.", metavar="HOST:PORT")] = "",
    role: Annotated[
        list[str] | None,
        typer.Option(help="Make a member's key instead: owner, analyst, operator, auditor."),
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="Merge public parts into this file.", metavar="cluster.toml")
    ] = None,
    protocol: Annotated[str, typer.Option(help="With --cluster: the protocol to run.")] = "replicated",
    directory: Annotated[Path | None, typer.Option(help="Where to write.")] = None,
    listen: Annotated[str, typer.Option(help="host:port to listen at, if not all interfaces.")] = "",
    metrics: Annotated[str, typer.Option(help="host:port for /health and /metrics.")] = "127.0.0.1:9464",
    threads: Annotated[int, typer.Option(help="Cores that the node's plans may use.")] = 1,
) -> None:
    """Make keys and files: of a node, of a member, or of the whole lake.

    Everybody runs it once and passes the public part (public.toml) on; `--cluster` merges these into the file
    that all need. What is missing is asked for.
    """
    from tercet.members.config import ROLES, ClusterFile
    from tercet.members.succession import digits
    from tercet.nodes import setup

    with sentences():
        if cluster is not None:
            found = setup.make_cluster(parts or [], cluster, protocol=protocol)
            say(f"{cluster} has {len(found.nodes)} nodes and {len(found.members)} members; give it to all.")
            return
        if parts:
            raise ConfigError("public parts are merged with --cluster cluster.toml; say where to write it")
        name = name or _ask("Name of the node or member", "--name")
        if not role and not address:
            answer = _ask("Address of the node as host:port, or a role of a member", "--address or --role")
            role, address = ([answer], "") if answer in ROLES else (None, answer)
        if role:
            public = setup.make_member(name, role, directory or Path())
            (entry,) = ClusterFile.read_part(public).entries
            say(f"The key of {name} is {public.with_name(name + '.key')}: keep it. Pass {public} on.")
            say(f"Its digits are {digits(entry)}, for an operator who adds it to a lake to compare.")
            return
        place = directory or Path(name)
        public = setup.make_node(name, address, place, listen=listen, metrics=metrics, threads=threads)
        say(f"Node {name} is set up in {place}. Pass {public} on, put cluster.toml beside it, and run")
        say(f"  tercet node {place / 'node.toml'}")


def _ask(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"give {option}")
    return str(typer.prompt(what))


@app.command()
def node(
    config: Annotated[Path, typer.Argument(help="The node's file.")] = Path("node.toml"),
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    *,
    log_lost: Annotated[
        bool,
        typer.Option("--log-lost", help="Start on an audit log that has lost lines; its next line says so."),
    ] = False,
    only_check: Annotated[
        bool, typer.Option("--check", help="Say what a start would refuse, and change nothing.")
    ] = False,
) -> None:
    """Run a node until it is told to stop (SIGTERM); its log goes to standard error, as JSON lines."""
    from tercet.nodes import preflight, program

    if only_check:
        _tell(preflight.check_node(config))
        return
    with sentences():
        program.settle_memory(config)
        program.main(config, level=log_level, log_lost=log_lost)


@app.command()
def check(identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """Connect to every node, and say what is wrong: network, clock, version, certificate, protocol, disk."""
    import trio

    from tercet.client import node_checks as checks

    with sentences():
        file, own, found = checks.check_files(cluster, identity)
        found = [*found, *trio.run(checks.check_nodes, file, own)]
    _tell(found)


def _tell(found: Sequence[Finding | Checked]) -> None:
    """A line for each finding; exit code 1 if one is bad."""
    for one in found:
        say(f"{'ok  ' if one.good else 'BAD '} {one.where}: {one.what}")
    if not all(one.good for one in found):
        raise typer.Exit(1)
