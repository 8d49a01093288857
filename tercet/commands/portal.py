"""Commands of who would rather click: `portal`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, say, sentences
from tercet.errors import ConfigError

app = typer.Typer()
ENDS = [getattr(signal, one) for one in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, one)]
NEEDED = {
    "hypercorn": "hypercorn",
    "jinja2": "jinja2",
    "multipart": "python-multipart",
    "starlette": "starlette",
}


@app.command()
def portal(
    identity: Annotated[
        Path | None,
        typer.Option("--identity", envvar="TERCET_IDENTITY", help="Your key.", metavar="NAME.key"),
    ] = None,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    port: Annotated[
        int,
        typer.Option(help="Port of 127.0.0.1 to listen at; by default any.", min=0, max=65535),
    ] = 0,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Start a lake of made-up owners here, and their portals."),
    ] = False,
) -> None:
    """Open the lake in your browser, on this machine alone: the key stays here.

    Prints a link that works once. Needs the extra `portal`.
    """
    with sentences():
        missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
        if missing:
            raise ConfigError(f"the portal needs {', '.join(missing)}; run pip install 'tercet[portal]'")
        if demo:
            from tercet.demo.portal_demo import run

            _until_stopped(partial(run, say))
            return
        if identity is None:
            raise ConfigError("give your key with --identity, or look at made-up owners with --demo")
        from tercet.portal.app import serve

        _until_stopped(partial(serve, cluster, identity, port=port, on_link=_tell))


def _until_stopped(main: Callable[[], Awaitable[None]]) -> None:
    """Run until Ctrl-C, or until the system or a terminal that is closed says so: nothing is left behind."""
    import trio

    try:
        trio.run(_until_told, main)
    except* KeyboardInterrupt:
        pass
    with contextlib.suppress(OSError):  # the terminal may be gone
        say("The portal is closed.")


async def _until_told(main: Callable[[], Awaitable[None]]) -> None:
    import trio

    from tercet.actors.line import plain_errors

    wanted = [one for one in ENDS if signal.getsignal(one) is not signal.SIG_IGN]  # as by nohup

    async def wait(task_status: trio.TaskStatus[None]) -> None:
        # Else Ctrl-C would be raised wherever Python is just then, in the middle of an answer perhaps. And a
        # second signal, as when a terminal is closed, would end the portal before all is removed.
        with trio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for _ in signals:
                serving.cancel()

    serving = trio.CancelScope()
    async with plain_errors(), trio.open_nursery() as nursery:
        if wanted:
            await nursery.start(wait)
        with serving:
            await main()
        nursery.cancel_scope.cancel()


def _tell(link: str) -> None:
    say(f"The portal is open at this link, once, until you stop it with Ctrl-C:\n  {link}")
