"""Check a protocol by its name: `python -m tercet.testing NAME [PARTIES]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tercet.errors import TercetError
from tercet.protocols import registry
from tercet.testing.protocols import check_protocol


def main(arguments: Sequence[str]) -> int:
    """Check; say in one sentence what came of it. The exit status."""
    if not (1 <= len(arguments) <= 2 and all(one.isdigit() for one in arguments[1:])):
        sys.stderr.write(f"usage: python -m tercet.testing NAME [PARTIES]\n{', '.join(registry.names())}\n")
        return 2
    name, *parties = arguments
    try:
        check_protocol(registry.get(name), *map(int, parties))
    except TercetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{name} keeps the promises that were checked\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
