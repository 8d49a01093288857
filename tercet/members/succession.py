"""How a lake changes while it runs: a `cluster.toml` that follows the present one, signed by most nodes.

The file that follows has the next number, names the lake and the file before it, says when it takes effect,
and has signatures of more than half of the nodes of the file before it, with the keys that this one lists. So
no single operator changes anything, nor does a member; more than half are more than any protocol lets be
corrupt, so an honest operator has looked. A signature holds for that file after that one in that lake.

Who is who goes on from file to file: a node or member keeps its name, its certificates are those of before
and perhaps a new one, and the name of a member who was removed is nobody's again, since tables, rules and
signatures are known by it. Protocol, number and names of nodes stay as they are.

Beside `cluster.toml` the file that follows waits as `cluster.next.toml`, and takes its place when its time
has come and somebody reads it: a node, a command, a notebook. What was there before is kept under its number.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
import msgpack

from tercet.errors import ConfigError
from tercet.members.config import ClusterFile, Former, Listed, Member, NodeEntry, Signed
from tercet.members.keys import MemberKeys, digest_of_certificate, verify
from tercet.members.toml_fields import in_utc

PURPOSE = b"lake file"
LONGEST_AHEAD = dt.timedelta(days=366)
SHOWN_DIGITS = 16
"""For people to compare."""


# -- what follows what ---------------------------------------------------------------------------------------


def draft(
    before: ClusterFile,
    parts: Sequence[ClusterFile] = (),
    *,
    removed: Sequence[str] = (),
    addresses: Mapping[str, str] | None = None,
    revoked: Sequence[str] = (),
    takes_effect: dt.datetime,
) -> ClusterFile:
    """The file that follows one, not signed yet: public parts take the place of entries of their name.

    A key that takes the place of one which does not vouch for it has that one revoked. `revoked` are names of
    those whose earlier keys are not to count any more. Raises ConfigError.
    """
    moved = dict(addresses or {})
    for name in (*removed, *moved, *revoked):
        if name not in [entry.name for entry in before.entries]:
            raise ConfigError(f"there is no {name!r} in the present cluster.toml; it lists {_names(before)}")
    nodes = {node.name: node for node in before.nodes}
    members = {member.name: member for member in before.members if member.name not in removed}
    for part in parts:
        for node in part.nodes:
            nodes[node.name] = _in_place_of(nodes.get(node.name), node)
        for member in part.members:
            members[member.name] = _in_place_of(members.get(member.name), member)
    for name, address in moved.items():
        if name not in nodes:
            raise ConfigError(f"{name} is a member, and members have no address")
        nodes[name] = attrs.evolve(nodes[name], address=address)
    found = ClusterFile(
        before.protocol,
        tuple(_revoked(node) if node.name in revoked else node for node in nodes.values()),
        tuple(_revoked(member) if member.name in revoked else member for member in members.values()),
        number=before.number + 1,
        first=before.lake.hex(),
        follows=before.digest().hex(),
        takes_effect=in_utc(takes_effect, "takes_effect").replace(microsecond=0),
        removed=tuple(sorted({*before.removed, *removed})),
    )
    found.check("the file that follows")
    _require_same_people(before, found)
    return found


def sign(before: ClusterFile, after: ClusterFile, keys: MemberKeys) -> ClusterFile:
    """The file that follows one, with the signature of a node added. Raises ConfigError."""
    require_follows(before, after)
    own = [node for node in before.nodes if node.certificate.strip() == keys.identity.certificate_pem.strip()]
    if not own:
        raise ConfigError(
            "only nodes sign what follows a cluster.toml, and this is the key of none; give that of a node"
        )
    (node,) = own
    signed = Signed(node.name, keys.sign(PURPOSE, _message(before, after)).hex())
    others = [one for one in after.signatures if one.node != node.name]
    return attrs.evolve(after, signatures=(*others, signed))


def require_signed(before: ClusterFile, after: ClusterFile) -> None:
    """Raise ConfigError unless a file follows another, with signatures of most of its nodes."""
    require_follows(before, after)
    certificates = {node.name: node.certificate for node in before.nodes}
    for one in after.signatures:
        certificate = certificates.get(one.node)
        if certificate is None or not _is_signed(before, after, certificate, one.signature):
            raise ConfigError(
                f"number {after.number} has a signature in the name of {one.node!r:.80} that is not under "
                f"this file with the key of that node in number {before.number}; let its operator sign anew"
            )
    count, needed = len({one.node for one in after.signatures}), len(before.nodes) // 2 + 1
    if count < needed:
        raise ConfigError(
            f"number {after.number} has signatures of {count} nodes, and takes those of {needed} of "
            f"{len(before.nodes)}; let their operators `tercet amend` it"
        )


def require_follows(before: ClusterFile, after: ClusterFile) -> None:
    """Raise ConfigError unless a file is one that can follow another, signed or not."""
    if after.number != before.number + 1:
        raise ConfigError(
            f"the file has the number {after.number}, and what follows number {before.number} has the next "
            "one; take up what is between them first, one after the other"
        )
    if (after.first, after.follows) != (before.lake.hex(), before.digest().hex()):
        raise ConfigError(
            f"number {after.number} was made to follow another cluster.toml than this number {before.number}"
        )
    if (after.protocol, _places(after)) != (before.protocol, _places(before)):
        raise ConfigError(
            f"number {after.number} has another protocol or other nodes than number {before.number}; those "
            "of a lake stay as they are, by name and order"
        )
    _require_same_people(before, after)


def _require_same_people(before: ClusterFile, after: ClusterFile) -> None:
    names = {one.name for one in after.members}
    gone = {*before.removed, *({one.name for one in before.members} - names)}
    if back := {*before.removed} & names:
        raise ConfigError(
            f"{', '.join(sorted(back))} was removed, and nobody has that name again: tables, rules and "
            "signatures are known by it; take another name"
        )
    if {*after.removed} != gone:
        raise ConfigError(
            f"the file lists {', '.join(sorted(after.removed)) or 'nobody'} as removed, where "
            f"{', '.join(sorted(gone)) or 'nobody'} is"
        )
    known = {one.name: one for one in before.entries}
    for entry in after.entries:
        earlier = known.get(entry.name)
        if earlier is not None and not _goes_on(earlier, entry):
            raise ConfigError(
                f"the certificates of {entry.name} are not those of before, with a new one if any; take the "
                "public part that `tercet renew` has written, or let `tercet amend` make the file"
            )


def _goes_on(earlier: Listed, entry: Listed) -> bool:
    """Whether an entry has all keys of the one before it, and no revoked key counts again."""
    before, now = ([one.strip() for one in each.certificates] for each in (earlier, entry))
    pairs = zip(earlier.former, entry.former, strict=False)
    sealed = zip(earlier.sealing_keys, [one.sealing_key for one in entry.former], strict=False)
    return (
        now[: len(before)] == before
        and all(one.revoked or not was.revoked for was, one in pairs)
        and all(was == one for was, one in sealed)
    )


L = TypeVar("L", bound=Listed)


def _in_place_of(earlier: Listed | None, entry: L) -> L:
    """An entry of a public part, with the certificates of the one that it takes the place of."""
    if earlier is None or _goes_on(earlier, entry):
        return entry
    same = entry.certificate.strip() == earlier.certificate.strip()
    lost = () if same else (Former(earlier.certificate, revoked=True, sealing_key=earlier.sealing_keys[-1]),)
    return attrs.evolve(entry, former=(*earlier.former, *lost))


def _revoked(entry: L) -> L:
    return attrs.evolve(entry, former=tuple(attrs.evolve(one, revoked=True) for one in entry.former))


def _places(file: ClusterFile) -> list[str]:
    return [node.name for node in file.nodes]


def _names(file: ClusterFile) -> str:
    return ", ".join(entry.name for entry in file.entries)


def _message(before: ClusterFile, after: ClusterFile) -> bytes:
    addresses = [node.address for node in after.nodes]
    packed: bytes = msgpack.packb([before.lake, before.digest(), after.digest(), addresses])
    return packed


def _is_signed(before: ClusterFile, after: ClusterFile, certificate: str, signature: str) -> bool:
    try:
        return verify(certificate, PURPOSE, _message(before, after), bytes.fromhex(signature))
    except ValueError:
        return False


def changes(before: ClusterFile, after: ClusterFile) -> list[str]:
    """What is different in a file that follows another, as sentences for who signs it."""
    known = {one.name: one for one in before.entries}
    found = [f"{name} is removed, for good" for name in after.removed if name not in before.removed]
    for entry in after.entries:
        earlier = known.get(entry.name)
        if earlier is None:
            roles = ", ".join(entry.roles) if isinstance(entry, Member) else "a node"
            found.append(f"{entry.name} becomes a member ({roles}), with the digits {digits(entry)}")
            continue
        if (
            isinstance(entry, NodeEntry)
            and isinstance(earlier, NodeEntry)
            and entry.address != earlier.address
        ):
            found.append(f"{entry.name} moves from {earlier.address} to {entry.address}")
        if isinstance(entry, Member) and isinstance(earlier, Member):
            if sorted(entry.roles) != sorted(earlier.roles):
                now, was = ", ".join(sorted(entry.roles)), ", ".join(sorted(earlier.roles))
                found.append(f"{entry.name} has the roles {now} instead of {was}")
            if entry.sealing_key != earlier.sealing_key and entry.certificate == earlier.certificate:
                found.append(f"{entry.name} has results sealed to another key")
        if len(entry.former) > len(earlier.former):
            vouched = all(one.vouches for one in entry.former[len(earlier.former) :])
            by = (
                "for which the one before vouches"
                if vouched
                else "for which the one before does not vouch: ask them whether it is theirs"
            )
            found.append(f"{entry.name} has a new key, with the digits {digits(entry)}, {by}")
        if sum(one.revoked for one in entry.former) > sum(one.revoked for one in earlier.former):
            found.append(f"what earlier keys of {entry.name} have signed does not count any more")
    return found or ["nothing but its number"]


def digits(entry: Listed) -> str:
    """What people compare by another way, to know that a public part is theirs: of all its keys."""
    text = entry.certificate.strip()
    if isinstance(entry, Member):
        text += entry.sealing_key
    return digest_of_certificate(text)[:SHOWN_DIGITS]


# -- files ---------------------------------------------------------------------------------------------------


def next_path(path: Path) -> Path:
    """Where the file waits that follows the one at a path."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def kept_path(path: Path, number: int) -> Path:
    """Where a file is kept that another one has followed."""
    return path.with_name(f"{path.stem}-{number:06d}{path.suffix}")


