"""What may follow a lake's list of members: what most nodes have signed, there and for the same people."""

from __future__ import annotations

import datetime as dt
import os

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.client.reach import who_am_i
from tercet.errors import ConfigError, ConsentError, StorageError
from tercet.members import succession
from tercet.members.audit import AuditLog
from tercet.members.audit_lines import check_lines
from tercet.members.config import ClusterFile, Former, Signed
from tercet.members.keys import MemberKeys, context, seal
from tercet.members.succession import changes, current, draft, next_path, place, require_signed, sign, waiting
from tercet.members.verified import Verified
from tercet.nodes.setup import make_cluster, make_member, make_node, renew_key
from tercet.transports import Identity, make_identity
from tercet.transports.identity import replace_identities

NOW = dt.datetime.now(dt.UTC)
SOON = NOW + dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A lake of three nodes, ann and olga; its file."""
    root = tmp_path_factory.mktemp("lake")
    parts = [make_node(f"n{i}", f"127.0.0.1:700{i}", root / f"n{i}") for i in range(3)]
    parts += [make_member("ann", ["analyst"], root), make_member("olga", ["operator"], root)]
    make_cluster(parts, root / "cluster.toml", protocol="replicated")
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of it, to change."""
    for path in made.rglob("*"):
        to = tmp_path / path.relative_to(made)
        if path.is_dir():
            to.mkdir()
        else:
            to.write_bytes(path.read_bytes())
            to.chmod(path.stat().st_mode)
    return tmp_path


@pytest.fixture
def lake(root):
    return ClusterFile.read(root / "cluster.toml")


def keys(root, name):
    path = root / name / "node.key" if name.startswith("n") else root / f"{name}.key"
    return MemberKeys(Identity.read(path))


def part(root, name, *roles):
    return ClusterFile.read_part(make_member(name, roles or ["owner"], root))


def signed(root, before, after, *nodes):
    for node in nodes or ("n0", "n2"):
        after = sign(before, after, keys(root, node))
    return after


def following(root, lake, *parts, nodes=("n0", "n2"), **options):
    return signed(root, lake, draft(lake, parts, takes_effect=SOON, **options), *nodes)


def test_what_most_nodes_have_signed_follows(root, lake):
    after = following(root, lake, part(root, "zoe"), removed=["ann"], addresses={"n1": "10.0.0.1:7000"})
    require_signed(lake, after)
    path = root / "after.toml"
    after.write(path)
    assert ClusterFile.read(path) == after
    assert (after.number, after.lake, after.removed) == (2, lake.digest(), ("ann",))
    told = "\n".join(changes(lake, after))
    assert "ann is removed, for good" in told
    assert "zoe becomes a member (owner)" in told
    assert "n1 moves from 127.0.0.1:7001 to 10.0.0.1:7000" in told
    third = following(root, after, removed=["zoe"])
    require_signed(after, third)
    assert (third.lake, third.removed) == (lake.digest(), ("ann", "zoe"))
    with pytest.raises(ConfigError, match="take up what is between"):
        require_signed(lake, third)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [((), "signatures of 0 nodes"), (("n1",), "of 1 nodes, and takes those of 2 of 3")],
)
def test_one_operator_changes_nothing(root, lake, nodes, why):
    after = draft(lake, takes_effect=SOON)
    for node in nodes:
        after = sign(lake, after, keys(root, node))
    twice = attrs.evolve(after, signatures=after.signatures * 2)
    for one in (after, twice):
        with pytest.raises(ConfigError, match=why):
            require_signed(lake, one)


def test_members_do_not_sign(root, lake):
    after = draft(lake, takes_effect=SOON)
    with pytest.raises(ConfigError, match="only nodes sign"):
        sign(lake, after, keys(root, "olga"))
    forged = [Signed(node, keys(root, "olga").sign(succession.PURPOSE, b"x").hex()) for node in ("n0", "n1")]
    with pytest.raises(ConfigError, match="in the name of 'n0' that is not under this file"):
        require_signed(lake, attrs.evolve(after, signatures=tuple(forged)))


