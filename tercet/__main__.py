"""`python -m tercet`: the same as the command `tercet`."""

from tercet.cli import app

app(prog_name="tercet")
