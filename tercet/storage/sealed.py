"""Sealed files: bytes at rest, encrypted and authenticated in chunks, written whole or not at all.

    magic "T3SHARES" | version u8 | salt 32 | chunk, chunk, ..., last chunk

Every file has a key of its own, by HKDF from the node's data key, the salt and the file's name. A chunk is
up to 1 MiB under AES-256-GCM; its nonce is its number and whether it is the last one (the STREAM
construction, Hoang et al. 2015, eprint 2015/189). So a flipped bit, a cut or swapped chunk, or a file in the
place of another is found when it is read, before any of that chunk is used. Chunks are read in any order, so
a file may be larger than memory. It appears under its name when it is complete; what a crash leaves behind is
a temporary file that `sweep` removes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import fsspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fsspec.dircache import DirCache
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tercet.errors import StorageError

MAGIC = b"T3SHARES\x01"
SALT_BYTES, KEY_BYTES, TAG_BYTES = 32, 32, 16
HEAD_BYTES = len(MAGIC) + SALT_BYTES
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 5 << 20
"""What is gathered of a file that is written to an object store: the least that S3 takes."""
TEMPORARY = ".part"
NAME_DIGITS = 40
_NAME = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}(-[0-9a-f]{{16}})?(\.[0-9a-f]{{8}}\.part)?")
"""What files of this module are called; others in the directory are left alone. One may have parts, which are
files of their own with its name before theirs, and come and go with it."""


def is_shared(url: str) -> bool:
    """Whether a node's workers read its storage by themselves: at a URL; a directory is the node's alone."""
    return "://" in url


def directory_of(url: str, base: Path) -> Path | None:
    """The directory that a storage is, as this machine sees it; None for one that is reached otherwise."""
    if not is_shared(url):
        return base / url
    scheme, _, _ = url.partition("://")
    return Path(fsspec.core.url_to_fs(url)[1]) if scheme in LocalFileSystem.protocol else None


@attrs.frozen
class Access:
    """What lets those read one file who do not have the data key: its name, its key, its bytes unsealed."""

    name: str
    key: bytes = attrs.field(repr=False)
    size: int


class SealedFiles:
    """The files of a node, in a directory or wherever a URL that fsspec knows points to."""

    def __init__(self, url: str, key: bytes | None = None, *, base: Path, make: bool = True) -> None:
        if key is not None and len(key) != KEY_BYTES:
            raise StorageError(f"the data key has {len(key)} bytes instead of {KEY_BYTES}; restore it")
        self.key = key
        """The data key; what is read or written needs it."""
        self.shared = is_shared(url)
        """Whether workers of the node read it by themselves."""
        try:
            where = url if self.shared else str(base / url)
            self._files, self.root = fsspec.core.url_to_fs(where)
            listings = getattr(self._files, "dircache", None)
            if isinstance(listings, DirCache):
                listings.use_listings_cache = False  # they would not have what workers write
            if make:
                self._files.makedirs(self.root, exist_ok=True)
        except Exception as error:
            raise StorageError(f"the storage at {url} cannot be opened: {_why(error)}") from error

    def begin(self, name: str) -> SealedWriter:
        """A new file, to be written piece by piece; it is there when it is committed. Raises StorageError."""
        salt = secrets.token_bytes(SALT_BYTES)
        return SealedWriter(self, name, salt, self.file_key(name, salt))

    def begun(self, name: str, salt: bytes, key: bytes) -> SealedWriter:
        """The same with what somebody else, who has the data key, has drawn and derived for this file alone.

        A key is for one writer: who has begun to write with it once never does so again. Where files appear
        when they are closed, as in object stores, it has its name from the beginning: nothing counts there
        that no other file names, and to rename it would be to copy it.
        """
        return SealedWriter(self, name, salt, key, renamed=isinstance(self._files, LocalFileSystem))

    def write(self, name: str, pieces: Iterable[memoryview]) -> int:
        """Write a new file; how many bytes it has. Raises StorageError, and leaves nothing then."""
        writer = self.begin(name)
        try:
            with self.sentences(name):
                for piece in pieces:
                    writer.append(piece)
            return writer.commit()
        except BaseException:
            writer.abort()
            raise

    def open(self, name: str) -> SealedReader:
        """A file to be read from anywhere in it. Raises StorageError for one that is missing or was cut."""
        path = self.path(name)
        with self.reading(path), self.raw(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            body = file.seek(0, os.SEEK_END) - HEAD_BYTES
        if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
            raise StorageError(f"{path} is no file of shares, or has lost its beginning")
        key = self.file_key(name, head[len(MAGIC) :])
        chunks = max(1, -(-body // (CHUNK_BYTES + TAG_BYTES)))
        found = SealedReader(self, Access(name, key, chunks * CHUNK_BYTES))
        last = len(found.chunk(chunks - 1))
        return SealedReader(self, Access(name, key, (chunks - 1) * CHUNK_BYTES + last))

    def opened(self, access: Access) -> SealedReader:
        """The same file as somebody else has opened it: nothing is read, and no data key is needed."""
        return SealedReader(self, access)

    def opens(self, name: str) -> bool:
        """Whether a file was sealed under the present key, and not cut. Raises StorageError if it is gone."""
        try:
            return bool(self.open(name).chunks)
        except StorageError:
            if self.exists(name):
                return False
            raise

    def read(self, name: str) -> Iterator[bytes]:
        """The chunks of a file, each verified. Raises StorageError, naming the file, for one that changed."""
        reader = self.open(name)
        yield from (reader.chunk(number) for number in range(reader.chunks))

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self._files.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of a file with its parts, sealed; 0 if it is not there."""
        if not self.exists(name):
            return 0
        return sum(int(self._files.size(self.path(one)) or 0) for one in (name, *self.parts(name)))

    def remove(self, name: str) -> None:
        """Remove a file with its parts, if it is there. Raises StorageError."""
        self.discard(self.path(name))
        self.remove_beginning(f"{name}-")

    def remove_beginning(self, letters: str) -> None:
        """Remove files whose names begin so, also those whose writing did not end. Raises StorageError."""
        for name in self._beginning(letters):
            self.discard(self.path(name))

    def parts(self, name: str) -> list[str]:
        """The parts of a file that are there."""
        return [part for part in self._beginning(f"{name}-") if not part.endswith(TEMPORARY)]

    def with_parts(self, names: Iterable[str]) -> list[str]:
        """Some files, and all their parts that are there."""
        wanted = set(names)
        there = self.names() if wanted else []
        return [*wanted, *(name for name in there if name not in wanted and _is_of(name, wanted))]

    def remove_own(self, names: Iterable[str]) -> list[str]:
        """Remove those of some files that are there; the names of those that stay.

        What does not open under the present key may be another node's, in a storage named by mistake, and
        whether it is or was damaged nobody can tell here.
        """
        strange = []
        for name in names:
            if self.exists(name):
                if self.opens(name):
                    self.discard(self.path(name))
                else:
                    strange.append(name)
        return strange

    def sweep(self, wanted: set[str]) -> tuple[list[str], list[str]]:
        """Remove what writes that did not end have left, and sealed files that nobody wants.

        The names of those that were removed, and of those that stay since they may be another node's.
        """
        unwanted = [name for name in self.names() if not _is_of(name, wanted)]
        unfinished = [name for name in unwanted if name.endswith(TEMPORARY)]
        strange = self.remove_own(name for name in unwanted if not name.endswith(TEMPORARY))
        if strange:
            strange += unfinished  # nobody can tell whose these are
        else:
            for name in unfinished:
                self.discard(self.path(name))
        return [name for name in unwanted if name not in strange], strange

    def names(self) -> list[str]:
        """All sealed files, those of writes that did not end among them."""
        return self._beginning("")

    def _beginning(self, letters: str) -> list[str]:
        """All sealed files whose names begin so."""
        with self.reading(self.root):
            there = self._files.ls(self.root, detail=False) if self._files.exists(self.root) else []
        found = [str(path).rsplit("/", 1)[-1] for path in there]
        return [name for name in found if name.startswith(letters) and _NAME.fullmatch(name)]

    # -- for writers and readers -----------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """Where a file is, in the file system that `raw` opens it in."""
        return f"{self.root}/{name}"

    def raw(self, path: str, mode: str) -> Any:
        """A file as it is, sealed: of what is read in any order nothing is read ahead, where that costs."""
        options: dict[str, Any] = {"cache_type": "none"} if mode == "rb" else {"block_size": BLOCK_BYTES}
        return self._files.open(path, mode, **options)

    def require_place(self) -> None:
        """Raise StorageError if this process does not see the place, where places are made by others.

        Object stores have no empty places, so of those nothing is known before there is a file.
        """
        if isinstance(self._files, LocalFileSystem | MemoryFileSystem) and not self._files.exists(self.root):
            raise StorageError(
                f"there is no storage at {self.root} where this worker runs: mount there what the node has, "
                "or name a place that the node and all its workers reach as storage in node.toml"
            )

    def file_key(self, name: str, salt: bytes) -> bytes:
        """The key of a file. Raises StorageError before the data key is known."""
        if self.key is None:
            raise StorageError(f"the files at {self.root} have no data key yet; open them with their catalog")
        info = b"tercet share file " + name.encode()
        return HKDF(hashes.SHA256(), KEY_BYTES, salt, info).derive(self.key)

    def cipher(self, name: str, salt: bytes) -> AESGCM:
        """The cipher of a file. Raises StorageError before the data key is known."""
        return AESGCM(self.file_key(name, salt))

    def settle(self, file: Any) -> None:
        """See to it that what was written is on the disk, and close the file."""
        with file:
            file.flush()
            if isinstance(self._files, LocalFileSystem):
                os.fsync(file.fileno())

    def discard(self, path: str) -> None:
        """Remove a file, if it is there; a worker may do so at the same time. Raises StorageError."""
        try:
            if self._files.exists(path):
                self._files.rm(path)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StorageError(f"{path} cannot be removed ({_why(error)})") from error

    @contextlib.contextmanager
    def sentences(self, name: str) -> Iterator[None]:
        """Turn what the file system raises while a file is written into a StorageError."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(
                f"{name} could not be written to {self.root} ({_why(error)}); make room, or mend the "
                "storage, and try again"
            ) from error

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Turn what the file system raises while a file is read into a StorageError."""
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"{path} is missing; restore it, or upload again") from error
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(f"{path} cannot be read ({_why(error)})") from error

    def rename(self, temporary: str, final: str) -> None:
        """Let a file appear under its name, for good."""
        if not isinstance(self._files, LocalFileSystem):
            self._files.mv(temporary, final)  # an object appears in one step, when its copy is complete
            return
        Path(temporary).rename(final)
        directory = os.open(Path(final).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class SealedWriter:
    """A file that comes into being. What was appended counts once it is committed. One thread at a time."""

    def __init__(
        self, files: SealedFiles, name: str, salt: bytes, key: bytes, *, renamed: bool = True
    ) -> None:
        self._files, self._name = files, name
        self._temporary = files.path(name) + (f".{secrets.token_hex(4)}{TEMPORARY}" if renamed else "")
        self._renamed = renamed
        self._cipher = AESGCM(key)
        self._buffer = bytearray()
        self._number, self._size = 0, 0
        self._committed = False
        with files.sentences(name):
            self._file = files.raw(self._temporary, "wb")
        try:
            with files.sentences(name):
                self._write(MAGIC + salt)
        except BaseException:
            self.abort()  # nobody else knows of it
            raise

    def append(self, piece: memoryview) -> None:
        """Add bytes at the end. Raises StorageError; `abort` then."""
        start = 0
        while start < len(piece):
            if len(self._buffer) == CHUNK_BYTES:
                self._seal(last=False)
            taken = piece[start : start + CHUNK_BYTES - len(self._buffer)]
            self._buffer += taken
            start += len(taken)

    def commit(self) -> int:
        """Let the file appear under its name; how many bytes it has. Raises StorageError; `abort` then."""
        self._seal(last=True)
        with self._files.sentences(self._name):
            self._files.settle(self._file)
            if self._renamed:
                self._files.rename(self._temporary, self._files.path(self._name))
        self._committed = True
        return self._size

    def abort(self) -> None:
        """Leave nothing. Does nothing to a file that was committed."""
        if self._committed:
            return
        with contextlib.suppress(Exception):
            self._file.close()  # a full disk refuses what is buffered, which is not wanted any more
        self._files.discard(self._temporary)

    def _seal(self, *, last: bool) -> None:
        """Write what was gathered as a chunk; nobody knows before which one is the last."""
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), bytes(self._buffer), None)
        with self._files.sentences(self._name):
            self._write(sealed)
        self._number += 1
        self._buffer.clear()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)


