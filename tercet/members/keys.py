"""What members' keys do beyond links: sign approvals, open sealed results, recognise uploads.

One Ed25519 key is a member's identity. From it come a key for X25519, to which results are sealed, and one
for fingerprints of uploads, each by HKDF under a name of its own, so that nothing signed or agreed for one
purpose can pass for another.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os

import attrs
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tercet.errors import ConsentError
from tercet.transports.identity import Identity, public_key

KEY_BYTES = 32
NONCE_BYTES = 12
SEALED_MORE = KEY_BYTES + NONCE_BYTES + 16
"""A sealed message is so many bytes longer."""


def _derive(secret: bytes, name: bytes, salt: bytes = b"") -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt or None, b"tercet " + name).derive(secret)


@attrs.frozen
class MemberKeys:
    """The secret keys of a member."""

    identity: Identity

    def _seed(self) -> bytes:
        return self.identity.key.private_bytes_raw()

    @property
    def sealing_key(self) -> str:
        """The public key to which results for this member are sealed, in hexadecimal."""
        return self._opener().public_key().public_bytes_raw().hex()

    def _opener(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(_derive(self._seed(), b"sealed results"))

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """A signature, 64 bytes, over a message that is meant for one purpose."""
        return self.identity.key.sign(_framed(purpose, message))

    def fingerprint(self, message: bytes) -> bytes:
        """32 bytes by which this member recognises contents, and nobody else can guess them."""
        return hmac.digest(_derive(self._seed(), b"fingerprints"), message, hashlib.sha256)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What `seal` has sealed for this member. Raises ConsentError if it was changed, or is for others."""
        try:
            public = X25519PublicKey.from_public_bytes(sealed[:KEY_BYTES])
            nonce = sealed[KEY_BYTES : KEY_BYTES + NONCE_BYTES]
            shared = self._opener().exchange(public)
            key = _derive(shared, b"seal", sealed[:KEY_BYTES] + bytes.fromhex(self.sealing_key))
            return AESGCM(key).decrypt(nonce, sealed[KEY_BYTES + NONCE_BYTES :], context)
        except (ValueError, InvalidTag) as error:
            raise ConsentError(
                f"a sealed result does not open with the key of {self.identity.name}: it was changed on its "
                "way, or is meant for someone else"
            ) from error


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


_key_of = functools.lru_cache(maxsize=256)(public_key)
"""Reading a certificate takes longer than checking a signature."""


def _framed(purpose: bytes, message: bytes) -> bytes:
    return b"tercet " + purpose + b"\0" + message


def context(run: bytes, name: str, party: int) -> bytes:
    """What a sealed part is bound to."""
    return b"%b/%d/%b" % (run.hex().encode(), party, name.encode())