def steps(path: Path, before: ClusterFile, after: ClusterFile) -> list[ClusterFile]:
    """The files that have followed one, up to a later one; those between are at a path, or kept beside it.

    Raises ConfigError unless each of them follows the one before it, with signatures of most of its nodes.
    """
    found: list[ClusterFile] = []
    while (last := found[-1] if found else before).number + 1 < after.number:
        between = kept_path(path, last.number + 1)
        if not between.exists() and ClusterFile.read(path).number == last.number + 1:
            between = path  # the later one waits beside it
        if not between.exists():
            raise ConfigError(
                f"number {after.number} of the lake's cluster.toml is there, and number {last.number + 1}, "
                f"which leads to it, is not kept as {between}; get that from another node or member"
            )
        found.append(ClusterFile.read(between))
        require_signed(last, found[-1])
    require_signed(last, after)
    return [*found, after]


def current(path: Path, now: dt.datetime | None = None) -> ClusterFile:
    """The file of a lake at a path: the one that waits beside it, which takes its place, if that is due.

    Raises ConfigError, also for one that waits and does not follow.
    """
    before, after = _in_force(path, now)
    if after is before:
        return before
    try:
        packed = path.read_bytes()
        if ClusterFile.parse(packed, str(path)).digest() != before.digest():
            return current(path, now)  # another process was faster
        _write(kept_path(path, before.number), packed)
        next_path(path).replace(path)
    except FileNotFoundError:
        return current(path, now)  # another process was faster
    except (OSError, ConfigError):
        return after  # who reads it may not write there, and goes by it all the same
    return after