def hostile(root, lake):
    """Files that somebody has made of one that most nodes have signed, or has them sign."""
    good = following(root, lake)
    ann = next(one for one in good.members if one.name == "ann")
    olga = next(one for one in good.members if one.name == "olga")
    mallory = make_identity("ann")
    stranger = MemberKeys(make_identity("mallory"))
    new = {"certificate": stranger.identity.certificate_pem, "sealing_key": stranger.sealing_key}
    own = attrs.evolve(ann, certificate=mallory.certificate_pem, sealing_key=MemberKeys(mallory).sealing_key)
    more = (*good.members, attrs.evolve(ann, name="mallory", **new))
    yield "herself an operator", attrs.evolve(good, members=(attrs.evolve(ann, roles=("operator",)), olga))
    yield "one more member", attrs.evolve(good, members=more)
    yield (
        "results sealed to another",
        attrs.evolve(good, members=(attrs.evolve(ann, sealing_key=stranger.sealing_key), olga)),
    )
    yield "another key", attrs.evolve(good, members=(own, olga))
    yield (
        "another address",
        attrs.evolve(good, nodes=(attrs.evolve(good.nodes[0], address="6.6.6.6:1"), *good.nodes[1:])),
    )
    yield "an earlier time", attrs.evolve(good, takes_effect=NOW)
    yield "another order", attrs.evolve(good, nodes=good.nodes[::-1])
    yield "another number", attrs.evolve(good, number=3)
    yield "another lake", attrs.evolve(good, first="ab" * 32)
    yield "another before", attrs.evolve(good, follows="ab" * 32)
    yield "somebody removed", attrs.evolve(good, members=(olga,), removed=("ann",))
    yield "removed without a word", attrs.evolve(good, members=(olga,))
    yield "another protocol", attrs.evolve(good, protocol="shamir")
    yield (
        "a stranger's signature",
        attrs.evolve(good, signatures=(*good.signatures, Signed("n9", good.signatures[0].signature))),
    )
    yield "no hexadecimal", attrs.evolve(good, signatures=(Signed("n0", "zz"), *good.signatures[1:]))


@pytest.mark.parametrize("index", range(15))
def test_what_somebody_has_changed_does_not_follow(root, lake, index):
    what, file = list(hostile(root, lake))[index]
    with pytest.raises(ConfigError):
        require_signed(lake, file)
        pytest.fail(what)


@pytest.mark.parametrize(
    "what", ["ann comes back", "a node goes", "keys are forgotten", "a revoked key counts"]
)
def test_what_nodes_cannot_sign_either(root, lake, what):
    gone = following(root, lake, removed=["ann"])
    renew_key(root / "olga.key", lake)
    renewed = following(root, lake, ClusterFile.read_part(root / "olga.public.toml"), revoked=["olga"])
    olga = renewed.member("olga")
    before, members, nodes, removed = {
        "ann comes back": (gone, lake.members, gone.nodes, ()),
        "a node goes": (lake, lake.members, (*lake.nodes[:2], attrs.evolve(lake.nodes[2], name="n3")), ()),
        "keys are forgotten": (renewed, (renewed.members[0], attrs.evolve(olga, former=())), lake.nodes, ()),
        "a revoked key counts": (
            renewed,
            (
                renewed.members[0],
                attrs.evolve(olga, former=(attrs.evolve(olga.former[0], revoked=False),)),
            ),
            lake.nodes,
            (),
        ),
    }[what]
    after = attrs.evolve(draft(before, takes_effect=SOON), members=members, nodes=nodes, removed=removed)
    with pytest.raises(ConfigError):
        sign(before, after, keys(root, "n0"))


