"""Commands of who runs a node, to save it, put it back and free its disk: `backup`, `restore`, `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tercet.commands.console import say, sentences
from tercet.errors import ConfigError

if TYPE_CHECKING:
    from tercet.nodes.manifest import Manifest

app = typer.Typer()


@app.command()
def backup(
    config: Annotated[Path | None, typer.Argument(help="The node's file.", metavar="node.toml")] = None,
    directory: Annotated[Path | None, typer.Argument(help="A new or empty directory.", metavar="DIR")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Look whether a backup is whole, instead.", metavar="DIR")
    ] = None,
) -> None:
    """Copy all that a node keeps into a directory, also while it runs, or `--check` such a copy.

    Keys are not copied: keep node.toml, node.key and storage.key apart from it.
    """
    from tercet.nodes.backup import back_up
    from tercet.nodes.manifest import check_backup

    with sentences():
        if check is not None:
            if config is not None:
                raise ConfigError("--check looks at one backup, and at nothing else; give its directory only")
            _tell(check, check_backup(check).manifest)
            return
        if config is None or directory is None:
            raise ConfigError("give node.toml and a directory for the backup, or --check and a backup")
        _tell(directory, back_up(config, directory))


def _tell(directory: Path, manifest: Manifest) -> None:
    say(
        f"{directory} has node {manifest.node} as of {manifest.made}: {len(manifest.files)} files of "
        f"{manifest.total / 1e6:.1f} MB, whole."
    )
    say(f"Its audit log has {manifest.head.lines} lines; head {manifest.head.digest}")
    say(f"It opens with the storage key of the fingerprint {manifest.storage_key}, which is not in it.")


@app.command()
def restore(
    directory: Annotated[Path, typer.Argument(help="A backup.", metavar="DIR")],
    config: Annotated[Path, typer.Argument(help="The node's file.", metavar="node.toml")],
) -> None:
    """Put a node back as a backup has it, where nothing of it is; the node does not run meanwhile.

    A restore that was interrupted is made again in the same way; until then the node does not start.
    """
    from tercet.nodes.restore import restore as put_back

    with sentences():
        manifest = put_back(directory, config).manifest
        say(f"Node {manifest.node} is as it was at {manifest.made}; look at it with")
        say(f"  tercet node --check {config}")
        say("Tables, rules, approvals and uses since then are not here: owners upload tables again.")


@app.command()
def prune(
    config: Annotated[Path, typer.Argument(help="The node's file.", metavar="node.toml")],
    days: Annotated[float, typer.Option(help="What has lain for so long is pruned.")] = 90.0,
    *,
    gone: Annotated[
        bool, typer.Option("--gone", help="Also tables and models of members who were removed.")
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(help="Let links take the place of segments that are there.", metavar="DIR"),
    ] = None,
    really: Annotated[bool, typer.Option("--yes", help="Do it; the node must not run.")] = False,
) -> None:
    """Free what a node need not keep: results and jobs that nobody fetches, and copies from before updates.

    Says only what that is, and how many bytes, unless told to do it.
    """
    from tercet.nodes.prune import prune as free

    with sentences():
        found = free(config, days=days, gone=gone, archive=archive, really=really)
        for one in found:
            say(f"{one.amount.count:>8}  {one.amount.size / 1e6:>10.1f} MB  {one.what}")
        if not really:
            say("Nothing was removed; stop the node, and say --yes.")
