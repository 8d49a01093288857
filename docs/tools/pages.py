"""Gathers the pages of the site: `python docs/tools/pages.py FOLDER`.

README, CONTRIBUTING, CHANGELOG, SECURITY and LICENSE are where code hosts look for them, at the root, and the
other pages are in `docs`. Here they come together, and links between them become those of the site. So links
work in both, nobody writes one twice, and what builds the site needs to know nothing of it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AT_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
}
"""Where in the site a file of the repository's root is."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
"""Target of a relative link or image, without the section in it."""


def gather(folder: Path) -> None:
    """Make a folder with all pages and pictures of the site, in place of what it was."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("tools"))
    for source, target in AT_THE_ROOT.items():
        shutil.copyfile(ROOT / source, folder / target)
    places = {target: source for source, target in AT_THE_ROOT.items()}
    for path in folder.rglob("*.md"):
        place = path.relative_to(folder).as_posix()
        text = path.read_text(encoding="utf-8")
        path.write_text(moved(text, places.get(place, f"docs/{place}"), place), encoding="utf-8")


def moved(text: str, source: str, place: str) -> str:
    """Text of the file `source` of the repository, as it has to be at `place` in the site.

    A link to what is not in the site stays as it is, and whatever builds the site complains of it.
    """

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        target = AT_THE_ROOT.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return found[1] if target is None else posixpath.relpath(target, posixpath.dirname(place) or ".")

    return LINK.sub(link, text)


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