def test_names_that_are_not_there(lake):
    for options in ({"removed": ["bob"]}, {"revoked": ["bob"]}, {"addresses": {"bob": "h:1"}}):
        with pytest.raises(ConfigError, match="there is no 'bob'"):
            draft(lake, takes_effect=SOON, **options)
    with pytest.raises(ConfigError, match="is no address"):
        draft(lake, takes_effect=SOON, addresses={"n0": "nowhere"})
    with pytest.raises(ConfigError, match="have no address"):
        draft(lake, takes_effect=SOON, addresses={"ann": "h:1"})


# -- keys ----------------------------------------------------------------------------------------------------


def test_a_renewed_key(root, lake):
    before = keys(root, "ann")
    sealed = seal(b"numbers", before.sealing_key, context(b"run", "sum", 0))
    public = renew_key(root / "ann.key", lake, days=30)
    assert renew_key(root / "ann.key", lake).read_bytes() == public.read_bytes()
    identities = Identity.read_all(root / "ann.key")
    assert [one.name for one in identities] == ["ann", "ann"]
    assert (root / "ann.key").stat().st_mode & 0o077 == 0
    after = following(root, lake, ClusterFile.read_part(public))
    require_signed(lake, after)
    (told,) = changes(lake, after)
    assert told.startswith(f"ann has a new key, with the digits {succession.digits(after.member('ann'))}")
    assert told.endswith("for which the one before vouches")
    ann = after.member("ann")
    assert lake.of_mine(identities) == ("ann", identities[1])
    assert after.of_mine(identities) == ("ann", identities[0])
    assert ann.trusted == (identities[0].certificate_pem, before.identity.certificate_pem)
    now = MemberKeys(identities[0], identities[1:])
    assert now.fingerprint(b"rows") == before.fingerprint(b"rows")
    assert now.open(sealed, context(b"run", "sum", 0)) == b"numbers"
    anew = seal(b"more", ann.sealing_key, context(b"run", "sum", 0))
    assert now.open(anew, context(b"run", "sum", 0)) == b"more"
    with pytest.raises(ConsentError, match="does not open"):
        before.open(anew, context(b"run", "sum", 0))


def test_a_renewed_key_by_which_the_lake_does_not_go_yet(root, lake):
    first = keys(root, "ann")
    where = context(b"run", "sum", 0)
    for renewal in range(2):
        part_of_ann = ClusterFile.read_part(renew_key(root / "ann.key", lake))
        between = who_am_i(lake, root / "ann.key", root / "cluster.toml")
        assert between.identity.certificate_pem == lake.member("ann").certificate
        assert between.fingerprint(b"rows") == first.fingerprint(b"rows"), renewal
        sealed = seal(b"more", part_of_ann.members[0].sealing_key, where)  # by a node that goes by it already
        assert between.open(sealed, where) == b"more"
        lake = following(root, lake, part_of_ann)
        after = who_am_i(lake, root / "ann.key", root / "cluster.toml")
        assert after.fingerprint(b"rows") == first.fingerprint(b"rows")
        assert len(after.former) == renewal + 1


def test_a_key_that_was_lost(root, lake):
    (root / "ann.key").unlink()
    (root / "ann.public.toml").unlink()
    after = following(root, lake, part(root, "ann", "analyst"))
    require_signed(lake, after)
    assert "does not vouch: ask them" in changes(lake, after)[0]
    assert after.member("ann").trusted == (after.member("ann").certificate,)


def test_a_forged_vouching(root, lake):
    ann, mallory = lake.member("ann"), MemberKeys(make_identity("ann"))
    forged = attrs.evolve(
        ann,
        certificate=mallory.identity.certificate_pem,
        sealing_key=mallory.sealing_key,
        former=(
            Former(
                ann.certificate,
                mallory.vouch(mallory.identity.certificate_pem, mallory.sealing_key),
                sealing_key=ann.sealing_key,
            ),
        ),
    )
    with pytest.raises(ConfigError, match="does not vouch for the one after it"):
        draft(lake, [ClusterFile("replicated", (), (forged,))], takes_effect=SOON)


