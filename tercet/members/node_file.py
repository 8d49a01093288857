"""What a node alone is told: the file `node.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tercet.errors import ConfigError, TransportError
from tercet.members.quota import Quota
from tercet.members.toml_fields import Fields, load
from tercet.transports.tcp import split_address

LOCAL = "local"
"""The word for no engine: a node that has no workers, and does all itself."""


@attrs.frozen
class NodeFile:
    """What only one node is told; paths and URLs of files are relative to the file's directory."""

    directory: Path
    cluster: Path
    key: Path
    storage_key: Path
    listen: str
    storage: str
    catalog: str
    metrics: str
    threads: int
    timeout_s: float
    grace_s: float
    runs_at_once: int
    memory_mb: int
    scratch: Path | None
    engine: str = LOCAL
    workers: int = 0
    worker_scratch: Path | None = None
    engine_options: Mapping[str, Any] = attrs.field(factory=dict)
    quota: Quota = attrs.field(factory=Quota)

    @classmethod
    def read(cls, path: Path) -> NodeFile:
        """Read `node.toml`. Raises ConfigError."""
        fields, here = Fields(load(path), str(path)), path.resolve().parent
        engine = fields.take("engine", str, LOCAL)
        found = cls(
            directory=here,
            cluster=here / fields.take("cluster", str, "cluster.toml"),
            key=here / fields.take("key", str, "node.key"),
            storage_key=here / fields.take("storage_key", str, "storage.key"),
            listen=fields.take("listen", str),
            storage=fields.take("storage", str, "data"),
            catalog=fields.take("catalog", str, "sqlite:///catalog.sqlite"),
            metrics=fields.take("metrics", str, ""),
            threads=fields.take("threads", int, 1),
            timeout_s=fields.take("timeout_s", float, 6.0),
            grace_s=fields.take("grace_s", float, 30.0),
            runs_at_once=fields.take("runs_at_once", int, 4),
            memory_mb=fields.take("memory_mb", int, 4096),
            scratch=here / scratch if (scratch := fields.take("scratch", str, "")) else None,
            engine=engine,
            workers=fields.take("workers", int, 0),
            worker_scratch=Path(scratch) if (scratch := fields.take("worker_scratch", str, "")) else None,
            engine_options={} if engine == LOCAL else fields.take(engine, dict, {}),
            quota=Quota.read(fields.take("quota", dict, {}), str(path)),
        )
        fields.done()
        if (engine == LOCAL) != (found.workers == 0):
            raise ConfigError(
                f"{path}: engine = {engine!r} with workers = {found.workers}; a node without workers has "
                f'engine = "{LOCAL}" and workers = 0, any other engine at least one'
            )
        for name, least in (
            ("threads", 1),
            ("timeout_s", 0.5),
            ("grace_s", 0),
            ("runs_at_once", 1),
            ("memory_mb", 1),
            ("workers", 0),
        ):
            if not getattr(found, name) >= least:
                raise ConfigError(f"{path}: {name} = {getattr(found, name)} is too small; at least {least}")
        if found.worker_scratch is not None and not found.worker_scratch.is_absolute():
            raise ConfigError(
                f"{path}: worker_scratch = {str(found.worker_scratch)!r} is no whole path, which begins "
                "with /; workers may run on other machines"
            )
        if found.scratch is not None and not found.scratch.is_dir():
            raise ConfigError(f"{path}: scratch = {str(found.scratch)!r} is no directory; make it")
        for name, address in (("listen", found.listen), ("metrics", found.metrics)):
            if address or name == "listen":
                try:
                    split_address(address)
                except TransportError as error:
                    raise ConfigError(f"{path}, {name}: {error}") from error
        return found


NODE_TOML = """\
# One node of a Tercet lake. Paths are relative to this file.
listen = {listen}                 # where other nodes and members connect to
cluster = "cluster.toml"          # who makes up the lake: the same file at every node
key = "node.key"                  # keep it secret
storage_key = "storage.key"       # what stored shares are encrypted with: keep it secret, and back it up
storage = "data"                  # a directory, or a URL that fsspec knows: "s3://bucket/prefix"
catalog = "sqlite:///catalog.sqlite"  # or "postgresql+psycopg://user@host/database"
metrics = {metrics}               # /health and /metrics (Prometheus); "" for none
threads = {threads}               # cores that plans may use
timeout_s = 6.0                   # a peer that is silent for so long is lost
grace_s = 30.0                    # how long a stop waits for runs under way
runs_at_once = 4                  # more plans wait for their turn
memory_mb = 4096                  # stored tables that are held in memory at most
scratch = ""                      # for plans larger than memory: a directory on an encrypted disk
engine = "local"                  # "dask" spreads large tables over workers: see docs/scaling.md
workers = 0                       # how many; every party has to have as many
worker_scratch = ""               # as scratch, on the machines of workers: a whole path

[quota]                           # what each member may have at this node
dealt_mb = 16384                  # values that are not kept under a name, ...
values = 16384                    # ... and how many of them
kept_mb = 65536                   # tables, models and numbers
entries = 1024                    # ... and how many of them
waiting = 64                      # plans that wait for approval
queued = 64                       # plans under way, and in a queue for their turn
results = 256                     # results for each other member
results_mb = 1024                 # results and jobs that wait to be fetched
log_lines = 36000                 # lines of the audit log in an hour
connections = 32                  # at a time
requests = 200                    # a second; whoever asks for more is read more slowly
core_percent = 25                 # of a core, for reading, checking and storing what members send
"""
