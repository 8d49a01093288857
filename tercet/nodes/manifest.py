"""What a backup of a node is: files in a directory, and a manifest that says what they are.

    manifest.json             what was saved, of which node, when: written last, and signed with its key
    catalog.sqlite            the catalog, as of one moment
    shares/NAME               files of shares that this catalog names
    audit/audit.log, ...      the audit log with its segments and seals
    members/cluster.toml, ... the list of the lake's members, those before it, and the one that follows

Keys are not in it. A backup without a manifest is one that did not come to its end. A node that is being
restored has a mark until it is done, without which nobody could tell half of a backup from a node.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import attrs

from tercet.errors import ConfigError, ConsentError, StorageError
from tercet.members.audit import log_lines
from tercet.members.audit_lines import check_lines
from tercet.members.config import ClusterFile, NodeEntry
from tercet.members.keys import MemberKeys, verify
from tercet.members.node_file import NodeFile
from tercet.members.seals import Head
from tercet.members.succession import next_path
from tercet.storage.catalog import Catalog
from tercet.storage.catalog_copies import named_values
from tercet.storage.journal import AUDIT, Journal
from tercet.storage.share_files import file_name
from tercet.storage.sqlite_files import require_plain

FORMAT = 1
PURPOSE = b"backup"
MANIFEST, CATALOG, SHARES, AUDIT_LOG, MEMBERS = (
    "manifest.json",
    "catalog.sqlite",
    "shares",
    "audit/audit.log",
    "members/cluster.toml",
)
MARK = "restoring.json"
"""Beside `node.toml`, while the node is being restored."""
PIECE_BYTES = 1 << 20
MOST_BYTES = 1 << 28
"""Of a manifest: more than a million files."""
_FILES = re.compile(
    r"catalog\.sqlite|shares/[0-9a-f]{40}(-[0-9a-f]{16})?|audit/audit(-[0-9]{6})?\.log|audit/audit-[0-9]{6}\.seal"
    r"|members/cluster(-[0-9]{6}|\.next)?\.toml"
)
_BESIDE = re.compile(r"catalog\.sqlite-.*|(audit|members)/.*", re.DOTALL)
"""What is read with the files of a backup where it is there."""
_PLACES = ("audit", "members")
_HEX = re.compile(r"[0-9a-f]*")
_DIGEST_DIGITS, _FINGERPRINT_DIGITS = 64, 16
_MOST = 1 << 60
_LONGEST = 64


@attrs.frozen
class Content:
    """What a file has: how many bytes, and their SHA-256."""

    size: int
    sha256: str


@attrs.frozen
class Manifest:
    """What was saved: by which release, of which node of which lake, when; and each file by its path.

    `storage_key` is the fingerprint of the storage key that opens it, `head` where the audit log stood.
    """

    release: str
    node: str
    lake: str
    made: str
    storage_key: str
    head: Head
    files: Mapping[str, Content] = attrs.field(repr=False)

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files.values())

    def _text(self) -> str:
        return json.dumps({"format": FORMAT, **attrs.asdict(self)}, sort_keys=True)

    def to_text(self, keys: MemberKeys) -> str:
        """As it is written, signed with the node's key."""
        text = self._text()
        signed = {**json.loads(text), "signature": keys.sign(PURPOSE, text.encode()).hex()}
        return json.dumps(signed, indent=1) + "\n"

    @classmethod
    def parse(cls, packed: bytes, where: str) -> tuple[Self, bytes]:
        """A manifest and its signature. Raises StorageError."""
        try:
            told = json.loads(packed)
            if told["format"] != FORMAT:
                raise StorageError(f"{where} is of the format {told['format']!r:.20}; take a later release")
            files = {
                _known(name, where): Content(_number(one["size"]), _hex(one["sha256"], _DIGEST_DIGITS))
                for name, one in told["files"].items()
            }
            found = cls(
                release=_word(told["release"]),
                node=_word(told["node"]),
                lake=_hex(told["lake"]),
                made=dt.datetime.fromisoformat(_word(told["made"])).isoformat(timespec="seconds"),
                storage_key=_hex(told["storage_key"], _FINGERPRINT_DIGITS),
                head=Head(_number(told["head"]["lines"]), _hex(told["head"]["digest"], _DIGEST_DIGITS)),
                files=files,
            )
            signature = bytes.fromhex(told["signature"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StorageError(
                f"{where} is no manifest of a backup, or was changed ({error!r:.200})"
            ) from error
        return found, signature

    def require_signed(self, signature: bytes, certificates: Iterable[str], where: str) -> None:
        """Raise StorageError unless one of these keys, of its node, has signed it."""
        text = self._text().encode()
        if not any(verify(one, PURPOSE, text, signature) for one in certificates):
            raise StorageError(
                f"{where} was not signed with the key of {self.node}, or with one that was revoked since: it "
                "was changed, or is of another lake"
            )


def _known(name: str, where: str) -> str:
    if not _FILES.fullmatch(name):
        raise StorageError(f"{where} names {name!r:.80}, which is no file of a backup; it was changed")
    return name


def _number(told: Any) -> int:
    if type(told) is not int or not 0 <= told <= _MOST:
        raise ValueError(f"{told!r:.80} is no number of bytes or lines")
    return told


def _hex(told: Any, digits: int | None = None) -> str:
    found = _word(told)
    if not _HEX.fullmatch(found) or len(found) != (digits or len(found)):
        raise ValueError(f"{found!r:.80} is no digest")
    return found


def _word(told: Any) -> str:
    """A text that says one thing on a line, and nothing to a terminal."""
    if not isinstance(told, str) or not told.isprintable() or not 0 < len(told) <= _LONGEST:
        raise ValueError(f"{told!r:.80} is no text of a manifest")
    return told


@attrs.frozen
class Backup:
    """A backup that was found to be whole."""

    directory: Path
    manifest: Manifest
    signature: bytes = attrs.field(repr=False)
    cluster: ClusterFile = attrs.field(repr=False)
    """The list of members in it."""
    digest: str
    """What tells it from others."""


def check_backup(directory: Path) -> Backup:
    """Look at all of a backup: files, what the catalog names, the audit log. Blocks; raises TercetError."""
    where = directory / MANIFEST
    try:
        packed = _read(where)
        if len(packed) > MOST_BYTES:
            raise StorageError(f"{where} has more than {MOST_BYTES} bytes; it is no manifest of a backup")
    except FileNotFoundError as error:
        raise StorageError(
            f"{directory} has no {MANIFEST}: it is no backup, or one that did not come to its end; make "
            "another one"
        ) from error
    except OSError as error:
        raise StorageError(f"{where} cannot be read ({error.strerror or error})") from error
    manifest, signature = Manifest.parse(packed, str(where))
    _require_no_others(directory, manifest)
    for name, expected in manifest.files.items():
        _require_content(directory / name, expected)
    cluster = latest_list(directory)
    if cluster.lake.hex() != manifest.lake:
        raise StorageError(f"{directory / MEMBERS} is of another lake than the backup; it was put together")
    manifest.require_signed(signature, entry_of(cluster, manifest.node).trusted, str(where))
    require_plain(directory / CATALOG)
    catalog = Catalog(f"sqlite:///{CATALOG}", base=directory, may_be_new=False, may_change=False)
    try:
        require_values(catalog, manifest)
        require_log(directory, entry_of(cluster, manifest.node), catalog, manifest.head)
    except (AttributeError, TypeError, ValueError) as error:  # SQLite keeps whatever is put into a column
        raise StorageError(
            f"{directory / CATALOG} has what no node writes ({error!r:.200}); take another backup"
        ) from error
    finally:
        catalog.close()
    return Backup(directory, manifest, signature, cluster, hashlib.sha256(packed).hexdigest())


def _read(path: Path) -> bytes:
    _size(path)
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file, piece by piece."""
    while piece := file.read(PIECE_BYTES):
        yield piece


def _require_no_others(directory: Path, manifest: Manifest) -> None:
    """Raise StorageError for files that would be read with those of the backup, and are not of it."""
    there = [one for place in (directory, *map(directory.joinpath, _PLACES)) for one in place.glob("*")]
    for path in there:
        name = path.relative_to(directory).as_posix()
        if _BESIDE.fullmatch(name) and name not in manifest.files:
            raise StorageError(f"{str(path)!r} is not of the backup: it was put there; take another backup")


def _require_content(path: Path, expected: Content) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        there = _size(path)
        if there != expected.size:
            raise _changed(path, there, expected)
        with path.open("rb") as file:
            for piece in pieces(file):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing from the backup; take another one") from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}); take another backup"
        ) from error
    if Content(size, digest.hexdigest()) != expected:
        raise _changed(path, size, expected)


def _changed(path: Path, size: int, expected: Content) -> StorageError:
    return StorageError(
        f"{path} is not as it was saved: it has {size} bytes of {expected.size}, or others; take another "
        "backup"
    )


def _size(path: Path) -> int:
    """Bytes of a file; a pipe or a device, which may have no end, is none. Raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    return found.st_size


def latest_list(directory: Path) -> ClusterFile:
    """The latest list of members of a backup: it has all certificates of those before. Raises ConfigError."""
    path = directory / MEMBERS
    there = [one for one in (path, next_path(path)) if one is path or one.exists()]
    return max(map(ClusterFile.read, there), key=lambda one: one.number)


def entry_of(cluster: ClusterFile, name: str) -> NodeEntry:
    """A node of a list by its name. Raises ConfigError."""
    for node in cluster.nodes:
        if node.name == name:
            return node
    raise ConfigError(f"cluster.toml lists no node {name!r:.80}; the backup is of another lake")


def require_values(catalog: Catalog, manifest: Manifest) -> None:
    """Raise StorageError unless each value that the catalog names has its file."""
    for handle in named_values(catalog):
        if f"{SHARES}/{file_name(handle)}" not in manifest.files:
            raise StorageError(f"the backup lacks the file of {handle!r:.80}, which its catalog names")


def require_log(directory: Path, node: NodeEntry, catalog: Catalog, expected: Head | None = None) -> Head:
    """Verify the audit log of a backup; where it stands.

    Raises ConsentError for one that was changed, has not come as far as the catalog has noted, or has come
    elsewhere than expected.
    """
    log, noted = directory / AUDIT_LOG, Journal(catalog).noted() if catalog.has(AUDIT) else None
    known = Head() if noted is None else Head(*noted)
    head = check_lines(log_lines(log), node.certificates, where=str(log), known=known)
    if head.lines < known.lines or head != (expected or head):
        raise ConsentError(
            f"{log} has {head.lines} lines, and the backup is of one with "
            f"{max(known.lines, expected.lines if expected else 0)}: lines were lost or changed"
        )
    return head


# -- while a node is restored --------------------------------------------------------------------------------


def mark_of(file: NodeFile) -> Path:
    """Where the mark of a restore is that has not come to its end."""
    return file.directory / MARK


def restoring(file: NodeFile) -> str | None:
    """The digest of the backup that a node is being restored from, None if it is not."""
    try:
        told: Any = json.loads(mark_of(file).read_text())
        return str(told["manifest"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def require_restored(file: NodeFile) -> None:
    """Raise StorageError for a node of which a restore has not come to its end."""
    if mark_of(file).exists():
        raise StorageError(
            f"{mark_of(file)} says that this node is being restored, or that a restore did not come to its "
            "end: run `tercet restore` again, with the same backup"
        )