def test_a_sealing_key_that_was_changed_on_its_way(root, lake):
    """Ann has vouched for the certificate; what is sealed to her would be another's to read."""
    (renewed,) = ClusterFile.read_part(renew_key(root / "ann.key", lake)).members
    mallory = MemberKeys(make_identity("mallory"))
    forged = attrs.evolve(renewed, sealing_key=mallory.sealing_key)
    with pytest.raises(ConfigError, match="does not vouch for the one after it"):
        draft(lake, [ClusterFile("replicated", (), (forged,))], takes_effect=SOON)
    earlier = attrs.evolve(renewed.former[0], sealing_key=mallory.sealing_key)
    after = draft(
        lake,
        [ClusterFile("replicated", (), (attrs.evolve(renewed, former=(earlier,)),))],
        takes_effect=SOON,
    )
    assert "does not vouch: ask them" in changes(lake, after)[0]
    assert [one.sealing_key for one in after.member("ann").former] == [lake.member("ann").sealing_key]


def test_a_key_that_was_renewed_twice_before_the_lake_goes_by_it(root, lake):
    first = ClusterFile.read_part(renew_key(root / "ann.key", lake))
    between = make_identity("ann")
    replace_identities(root / "ann.key", [between, *Identity.read_all(root / "ann.key")])
    public = renew_key(root / "ann.key", lake)
    after = following(root, lake, ClusterFile.read_part(public))
    require_signed(lake, after)
    assert len(after.member("ann").former) == 2
    assert after.member("ann").sealing_keys[1] == first.members[0].sealing_key
    assert all(one.vouches for one in after.member("ann").former)


def test_a_certificate_of_somebody_else(root, lake):
    renew_key(root / "olga.key", lake)
    after = following(root, lake, ClusterFile.read_part(root / "olga.public.toml"))
    thief = attrs.evolve(after.members[0], name="zoe", certificate=lake.member("olga").certificate)
    with pytest.raises(ConfigError, match="same certificate is pinned"):
        draft(after, [ClusterFile("replicated", (), (thief,))], takes_effect=SOON)


# -- the audit log of a node whose key was renewed -----------------------------------------------------------


def test_a_log_goes_on_under_another_key(tmp_path):
    first, second, third = (MemberKeys(make_identity("n0")) for _ in range(3))
    certificates = [one.identity.certificate_pem for one in (first, second, third)]
    log = AuditLog(tmp_path / "audit.log", first)
    log.append("started")
    log.renew(second)
    log.append("kept", name="ages")
    again = AuditLog(log.path, third, former=certificates[:2])
    again.append("kept", name="costs")
    lines = again.lines(0)
    assert check_lines(lines, certificates, where="it") == again.head
    assert [line.count('"renewed"') for line in lines] == [0, 1, 0, 1, 0]
    assert AuditLog(log.path, third, former=certificates[:2]).head == again.head
    for known in (certificates[:2], certificates[1:], [certificates[2]]):
        with pytest.raises(ConsentError, match="was not signed by this node's key"):
            check_lines(lines, known, where="it")
    noted = Verified.beside(tmp_path / "aud.key")
    noted.remember({certificates[0]: log.head})
    assert noted.head(*certificates) == log.head
    assert noted.head(certificates[1]).lines == 0


def test_a_log_without_room_stays_under_its_key(tmp_path, monkeypatch):
    first, second = (MemberKeys(make_identity("n0")) for _ in range(2))
    certificates = [one.identity.certificate_pem for one in (first, second)]
    log = AuditLog(tmp_path / "audit.log", first)
    log.append("started")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda *_: 0)
        with pytest.raises(StorageError, match="make room"):
            log.renew(second)
    log.append("kept", name="ages")
    log.renew(second)
    log.append("kept", name="costs")
    assert check_lines(log.lines(0), certificates, where="it") == log.head


