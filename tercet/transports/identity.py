"""Who is who: self-signed certificates, and the pins that say which certificate belongs to which party.

There is no certificate authority. Each party makes an identity once, hands its certificate (never its key) to
the others by a way they trust, and pins theirs under the names used in the configuration. A pin is the
certificate itself, byte for byte; renewing a certificate means pinning the new one. A file may have several
identities of one party, the latest first: those before it are kept for what was sealed to them. From identity
and pins this module makes the `ssl.SSLContext` of each side: TLS 1.3 only, a certificate demanded from both.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import secrets
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from tercet.errors import TransportError

_ONE_YEAR = dt.timedelta(days=365)
_CLOCK_SKEW = dt.timedelta(minutes=5)
_BETWEEN = re.compile(r"(?<=-----END CERTIFICATE-----)")
MOST_KEYS = 64
"""Identities in a file: one for each renewal."""
MALFORMED = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What reading a certificate raises that is none, or none of a kind that Tercet makes."""


@attrs.frozen
class Identity:
    """A party's name, its certificate and its private key, both as PEM text. The key stays out of `repr`."""

    name: str
    certificate_pem: str
    key_pem: str = attrs.field(repr=False)

    @property
    def certificate(self) -> bytes:
        """The certificate in DER. Raises TransportError if it is malformed."""
        try:
            return _der(x509.load_pem_x509_certificate(self.certificate_pem.encode()))
        except MALFORMED as error:
            raise TransportError(
                f"The certificate of {self.name} is malformed ({error}); make the identity again and send "
                "its certificate to the other parties."
            ) from error

    @property
    def key(self) -> Ed25519PrivateKey:
        """The private key. Raises TransportError if it is of another kind."""
        key = serialization.load_pem_private_key(self.key_pem.encode(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TransportError(f"The key of {self.name} is no Ed25519 key; make the identity again.")
        return key

    def save(self, path: Path) -> None:
        """Write key and certificate to a new file that only its owner can read.

        Raises:
          TransportError: the file is there already.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise TransportError(
                f"{path} is there already; remove it if nobody needs that key any more, or take another name."
            ) from error
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self.key_pem + self.certificate_pem)
        except BaseException:
            path.unlink(missing_ok=True)  # half a key would stand in the way of the next try
            raise

    @classmethod
    def read(cls, path: Path) -> Identity:
        """The latest that a file has; see `read_all`."""
        return cls.read_all(path)[0]

    @classmethod
    def read_all(cls, path: Path) -> tuple[Identity, ...]:
        """All identities that a file has, the latest first; their names are those in the certificates.

        Raises:
          TransportError: the file is missing, readable by others, or has something else.
        """
        try:
            text = path.read_text()
            mode = path.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise TransportError(
                f"The key {path} cannot be read ({why}); `tercet init` makes one."
            ) from error
        if mode & 0o077:
            raise TransportError(f"The key {path} can be read by others; run `chmod 600 {path}`.")
        parts = [part for part in _BETWEEN.split(text) if part.strip()]
        if len(parts) > MOST_KEYS:
            raise TransportError(f"{path} has {len(parts)} keys; remove the earliest beyond {MOST_KEYS}.")
        return tuple(cls._parse(part, path) for part in parts or [text])

    @classmethod
    def _parse(cls, text: str, path: Path) -> Identity:
        key, begin, certificate = text.partition("-----BEGIN CERTIFICATE-----")
        try:
            loaded = x509.load_pem_x509_certificate((begin + certificate).encode())
            names = loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return cls(str(names[0].value), (begin + certificate).strip() + "\n", key.lstrip())
        except (*MALFORMED, IndexError) as error:
            raise TransportError(
                f"{path} has no key with its certificate, as `tercet init` makes them ({error})."
            ) from error


def replace_identities(path: Path, identities: Sequence[Identity]) -> None:
    """Let a file have these identities, the latest first, or leave it as it was. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.writelines(
                one.key_pem.rstrip() + "\n" + one.certificate_pem.rstrip() + "\n" for one in identities
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_identity(
    name: str, *, valid_from: dt.datetime | None = None, valid_for: dt.timedelta = _ONE_YEAR
) -> Identity:
    """Make an Ed25519 key and a self-signed certificate for `name`.

    It is valid for a year, starting 5 minutes ago, since the clocks of parties differ.

    Raises:
      TransportError: the name is empty.
    """
    if not name:
        raise TransportError("An identity needs a name, for instance party-0.")
    start = valid_from or dt.datetime.now(dt.UTC) - _CLOCK_SKEW
    key = Ed25519PrivateKey.generate()
    # The name in the certificate is for people who read it (64 characters at most); the pins decide who is
    # who.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + valid_for)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
    )
    return Identity(
        name,
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def public_key(certificate_pem: str) -> Ed25519PublicKey:
    """The key that a certificate is about.

    Raises:
      TransportError: it is malformed, or of another kind than Tercet makes.
    """
    try:
        key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    except MALFORMED as error:
        raise TransportError(
            f"A certificate is not as Tercet makes them ({error}); copy it again."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise TransportError("A certificate is not about an Ed25519 key; let `tercet init` make a new one.")
    return key


def expiry(certificate_pem: str) -> dt.datetime:
    """When a certificate ends to be valid."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_after_utc


@attrs.frozen
class Pins:
    """The certificates that are trusted, by fingerprint (SHA-256 of the DER form)."""

    names: Mapping[bytes, str]
    certificates_pem: str

    @classmethod
    def read(cls, pins: Mapping[str, str]) -> Pins:
        """Read a mapping from names to certificates in PEM.

        Raises:
          TransportError: there are none, one is malformed, or one is pinned under two names.
        """
        if not pins:
            raise TransportError(
                "No certificate is pinned, so nobody could connect; pin that of each other party."
            )
        names: dict[bytes, str] = {}
        for name, pem in pins.items():
            try:
                certificate = x509.load_pem_x509_certificate(pem.encode())
            except MALFORMED as error:
                raise TransportError(
                    f"What is pinned for {name} is no certificate in PEM form ({error}); copy it from {name} "
                    "again."
                ) from error
            fingerprint = hashlib.sha256(_der(certificate)).digest()
            if fingerprint in names:
                raise TransportError(
                    f"The same certificate is pinned for {names[fingerprint]} and for {name}; each needs its "
                    "own."
                )
            names[fingerprint] = name
        return cls(names, "\n".join(pins.values()))

    def name_of(self, certificate: bytes | None) -> str | None:
        """Return the name under which a certificate (DER) is pinned, None if it is not."""
        return None if certificate is None else self.names.get(hashlib.sha256(certificate).digest())


def make_context(identity: Identity, pins: Pins, *, server: bool) -> ssl.SSLContext:
    """Return a context for TLS 1.3 with both ends authenticated by pinned certificates.

    Raises:
      TransportError: the identity's certificate and key are malformed or do not belong together, or there is
        no directory for temporary files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names come from pins, not from DNS
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a pinned certificate is trusted whoever signed it
    if server:
        context.num_tickets = 0  # a resumed session would not show its certificate again
    context.load_verify_locations(cadata=pins.certificates_pem)
    try:
        _load_key(context, identity)
    except (ValueError, TypeError, ssl.SSLError) as error:
        raise TransportError(
            f"The certificate and the key of {identity.name} are malformed or do not belong together "
            f"({error}); make the identity again and send its certificate to the other parties."
        ) from error
    except OSError as error:
        raise TransportError(
            f"The key of {identity.name} cannot be handed to OpenSSL, which takes it from a file "
            f"({error.strerror or error}); let this process write to a temporary directory "
            "(TMPDIR; with systemd, PrivateTmp=true)."
        ) from error
    return context


def _load_key(context: ssl.SSLContext, identity: Identity) -> None:
    """Load certificate and key, which OpenSSL takes only from files.

    What touches the disk is encrypted under a password that never leaves this function, so that not even a
    crash in between leaves a key behind.
    """
    password = secrets.token_bytes(16).hex().encode()
    key = serialization.load_pem_private_key(identity.key_pem.encode(), password=None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(identity.certificate_pem.encode() + b"\n" + sealed)
        context.load_cert_chain(path, password=password)
