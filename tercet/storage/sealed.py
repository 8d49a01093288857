"""Sealed files: bytes at rest, encrypted and authenticated in chunks, written whole or not at all.

    magic "T3SHARES" | version u8 | salt 32 | chunk, chunk, ..., last chunk

Every file has a key of its own, by HKDF from the node's storage key, the salt and the file's name. A chunk is
up to 1 MiB under AES-256-GCM; its nonce is its number and whether it is the last one (the STREAM
construction, Hoang et al. 2015, eprint 2015/189). So a flipped bit, a cut or swapped chunk, or a file in the
place of another is found when it is read, before any of that chunk is used. A file appears under its name
when it is complete; what a crash leaves behind is a temporary file that `sweep` removes.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fsspec.implementations.local import LocalFileSystem

from tercet.errors import StorageError

MAGIC = b"T3SHARES\x01"
SALT_BYTES, KEY_BYTES, TAG_BYTES = 32, 32, 16
CHUNK_BYTES = 1 << 20
TEMPORARY = ".part"
_NAME = re.compile(r"[0-9a-f]{40}(\.[0-9a-f]{8}\.part)?")
"""What files of this module are called; others in the directory are left alone."""


class SealedFiles:
    """The files of a node, in a directory or wherever a URL that fsspec knows points to."""

    def __init__(self, url: str, key: bytes, *, base: Path) -> None:
        if len(key) != KEY_BYTES:
            raise StorageError(f"the storage key has {len(key)} bytes instead of {KEY_BYTES}; restore it")
        self._key = key
        try:
            where = url if "://" in url else str(base / url)
            self._files, self.root = fsspec.core.url_to_fs(where)
            self._files.makedirs(self.root, exist_ok=True)
        except (OSError, ValueError, ImportError) as error:
            raise StorageError(f"the storage at {url} cannot be opened: {error}") from error

    def write(self, name: str, pieces: Iterable[memoryview]) -> int:
        """Write a new file; how many bytes it has. Raises StorageError, and leaves nothing then."""
        temporary = f"{self._path(name)}.{secrets.token_hex(4)}{TEMPORARY}"
        salt = secrets.token_bytes(SALT_BYTES)
        try:
            try:
                with self._files.open(temporary, "wb") as file:
                    file.write(MAGIC + salt)
                    size = len(MAGIC) + SALT_BYTES
                    for chunk in self._seal(name, salt, pieces):
                        file.write(chunk)
                        size += len(chunk)
                    self._flush(file)
                self._rename(temporary, self._path(name))
            except BaseException:
                if self._files.exists(temporary):
                    self._files.rm(temporary)
                raise
        except OSError as error:
            raise StorageError(
                f"{name} could not be written to {self.root} ({error.strerror or error}); make room, or "
                "mend the storage, and upload again"
            ) from error
        return size

    def read(self, name: str) -> Iterator[bytes]:
        """The chunks of a file, each verified. Raises StorageError, naming the file, for one that changed."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                head = file.read(len(MAGIC) + SALT_BYTES)
                if len(head) != len(MAGIC) + SALT_BYTES or not head.startswith(MAGIC):
                    raise StorageError(f"{self._path(name)} is no file of shares, or has lost its beginning")
                yield from self._open(name, head[len(MAGIC) :], file)
        except FileNotFoundError as error:
            raise StorageError(f"{self._path(name)} is missing; restore it, or upload again") from error
        except OSError as error:
            raise StorageError(f"{self._path(name)} cannot be read ({error.strerror or error})") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self._files.exists(self._path(name)):
            self._files.rm(self._path(name))

    def sweep(self, wanted: set[str]) -> list[str]:
        """Remove what writes that did not end have left, and sealed files that nobody wants; their names."""
        removed = []
        for path in self._files.ls(self.root, detail=False):
            name = str(path).rsplit("/", 1)[-1]
            if _NAME.fullmatch(name) and name not in wanted:
                self._files.rm(path)
                removed.append(name)
        return removed

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _cipher(self, name: str, salt: bytes) -> AESGCM:
        info = b"tercet share file " + name.encode()
        return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt, info).derive(self._key))

    def _seal(self, name: str, salt: bytes, pieces: Iterable[memoryview]) -> Iterator[bytes]:
        cipher, number = self._cipher(name, salt), 0
        waiting: bytes | None = None
        for chunk in _even(pieces):
            if waiting is not None:
                yield cipher.encrypt(_nonce(number, last=False), waiting, None)
                number += 1
            waiting = chunk
        yield cipher.encrypt(_nonce(number, last=True), waiting or b"", None)

    def _open(self, name: str, salt: bytes, file: BinaryIO) -> Iterator[bytes]:
        cipher, number = self._cipher(name, salt), 0
        chunk = file.read(CHUNK_BYTES + TAG_BYTES)
        while True:
            following = file.read(CHUNK_BYTES + TAG_BYTES)
            try:
                yield cipher.decrypt(_nonce(number, last=not following), chunk, None)
            except InvalidTag as error:
                raise StorageError(
                    f"{self._path(name)} is damaged in chunk {number}: a bit has flipped, it was cut, or it "
                    "was encrypted with another storage key; restore it, or upload the table again"
                ) from error
            if not following:
                return
            chunk, number = following, number + 1

    def _flush(self, file: Any) -> None:
        file.flush()
        if isinstance(self._files, LocalFileSystem):
            os.fsync(file.fileno())

    def _rename(self, temporary: str, final: str) -> None:
        if not isinstance(self._files, LocalFileSystem):
            self._files.mv(temporary, final)  # an object appears in one step, when its copy is complete
            return
        Path(temporary).rename(final)
        directory = os.open(Path(final).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _even(pieces: Iterable[memoryview]) -> Iterator[bytes]:
    """The same bytes in chunks of `CHUNK_BYTES`, the last one shorter."""
    buffer = bytearray()
    for piece in pieces:
        start = 0
        while start < len(piece):
            taken = piece[start : start + CHUNK_BYTES - len(buffer)]
            buffer += taken
            start += len(taken)
            if len(buffer) == CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)
