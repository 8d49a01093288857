"""What members' keys do beyond links: sign approvals, open sealed results, recognise uploads.

One Ed25519 key is a member's identity. From it come a key for X25519, to which results are sealed, and one
for fingerprints of uploads, each by HKDF under a name of its own, so that nothing signed or agreed for one
purpose can pass for another.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os

import attrs
import msgpack
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tercet.errors import ConsentError
from tercet.transports.identity import Identity, public_key

KEY_BYTES = 32
NONCE_BYTES = 12
RENEWAL = b"renewal"
"""The purpose of a signature over the certificate and the sealing key that come after one's own."""
SEALED_MORE = KEY_BYTES + NONCE_BYTES + 16
"""A sealed message is so many bytes longer."""


def _derive(secret: bytes, name: bytes, salt: bytes = b"") -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt or None, b"tercet " + name).derive(secret)


@attrs.frozen
class MemberKeys:
    """The secret keys of a member: the present identity, and those from before it and after it, latest first.

    Those after it are of a renewal by which the lake does not go yet.
    """

    identity: Identity
    former: tuple[Identity, ...] = ()
    coming: tuple[Identity, ...] = ()

    @property
    def sealing_key(self) -> str:
        """The public key to which results for this member are sealed, in hexadecimal."""
        return _public(_opener(self.identity)).hex()

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """A signature, 64 bytes, over a message that is meant for one purpose."""
        return self.identity.key.sign(_framed(purpose, message))

    def fingerprint(self, message: bytes) -> bytes:
        """32 bytes by which this member recognises contents, and nobody else can guess them.

        They follow from the first key, so uploads from before it was renewed are recognised.
        """
        first = self.former[-1] if self.former else self.identity
        seed = first.key.private_bytes_raw()
        return hmac.digest(_derive(seed, b"fingerprints"), message, hashlib.sha256)

    def vouch(self, certificate: str, sealing_key: str = "") -> str:
        """The signature, in hexadecimal, by which this key names its successor; nodes have no sealing key."""
        return self.sign(RENEWAL, _successor(certificate, sealing_key)).hex()

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What `seal` has sealed for this member, also for an earlier key of the member's, or a later one.

        Raises ConsentError if it was changed, or is for others.
        """
        for identity in (self.identity, *self.former, *self.coming):
            with contextlib.suppress(ValueError, InvalidTag):
                return _opened(sealed, context, identity)
        raise ConsentError(
            f"a sealed result does not open with the key of {self.identity.name}: it was changed on its "
            "way, or is meant for someone else"
        )


def _opener(identity: Identity) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(_derive(identity.key.private_bytes_raw(), b"sealed results"))


def _public(opener: X25519PrivateKey) -> bytes:
    return opener.public_key().public_bytes_raw()


def _opened(sealed: bytes, context: bytes, identity: Identity) -> bytes:
    """What was sealed for an identity. Raises ValueError or InvalidTag."""
    opener = _opener(identity)
    shared = opener.exchange(X25519PublicKey.from_public_bytes(sealed[:KEY_BYTES]))
    key = _derive(shared, b"seal", sealed[:KEY_BYTES] + _public(opener))
    nonce = sealed[KEY_BYTES : KEY_BYTES + NONCE_BYTES]
    return AESGCM(key).decrypt(nonce, sealed[KEY_BYTES + NONCE_BYTES :], context)


def seal(message: bytes, sealing_key: str, context: bytes) -> bytes:
    """Encrypt for the owner of a sealing key, under a fresh X25519 key and AES-256-GCM; binds `context`."""
    once = X25519PrivateKey.generate()
    mine = once.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    theirs = bytes.fromhex(sealing_key)
    shared = once.exchange(X25519PublicKey.from_public_bytes(theirs))
    nonce = os.urandom(NONCE_BYTES)
    return mine + nonce + AESGCM(_derive(shared, b"seal", mine + theirs)).encrypt(nonce, message, context)


def verify(certificate: str, purpose: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of a certificate has signed a message for a purpose."""
    try:
        _key_of(certificate).verify(signature, _framed(purpose, message))
    except InvalidSignature:
        return False
    return True


def vouched_for(certificate: str, signature: str, successor: str, sealing_key: str = "") -> bool:
    """Whether the owner of a certificate has named another one as its successor; see `MemberKeys.vouch`."""
    try:
        return verify(certificate, RENEWAL, _successor(successor, sealing_key), bytes.fromhex(signature))
    except ValueError:
        return False


def _successor(certificate: str, sealing_key: str) -> bytes:
    packed: bytes = msgpack.packb([certificate.strip(), sealing_key])
    return packed


def digest_of_certificate(certificate: str) -> str:
    """By what people and files tell certificates apart: 64 hexadecimal digits."""
    return hashlib.sha256(certificate.strip().encode()).hexdigest()


_key_of = functools.lru_cache(maxsize=256)(public_key)
"""Reading a certificate takes longer than checking a signature."""


def _framed(purpose: bytes, message: bytes) -> bytes:
    return b"tercet " + purpose + b"\0" + message


def context(run: bytes, name: str, party: int) -> bytes:
    """What a sealed part is bound to."""
    return b"%b/%d/%b" % (run.hex().encode(), party, name.encode())