class SealedReader:
    """A file that is read chunk by chunk, in any order, each verified. May be used in any thread.

    That a file was cut shows when it is opened: its last chunk then is none that was sealed as the last one.
    """

    def __init__(self, files: SealedFiles, access: Access) -> None:
        self._files, self.access = files, access
        self._cipher = AESGCM(access.key)
        self._latest: tuple[int, bytes] | None = None
        self.size = access.size
        """Bytes that were sealed in it."""
        self.chunks = max(1, -(-access.size // CHUNK_BYTES))

    @property
    def shared(self) -> bool:
        """Whether workers can read it by themselves, with its `access`."""
        return self._files.shared

    @property
    def _path(self) -> str:
        return self._files.path(self.access.name)

    def chunk(self, number: int) -> bytes:
        """A chunk. Raises StorageError, naming the file, if it is not as it was written."""
        with self._files.reading(self._path), self._files.raw(self._path, "rb") as file:
            return self._chunk(file, number)

    def fill(self, into: memoryview, start: int) -> None:
        """Read bytes from a place on. Raises StorageError, also where the file has less."""
        if start + len(into) > self.size:
            raise StorageError(f"{self._path} ends too early; restore it, or upload the table again")
        at = 0
        with self._files.reading(self._path), self._files.raw(self._path, "rb") as file:
            while at < len(into):
                number, offset = divmod(start + at, CHUNK_BYTES)
                latest = self._latest
                chunk = latest[1] if latest and latest[0] == number else self._chunk(file, number)
                taken = memoryview(chunk)[offset : offset + len(into) - at]
                into[at : at + len(taken)] = taken
                at += len(taken)
                # Where one read ends in the middle of a chunk, the next one goes on.
                self._latest = (number, chunk) if start + at < self.size else None

    def rest(self) -> None:
        """Keep nothing in memory until the next read."""
        self._latest = None

    def _chunk(self, file: Any, number: int) -> bytes:
        file.seek(HEAD_BYTES + number * (CHUNK_BYTES + TAG_BYTES))
        last = number == self.chunks - 1
        try:
            sealed = file.read(CHUNK_BYTES + TAG_BYTES)
            return self._cipher.decrypt(_nonce(number, last=last), sealed, None)
        except InvalidTag as error:
            raise StorageError(
                f"{self._path} is damaged in chunk {number}: a bit has flipped, it was cut, or it "
                "was encrypted with another storage key; restore it, or upload the table again"
            ) from error


def _why(error: Exception) -> str:
    """What a file system has raised, in a word; those of other packages raise what they like."""
    if isinstance(error, OSError | ValueError | ImportError):
        return getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {error}"


def owner_of(name: str) -> str:
    """The file that a part is of; a file that is none is its own."""
    return name[:NAME_DIGITS]


def _is_of(name: str, wanted: set[str]) -> bool:
    """Whether a file is one of these, or a part of one; what was not written to its end is not."""
    return name in wanted or (not name.endswith(TEMPORARY) and owner_of(name) in wanted)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
