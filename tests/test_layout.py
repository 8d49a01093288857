"""The shape of the code: who imports whom, what must not do I/O, and how long a file may grow."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import tercet

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tercet"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}

MAY_IMPORT = {
    "errors": set(),
    "plugins": {"errors"},
    "tracebacks": {"errors"},
    "options": {"errors"},
    "compiled": set(),
    "protocols": {"compiled", "errors", "plugins"},
    "transports": {"errors", "plugins"},
    "plans": {"compiled", "errors", "options", "protocols"},
    "actors": {"compiled", "errors", "options", "plugins", "protocols", "transports", "plans"},
    "engines": {"compiled", "errors", "transports", "actors"},
    "ml": {"compiled", "errors", "options", "tracebacks", "plans"},
    "members": {"errors", "protocols", "transports", "plans"},
    "storage": {"errors", "protocols", "transports", "plans", "actors"},
    "nodes": {"compiled", "errors", "protocols", "transports", "plans", "actors", "ml", "members", "storage"},
    "client": {
        "compiled",
        "errors",
        "options",
        "tracebacks",
        "protocols",
        "transports",
        "plans",
        "actors",
        "ml",
        "members",
    },
    "portal": {"errors", "transports", "plans", "actors", "ml", "members", "client"},
    "testing": {"errors", "protocols", "transports", "actors"},
    "comparison": {"errors", "options", "protocols", "plans", "actors", "ml", "client"},
    "__init__": {"errors", "client", "comparison", "ml", "actors", "plans"},
    "demo": {"errors", "actors", "plans", "ml", "client", "nodes", "portal"},
    "commands": {
        "errors",
        "actors",
        "plans",
        "members",
        "nodes",
        "client",
        "comparison",
        "portal",
        "demo",
        "__init__",
    },
    "cli": {"errors", "protocols", "demo", "commands", "__init__"},
    "__main__": {"cli"},
}
"""What each part of Tercet may import besides itself: downwards only."""

SANS_IO = {"protocols", "plans", "ml"}
IO_MODULES = {
    "asyncio",
    "multiprocessing",
    "select",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
}

SOFT_LIMIT, HARD_LIMIT = 500, 600
LONG = {
    "tercet/actors/scheduler.py": "one state machine",
    "tercet/options.py": "rules of options, which have the same few methods, and those that many calls share",
    "tercet/ml/table.py": "one class, whose methods are what a table can be asked for",
    "tercet/ml/linear_model.py": "one class, whose two solvers share their precision and their checks",
}
"""Files above the soft limit, and why they were not split."""


def part_of(path: Path) -> str:
    """The part of Tercet that a file belongs to: a package, or a module at the top."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@functools.cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Line and full name of every module that a file imports, also inside functions."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the full name"
            assert node.module is not None
            if node.module == "tercet":
                yield from ((node.lineno, f"tercet.{alias.name}") for alias in node.names)
            else:
                within = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
                yield from ((node.lineno, name) for name in within or {node.module})


def imports_when_run(path: Path) -> Iterator[tuple[int, str]]:
    """Those of `imports` that are not there for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    yield from (found for found in imports(path) if not any(found[0] in block for block in blocks))


def imported_part(name: str) -> str | None:
    """The part of Tercet that a module name points to; None for other packages."""
    first, _, rest = name.partition(".")
    if first != "tercet":
        return None
    part = rest.partition(".")[0]
    return part if part in MAY_IMPORT else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{path}: say in MAY_IMPORT what {part!r} may import"
    for line, name in imports(path):
        target = imported_part(name)
        assert target in (None, part) or target in MAY_IMPORT[part], (
            f"{path}:{line}: {part} must not import {name}; it may import {sorted(MAY_IMPORT[part])}"
        )


def test_the_rules_have_no_cycle():
    depth: dict[str, int] = {}
    while len(depth) < len(MAY_IMPORT):
        ready = {
            part for part, targets in MAY_IMPORT.items() if part not in depth and targets <= depth.keys()
        }
        assert ready, f"these parts import each other: {sorted(MAY_IMPORT.keys() - depth.keys())}"
        depth |= {part: max((depth[target] + 1 for target in MAY_IMPORT[part]), default=0) for part in ready}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if part_of(path) in SANS_IO],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_protocols_plans_and_models_do_no_io(path):
    for line, name in imports(path):
        assert name.partition(".")[0] not in IO_MODULES, (
            f"{path}:{line}: {part_of(path)} must not import {name}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path):
    name, lines = path.relative_to(ROOT).as_posix(), len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= HARD_LIMIT, f"{name} has {lines} lines: split it"
    assert lines <= SOFT_LIMIT or name in LONG, (
        f"{name} has {lines} lines, more than {SOFT_LIMIT}: split it, or say in LONG why not"
    )


def test_a_forbidden_import_is_found(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "def f():\n    from tercet.transports import Link\n"
        "    from tercet import client\n    import trio.abc\n"
    )
    found = list(imports(file))
    assert found == [(2, "tercet.transports"), (3, "tercet.client"), (4, "trio.abc")]
    assert [imported_part(name) for _, name in found] == ["transports", "client", None]
    assert imported_part("tercet") == imported_part("tercet.__version__") == "__init__"


def test_the_script_of_a_member_loads_nothing_of_nodes():
    ask = (
        "import sys, tercet, tercet.client.lake, tercet.ml; "
        "print(*(name for name in sys.modules if name.startswith(('tercet.nodes', 'tercet.storage'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120
    )
    assert not done.stdout.strip()


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def circles(files: Iterable[Path]) -> list[list[str]]:
    """Modules that import each other, at whatever place in the file, directly or through others."""
    reads: dict[str, set[str]] = {module_of(path): set() for path in files}
    for path in files:
        for _, name in imports_when_run(path):
            target = name if name in reads else name.rpartition(".")[0]
            if target in reads and target != module_of(path):
                reads[module_of(path)].add(target)
    reached = {module: set(targets) for module, targets in reads.items()}
    for through in reached:
        for targets in reached.values():
            if through in targets:
                targets |= reached[through]
    rings = {
        frozenset(one for one in targets if module in reached[one])
        for module, targets in reached.items()
        if module in targets
    }
    return sorted(map(sorted, rings))


def test_no_circle_inside_a_package():
    assert circles(FILES) == []


ALIKE = {
    "base.py": "what protocols and transports implement",
    "registry.py": "of protocols and of transports",
    "gate.py": "what a node lets clients do: everything, or what owners allow",
    "jobs.py": "in memory, and those that last",
}
"""File names that stand for the same thing in two packages, and what that is."""


def test_a_file_name_stands_for_one_thing():
    names = [path.name for path in FILES if not path.name.startswith("__")]
    assert {name for name in names if names.count(name) > 1} <= set(ALIKE)


def test_a_process_of_a_node_imports_no_lake_and_no_model():
    """Three of them start with each lake of processes, and their imports are most of what that takes."""
    ask = (
        "import sys, tercet.actors.node; print(*(name for name in sys.modules if name.startswith('tercet.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120
    )
    parts = {name.split(".")[1] for name in done.stdout.split()}
    assert parts == {"actors", "compiled", "errors", "plans", "plugins", "protocols", "transports"}


def test_names_of_the_package_are_found_when_they_are_asked_for():
    assert all(getattr(tercet, name) is not None for name in tercet.__all__)
    assert set(tercet.__all__) <= set(dir(tercet))
    assert tercet.client.lake.Lake is tercet.Lake
    with pytest.raises(AttributeError, match="no attribute 'lakes'"):
        tercet.lakes  # noqa: B018
