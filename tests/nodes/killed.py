"""A prune that is killed at each of its steps in turn, and made again: a program of its own, for it forks.

Steps are what it changes in the catalog and in directories, as the interpreter tells its audit hooks.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tercet.nodes.preflight import check_node
from tercet.nodes.program import Settings
from tercet.nodes.prune import Pruned, prune
from tercet.nodes.vault import Vault
from tests.kills import killed

CHANGES = {"os.remove", "os.rename", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR


def pruned(toml: Path, archive: Path) -> list[Pruned]:
    return prune(toml, days=90, gone=True, archive=archive, really=True)


def killed_at(toml: Path, archive: Path, at: int) -> bool:
    """Whether a prune was killed at its step of that number, or had ended before."""
    return killed(
        lambda: pruned(toml, archive),
        at,
        statement=lambda text: text.startswith(("INSERT", "UPDATE", "DELETE")),
        event=lambda name, told: name in CHANGES or (name == "open" and bool(told[2] & WRITES)),
    )


def require_whole(toml: Path) -> None:
    """That a start would be refused nothing, and finds all files that the catalog names, and no others."""
    assert [one for one in check_node(toml) if not one.good] == []
    vault = Vault(Settings.read(toml).file)
    handles = {*vault.catalog.handles(), *vault.journal.handles()}
    for handle in handles:
        vault.files.load(handle)
    assert handles >= {"ages#1", "ages#2", "loose", "point"}
    assert len(vault.files.files.names()) == len(handles)
    vault.catalog.close()


def main(toml: Path, archive: Path, saved: Path) -> None:
    """Say how often it was killed."""
    at = 0
    while killed_at(toml, archive, at):
        require_whole(toml)
        pruned(toml, archive)
        assert [one.amount.count for one in prune(toml, days=90, gone=True, archive=archive)] == [0] * 5
        shutil.rmtree(toml.parent)
        shutil.copytree(saved, toml.parent, symlinks=True)
        at += 1
    require_whole(toml)  # once it was not killed
    sys.stdout.write(str(at))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