def test_who_has_an_earlier_key_writes_no_lines(tmp_path):
    first, second = (MemberKeys(make_identity("n0")) for _ in range(2))
    certificates = [one.identity.certificate_pem for one in (first, second)]
    log = AuditLog(tmp_path / "audit.log", first)
    log.renew(second)
    log.append("kept", name="ages")
    log._keys = first
    log.append("kept", name="forged")
    with pytest.raises(ConsentError, match=r"line 3, was not signed"):
        check_lines(log.lines(0), certificates, where="it")


# -- files ---------------------------------------------------------------------------------------------------


def test_it_waits_until_its_time(root, lake):
    path = root / "cluster.toml"
    after = following(root, lake, part(root, "zoe"))
    packed = after.to_text().encode()
    assert place(path, packed) == place(path, packed) == (lake, after)
    assert current(path) == lake
    assert waiting(path, lake) == after
    other = following(root, lake, removed=["ann"])
    with pytest.raises(ConfigError, match="another number 2 waits already"):
        place(path, other.to_text().encode())
    assert current(path, SOON) == after
    assert ClusterFile.read(path) == after
    assert ClusterFile.read(succession.kept_path(path, 1)) == lake
    assert not next_path(path).exists()
    next_path(path).write_bytes(packed)  # put there again
    assert current(path, SOON) == after


def test_files_that_lead_to_a_later_one(root, lake):
    path, second = root / "cluster.toml", following(root, lake, part(root, "zoe"))
    third = following(root, second, removed=["ann"])
    for after in (second, third):
        place(path, after.to_text().encode())
        assert current(path, SOON) == after
    assert succession.steps(path, lake, second) == [second]
    assert succession.steps(path, lake, third) == [second, third]
    assert succession.steps(path, second, third) == [third]
    kept = succession.kept_path(path, 2)
    attrs.evolve(second, signatures=second.signatures[:1]).write(kept)
    with pytest.raises(ConfigError, match="signatures of 1 nodes"):
        succession.steps(path, lake, third)
    following(root, lake, removed=["ann"]).write(kept)
    with pytest.raises(ConfigError, match="number 3 was made to follow another"):
        succession.steps(path, lake, third)
    kept.unlink()
    with pytest.raises(
        ConfigError, match=r"number 2, which leads to it, is not kept as .*cluster-000002\.toml"
    ):
        succession.steps(path, lake, third)


@pytest.mark.parametrize("step", ["is_due", "waiting"])
def test_what_is_kept_is_what_was_followed(root, lake, monkeypatch, step):
    """Another process lets a file take its place while this one is about to."""
    path, second = root / "cluster.toml", following(root, lake)
    place(path, second.to_text().encode())
    whole = getattr(succession, step)

    def slowly(*args):
        monkeypatch.setattr(succession, step, whole)
        assert current(path, SOON) == second
        place(path, following(root, second, removed=["ann"]).to_text().encode())
        return whole(*args)

    monkeypatch.setattr(succession, step, slowly)
    assert current(path, SOON).number == 3
    assert ClusterFile.read(succession.kept_path(path, 1)) == lake
    assert ClusterFile.read(succession.kept_path(path, 2)) == second


def test_what_waits_and_does_not_follow(root, lake):
    path = root / "cluster.toml"
    draft(lake, takes_effect=NOW).write(next_path(path))
    with pytest.raises(ConfigError, match=r"next\.toml does not follow .*signatures of 0 nodes.*remove it"):
        current(path)
    far = draft(lake, takes_effect=NOW + dt.timedelta(days=500))
    next_path(path).unlink()
    with pytest.raises(ConfigError, match="more than a year"):
        place(path, signed(root, lake, far).to_text().encode())
    with pytest.raises(ConfigError, match="are enough"):
        place(path, b"#" * (1 << 21))


@given(st.binary(max_size=300))
def test_any_bytes_give_a_sentence(made, data):
    with pytest.raises(ConfigError):
        place(made / "cluster.toml", data)
