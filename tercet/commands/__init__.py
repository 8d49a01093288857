"""The subcommands of `tercet` for those who run nodes, own data and analyse them.

A module of them is imported when one of its commands is asked for, or the list of all, and imports nothing
of Tercet but errors: what commands need takes longer to import than most of them take, and is imported when
they are called.
"""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

HOMES = {
    **dict.fromkeys(("init", "node", "check"), "tercet.commands.nodes"),
    **dict.fromkeys(("renew", "amend", "adopt"), "tercet.commands.changes"),
    **dict.fromkeys(("backup", "restore", "prune"), "tercet.commands.backups"),
    **dict.fromkeys(("upload", "tables", "drop", "results"), "tercet.commands.tables"),
    **dict.fromkeys(("propose", "plans", "show", "approve", "refuse", "audit"), "tercet.commands.consent"),
    "portal": "tercet.commands.portal",
    **dict.fromkeys(("compare", "calibrate", "transcript"), "tercet.commands.comparison"),
}
"""Which module has which command, in the order of the help."""


class _Commands(UserDict[str, Any]):
    """Commands by name; those of `HOMES` are made when they are first looked up."""

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            module = typer.Typer(rich_markup_mode="markdown")
            module.add_typer(import_module(HOMES[name]).app)
            self.data.update(typer.main.get_group(module).commands)
        return self.data[name]


class Commands(TyperGroup):
    """A group that has the commands of `HOMES` after its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands({**self.commands, **dict.fromkeys(HOMES)})