def in_force(path: Path, now: dt.datetime | None = None) -> ClusterFile:
    """As `current`, and changes nothing."""
    return _in_force(path, now)[1]


def _in_force(path: Path, now: dt.datetime | None) -> tuple[ClusterFile, ClusterFile]:
    """The file at a path, and the one that is in force: that, or the one that waits beside it."""
    before = ClusterFile.read(path)
    try:
        after = waiting(path, before)
    except ConfigError:
        if ClusterFile.read(path).digest() == before.digest():
            raise
        return _in_force(path, now)  # another one has taken its place meanwhile
    return before, before if after is None or not is_due(after, now) else after


def waiting(path: Path, before: ClusterFile) -> ClusterFile | None:
    """The file that waits to follow the one at a path, if there is one. Raises ConfigError."""
    beside = next_path(path)
    try:
        packed = beside.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{beside} cannot be read ({error.strerror})") from error
    after = ClusterFile.parse(packed, str(beside))
    if after.number <= before.number:
        return None  # it has taken its place before, and somebody has put it there again
    try:
        require_signed(before, after)
    except ConfigError as error:
        raise ConfigError(f"{beside} does not follow {path.name}: {error}; or remove it") from error
    return after


def is_due(after: ClusterFile, now: dt.datetime | None = None) -> bool:
    """Whether a file has taken effect."""
    return after.takes_effect is None or after.takes_effect <= (now or dt.datetime.now(dt.UTC))


def place(path: Path, packed: bytes) -> tuple[ClusterFile, ClusterFile]:
    """Let a file wait beside the one at a path, to follow it; both.

    Raises ConfigError for one that does not follow, or where another one waits already.
    """
    before = current(path)
    after = ClusterFile.parse(packed, "the file")
    if before.digest() == after.digest():
        return before, after  # it has taken its place already
    require_signed(before, after)
    if after.takes_effect is not None and after.takes_effect > dt.datetime.now(dt.UTC) + LONGEST_AHEAD:
        raise ConfigError(f"number {after.number} takes effect in more than a year; make one for sooner")
    there = waiting(path, before)
    if there is not None and there.digest() != after.digest():
        raise ConfigError(
            f"another number {there.number} waits already; let it take effect and amend that, or have it "
            f"removed wherever it is ({next_path(path).name})"
        )
    if there is None:
        _write(next_path(path), packed)
    return before, after


def _write(path: Path, packed: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(f"{path} cannot be written ({error.strerror or error})") from error
