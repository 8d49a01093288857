"""Nodes that are forked from one process which has imported what they need, so that it is done once.

Whoever wants nodes starts it with the name of a protocol and, for each node, the descriptors of its standard
input and output, "IN:OUT". It says the processes' identifiers, a JSON list on one line of its own standard
output. Once its own input has ended it stays until all of them have: only a parent can bury its children, and
until then nobody else has their numbers.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Sequence

from tercet.actors import node
from tercet.compiled import load_all, without_scipy
from tercet.errors import TercetError
from tercet.protocols import registry


def _become(own: tuple[int, int], others: Sequence[int]) -> None:
    """Let this process have a node's input and output, and no other's: these would keep the others alive."""
    os.dup2(own[0], 0)
    os.dup2(own[1], 1)
    for descriptor in {*own, *others} - {0, 1}:
        os.close(descriptor)


def main() -> None:
    """Fork nodes, and wait for them; or, in a child, be one."""
    protocol, *given = sys.argv[1:]
    with contextlib.suppress(TercetError):  # the nodes will say it
        registry.get(protocol)
        with without_scipy():
            load_all()
    gc.freeze()  # children share what the imports made
    pipes = [(int(into), int(out)) for into, _, out in (pair.partition(":") for pair in given)]
    everything = [descriptor for pair in pipes for descriptor in pair]
    pids = []
    for pair in pipes:
        pid = os.fork()
        if pid == 0:
            _become(pair, everything)
            node.main()
            return
        pids.append(pid)
    for descriptor in everything:
        os.close(descriptor)
    sys.stdout.write(json.dumps(pids) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    for pid in pids:
        os.waitpid(pid, 0)
