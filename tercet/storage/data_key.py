"""The data key of a node: what its files are encrypted with, itself encrypted with the node's storage key.

The catalog has the data key, wrapped under the storage key, which lies in a file of the operator's. So a
storage key that is not the right one shows when the node starts, before anything is read or written with it,
and another storage key takes effect by wrapping 32 bytes anew, whatever the node stores. A node whose files
are of a release before this one has its storage key of then as data key.

The file is changed so that a crash at any moment leaves a node that starts: the new key is written beside the
present one, then the data key is wrapped under it, and then the file takes the place of the one before.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tercet.errors import StorageError
from tercet.storage.catalog import METADATA, Catalog
from tercet.storage.journal import Journal
from tercet.storage.sealed import KEY_BYTES, SALT_BYTES, SealedFiles
from tercet.storage.sqlite_files import sync

DATA_KEY = sa.Table("data_key", METADATA, sa.Column("wrapped", sa.LargeBinary, nullable=False))
_NONCE = bytes(12)
"""Every wrapping has a key of its own, from a fresh salt."""


def make_storage_key(path: Path) -> None:
    """Write a new storage key to a file that only its owner can read. Raises OSError if it is there."""
    _write(path, secrets.token_hex(KEY_BYTES) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, and have it on the disk. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def read_storage_key(path: Path) -> bytes:
    """The 32 bytes of a storage key. Raises StorageError for one that is missing, open to others or none."""
    try:
        key = bytes.fromhex(path.read_text())
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise StorageError(f"the storage key {path} cannot be read ({why}); restore it") from error
    if mode & 0o077:
        raise StorageError(f"the storage key {path} can be read by others; run `chmod 600 {path}`")
    if len(key) != KEY_BYTES:
        raise StorageError(f"the storage key {path} has {len(key)} bytes instead of {KEY_BYTES}; restore it")
    return key


def find_data_key(path: Path, catalog: Catalog, files: SealedFiles) -> bytes:
    """The data key of a node whose storage key lies at a path; a new one where nothing was stored yet.

    Goes on with a change of the storage key that was interrupted. Raises StorageError for a storage key that
    is not this catalog's, or not that of files which an earlier release has written.
    """
    storage_key = read_storage_key(path)
    wrapped = _wrapped(catalog)
    if wrapped is None:
        # A first start may have been interrupted between making the catalog and noting the key.
        nothing = catalog.new or not (files.names() or Journal(catalog).jobs())
        data_key = secrets.token_bytes(KEY_BYTES) if nothing else storage_key
        _require_files(path, data_key, files)
        _note(catalog, storage_key, data_key)
        return data_key
    found = _unwrap(storage_key, wrapped)
    if found is None and _coming(path).exists():
        found = _unwrap(read_storage_key(_coming(path)), wrapped)
        if found is not None:
            _take_over(path)
    if found is None:
        raise _wrong(path)
    return found


def change_storage_key(path: Path, catalog: Catalog, files: SealedFiles) -> Path:
    """Let a new storage key take the place of the one at a path; where that one is now.

    The node may run meanwhile. Raises StorageError or OSError; then the one before or the new one is right.
    """
    data_key = find_data_key(path, catalog, files)
    _coming(path).unlink(missing_ok=True)  # of a change that did not come to wrap anything
    make_storage_key(_coming(path))
    _note(catalog, read_storage_key(_coming(path)), data_key)
    return _take_over(path)


def _take_over(path: Path) -> Path:
    before = _before(path)
    before.unlink(missing_ok=True)
    try:
        os.link(path, before)
    except OSError:  # not every file system has hard links; should this be interrupted, it is done again
        _write(before, path.read_text())
    _coming(path).rename(path)
    sync(path.parent)
    return before


def _coming(path: Path) -> Path:
    return path.with_name(f"{path.name}.coming")


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _wrapped(catalog: Catalog) -> bytes | None:
    with catalog.begin() as connection:
        row = connection.execute(sa.select(DATA_KEY)).first()
    return None if row is None else bytes(row.wrapped)


def _note(catalog: Catalog, storage_key: bytes, data_key: bytes) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    wrapped = salt + _cipher(storage_key, salt).encrypt(_NONCE, data_key, None)
    with catalog.begin() as connection:
        connection.execute(DATA_KEY.delete())
        connection.execute(DATA_KEY.insert().values(wrapped=wrapped))


def _unwrap(storage_key: bytes, wrapped: bytes) -> bytes | None:
    """The data key, None if it was not wrapped under that storage key."""
    salt, sealed = wrapped[:SALT_BYTES], wrapped[SALT_BYTES:]
    try:
        return _cipher(storage_key, salt).decrypt(_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        return None


def _cipher(storage_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt, b"tercet data key").derive(storage_key))


def require_opens(path: Path, catalog: Catalog, files: SealedFiles) -> None:
    """Raise StorageError unless a storage key is that of what is stored. Changes nothing."""
    keys = [read_storage_key(one) for one in (path, _coming(path)) if one.exists() or one is path]
    wrapped = _wrapped(catalog) if catalog.has(DATA_KEY) else None
    if wrapped is None:
        _require_files(path, keys[0], files)
    elif all(_unwrap(key, wrapped) is None for key in keys):
        raise _wrong(path)


def fingerprint_of_key(path: Path, catalog: Catalog, files: SealedFiles) -> str:
    """What tells the storage key that opens what is stored: the one at a path, or beside it while it changes.

    Raises StorageError if that is none of them. Changes nothing.
    """
    for one in (path, _coming(path), _before(path)):
        if one is path or one.exists():
            try:
                _require_opens(one, catalog, files)
            except StorageError:
                continue
            return fingerprint(read_storage_key(one))
    require_opens(path, catalog, files)
    return fingerprint(read_storage_key(path))


def fingerprint(storage_key: bytes) -> str:
    """What tells a storage key from others, and nothing of it: a hash of what nobody can guess."""
    return hashlib.blake2b(storage_key, digest_size=8, person=b"tercet-storekey").hexdigest()


def _require_opens(path: Path, catalog: Catalog, files: SealedFiles) -> None:
    """Raise StorageError unless just the storage key at a path is that of what is stored."""
    key = read_storage_key(path)
    wrapped = _wrapped(catalog) if catalog.has(DATA_KEY) else None
    if wrapped is None:
        _require_files(path, key, files)
    elif _unwrap(key, wrapped) is None:
        raise _wrong(path)


def _require_files(path: Path, data_key: bytes, files: SealedFiles) -> None:
    """Raise StorageError if there are files and none of the first few opens: one may be damaged."""
    files.key = data_key
    names = [name for name in files.names() if "." not in name][:3]
    if names and not any(files.opens(name) for name in names):
        raise _wrong(path)


def _wrong(path: Path) -> StorageError:
    return StorageError(
        f"the storage key {path} is not the one that this node's shares are encrypted with; restore that one "
        "(or the catalog, if that is of another time than the key)"
    )
