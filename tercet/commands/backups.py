"""Commands of who runs a node, to save it and to put it back: `backup`, `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tercet.commands.console import say, sentences
from tercet.errors import ConfigError
from tercet.nodes.backup import back_up
from tercet.nodes.manifest import Manifest, check_backup
from tercet.nodes.restore import restore as put_back

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
    with sentences():
        manifest = put_back(directory, config).manifest
        say(f"Node {manifest.node} is as it was at {manifest.made}; look at it with")
        say(f"  tercet node --check {config}")
        say("Tables, rules, approvals and uses since then are not here: owners upload tables again.")
