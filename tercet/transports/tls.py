"""TLS 1.3 over TCP, with both ends authenticated by pinned certificates: the transport between real parties.

After the TLS handshake each end looks the other's certificate up among its pins and tells the other whether
it is content. Without that exchange a client would learn only at its first read that the server had turned it
down, since in TLS 1.3 the client finishes first. A refusal is a TransportError with the reason at the end
that connects, and a line in the log at the end that listens, which goes on serving.

That exchange also carries random bytes from both ends, from which the keys of all that follows are made (see
`records`): TLS is there for the handshake. It is driven by hand through `ssl.MemoryBIO` instead of
`trio.SSLStream`, so that what comes behind the exchange can be told from it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import trio

from tercet.errors import PeerLost, TransportError
from tercet.transports.admission import DEFAULT_ADMISSION, Admission, Limits, TokenBucket, address_of
from tercet.transports.base import Link, Listener, Transport
from tercet.transports.identity import Identity, Pins, make_context
from tercet.transports.records import CONTRIBUTION_BYTES, Contribution, Direction, SealedStream, keys_of
from tercet.transports.stream import ByteStream, SocketStream, StreamLink
from tercet.transports.tcp import SocketListener, open_listening_socket, open_socket
from tercet.transports.wire import DEFAULT_LIMITS, FrameLimits, pack_message, unpack_message

logger = logging.getLogger(__name__)

_CHUNK = 64 * 1024  # read at one go: strangers get little memory
_GREETING_LIMITS = FrameLimits(header=1024, payload=0)
_REASON_LENGTH = 400
MOST_WAITING = 64
"""Links that wait to be accepted, after their handshake; more are closed."""
TOLD_A_SECOND, TOLD_AT_ONCE = 1.0, 20.0
"""Connections that failed are in the log, but no more than that."""

# What an alert from the other end, or a failed check at this one, means in this setting.
_REASONS = {
    "CERTIFICATE_REQUIRED": "the client showed no certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "UNKNOWN_CA": "the certificate is not pinned at the end that checked it; exchange certificates and pin "
    "them",
    "CERTIFICATE_EXPIRED": "the certificate has expired, or a clock is wrong; renew it and pin the new one",
    "BAD_CERTIFICATE": "the certificate is damaged or not yet valid; compare the clocks, and pin it again",
    "CERTIFICATE_VERIFY_FAILED": "the certificate was not accepted",
    "PROTOCOL_VERSION": "the ends have no version of TLS in common; Tercet uses TLS 1.3 only",
    "UNSUPPORTED_PROTOCOL": "the ends have no version of TLS in common; Tercet uses TLS 1.3 only",
    "WRONG_VERSION_NUMBER": "what arrived is not TLS; does the other end use plain TCP?",
    "HTTP_REQUEST": "what arrived is not TLS but an HTTP request",
}
_EXPIRED_CODE, _NOT_YET_VALID_CODE = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (_EXPIRED_CODE, _NOT_YET_VALID_CODE):
            return f"its {error.verify_message}, or a clock is wrong; let it make a new one, and pin that"
        return f"its certificate is not pinned at this end ({error.verify_message}); get it and pin it"
    reason = error.reason or str(error)
    for part, meaning in _REASONS.items():
        if reason.endswith(part):
            return f"it refused: {meaning}" if "ALERT" in reason else meaning
    return reason.lower().replace("_", " ")


class TlsStream(ByteStream):
    """TLS over a byte stream, for the handshake and a few short messages.

    `own` is the certificate (DER) that `context` shows.
    """

    def __init__(self, stream: ByteStream, context: ssl.SSLContext, *, own: bytes, server: bool) -> None:
        self._stream, self._own, self._server = stream, own, server
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._cipher = memoryview(bytearray(_CHUNK))

    @property
    def certificate(self) -> bytes:
        """The certificate that the other end has proved to own, in DER; empty before it has."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def handshake(self) -> None:
        """Shake hands. ssl.SSLError (also about the certificate), OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive_cipher():
                    raise ConnectionResetError("it hung up") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert that tells the other end why
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._stream.send_all([memoryview(self._outgoing.read())])

    async def _receive_cipher(self) -> int:
        count = await self._stream.receive_into(self._cipher)
        self._incoming.write(self._cipher[:count])
        return count

    async def send_all(self, pieces: list[memoryview]) -> None:
        """Encrypt and send, in one record if it is short."""
        self._tls.write(b"".join(pieces))
        await self._flush()

    async def receive_into(self, view: memoryview) -> int:
        """Decrypt one record into `view`, or as much as fits; what comes behind it is not looked at."""
        while True:
            try:
                return int(self._tls.read(len(view), view))
            except ssl.SSLWantReadError:
                if not await self._receive_cipher():
                    return 0
            except ssl.SSLZeroReturnError:
                return 0

    def sealed(self, own: bytes, theirs: bytes) -> SealedStream:
        """The stream that goes on in records under keys from what both ends have contributed over this one.

        The other end may have begun with that. This end says nothing over TLS any more.
        """
        here, there = Contribution(own, self._own), Contribution(theirs, self.certificate)
        to_server, to_client = keys_of(there, here) if self._server else keys_of(here, there)
        sends, receives = (to_client, to_server) if self._server else (to_server, to_client)
        early = self._incoming.read()
        return SealedStream(self._stream, sends=Direction(sends), receives=Direction(receives), early=early)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()


class _Refused(Exception):  # noqa: N818  # a reason on its way to becoming a TransportError
    """This end does not accept the other."""


async def _accept(link: StreamLink, contribution: bytes) -> None:
    """Tell the other end that it is accepted, and what this one contributes to the keys of the link."""
    await link.send(pack_message(contribution))


async def _refuse(link: StreamLink, why: str) -> None:
    """Tell the other end why it is not accepted."""
    await link.send(pack_message(why[:_REASON_LENGTH]))


async def _accepted(link: StreamLink) -> bytes:
    """Hear from the other end that this one is accepted, and what it contributes. Raises TransportError."""
    header, _ = await link.receive_header()
    told = unpack_message(header, peer=link.peer)
    if isinstance(told, bytes) and len(told) == CONTRIBUTION_BYTES:
        return told
    if isinstance(told, str):
        raise TransportError(f"{link.peer} refused this end: {told[:_REASON_LENGTH]!r}.")
    raise TransportError(
        f"{link.peer} says nothing that keys could be made from; install the same release of Tercet at both "
        "ends."
    )


async def _secure(
    stream: TlsStream, *, server: bool, where: str, judge: Callable[[bytes | None], str], limits: FrameLimits
) -> StreamLink:
    """Shake hands, judge and be judged; return the link under its pinned name.

    `judge` returns the name that belongs to a certificate, or raises `_Refused`. The end that listens speaks
    first.
    """
    try:
        await stream.handshake()
    except ssl.SSLError as error:
        raise TransportError(f"No TLS handshake with {where}: {_explain(error)}.") from error
    except OSError as error:
        raise TransportError(
            f"No TLS handshake with {where}: the connection was closed ({error.strerror or error}); look at "
            "the log of the other end, and check that it uses TLS."
        ) from error
    link = StreamLink(stream, peer=where, limits=_GREETING_LIMITS)
    own, theirs = secrets.token_bytes(CONTRIBUTION_BYTES), b""
    try:
        if not server:
            theirs = await _accepted(link)
        link.certificate = stream.certificate
        link.peer = judge(stream.certificate)
        await _accept(link, own)
        if server:
            theirs = await _accepted(link)
    except _Refused as error:
        with contextlib.suppress(TransportError):
            await _refuse(link, str(error))
        raise TransportError(f"The TLS link with {where} was refused: {error}.") from None
    except TransportError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            why = _explain(cause)
        elif isinstance(error, PeerLost):
            why = "it hung up; look at its log for the reason"
        else:
            raise
        raise TransportError(f"No TLS handshake with {where}: {why}.") from error
    link.end_greeting(stream.sealed(own, theirs), limits)
    return link


class TlsListener(Listener):
    """Where TLS links arrive, already under their pinned names."""

    def __init__(self, transport: TlsTransport, listener: SocketListener) -> None:
        self._transport = transport
        self._listener = listener
        self._scope = trio.CancelScope()
        self._admission = Admission(transport.strangers)
        self._told = TokenBucket(TOLD_A_SECOND, TOLD_AT_ONCE)
        self._waiting = 0
        # Unbuffered: a link that nobody accepts waits, and only so many may.
        self._ready, self._links = trio.open_memory_channel[StreamLink](0)

    @property
    def address(self) -> str:
        """The "host:port" that is listened at."""
        return self._listener.address

    async def serve(self) -> None:
        """Shake hands with whoever comes, many at a time; runs in the nursery that `listen` was given."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    while True:
                        socket, where = await self._listener.accept()
                        if self._admission.allows(address_of(where), trio.current_time()):
                            nursery.start_soon(self._greet, socket, where)
                        else:
                            socket.close()
                            self._refused(f"client at {where} connects too often; it is turned away for now")
        finally:
            self._listener.close()
            self._ready.close()

    async def _greet(self, socket: trio.socket.SocketType, where: str) -> None:
        scope = trio.CancelScope()
        handshake = self._admission.begin(address_of(where), scope.cancel)
        link = None
        try:
            with scope:
                link = await self._transport.answer(SocketStream(socket), f"client at {where}")
        except TransportError as error:
            self._refused(str(error))
            return
        finally:
            self._admission.end(handshake)
        if link is None:
            self._refused(f"client at {where} made room for others: too many shake hands at a time")
        else:
            await self._hand_over(link)

    def _refused(self, why: str) -> None:
        if self._told.has(trio.current_time()):  # strangers must not fill the log either
            logger.warning("A connection to %s failed: %s", self.address, why)
        self._transport.on_refusal(why)

    async def _hand_over(self, link: StreamLink) -> None:
        self._waiting += 1
        try:
            if self._waiting > MOST_WAITING:
                raise trio.BrokenResourceError
            await self._ready.send(link)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await link.aclose()
            if not isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                raise
        finally:
            self._waiting -= 1

    async def accept(self) -> StreamLink:
        """Wait for the next link; see `Listener.accept`."""
        try:
            return await self._links.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("the listener has been closed") from None

    async def aclose(self) -> None:
        """Stop listening and give up the handshakes under way."""
        self._scope.cancel()
        self._listener.close()
        self._links.close()
        await trio.lowlevel.checkpoint()


class TlsTransport(Transport):
    """TLS 1.3 between the owners of pinned certificates.

    `identity` is what this end shows; `pins` maps the name of each possible peer to its certificate (PEM). A
    handshake may take `handshake_seconds`; `strangers` is how many a listener runs at a time.

    TLS makes the keys; what follows is in records under these (see `records`).
    """

    name: str = "tls"
    authenticated: ClassVar[bool] = True

    @classmethod
    def for_party(cls, identity: Identity | None, pins: Mapping[str, str]) -> Self:
        """The transport of one party. Raises TransportError without an identity."""
        if identity is None:
            raise TransportError("TLS needs an identity: a certificate and its key; see `make_identity`.")
        return cls(identity, pins)

    def __init__(
        self,
        identity: Identity,
        pins: Mapping[str, str],
        *,
        handshake_seconds: float = 5.0,
        strangers: Limits = DEFAULT_ADMISSION,
        limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        if not 0 < handshake_seconds < math.inf:
            raise TransportError(
                f"A handshake time-out of {handshake_seconds} seconds makes no sense; try 5."
            )
        self.strangers = strangers
        self.on_refusal: Callable[[str], None] = lambda _: None
        """Told of every handshake at a listener that failed, and why."""
        self._handshake_seconds = handshake_seconds
        self._limits = limits
        self.pin(identity, pins)

    def pin(self, identity: Identity, pins: Mapping[str, str]) -> None:
        """Show this identity and trust these pins from the next handshake on. Raises TransportError."""
        read = Pins.read(pins)
        contexts = [make_context(identity, read, server=server) for server in (False, True)]
        self._certificate = identity.certificate
        self._identity, self._pins = identity, read
        self._client_context, self._server_context = contexts

    def trusts(self, link: Link) -> bool:
        """Whether the certificate of the other end is pinned under its name now; see `Transport.trusts`."""
        return isinstance(link, StreamLink) and self._pins.name_of(link.certificate) == link.peer

    async def connect(self, address: str, *, peer: str) -> StreamLink:
        """Connect to "host:port", where the owner of the certificate pinned for `peer` must answer."""
        if peer not in self._pins.names.values():
            raise TransportError(f"No certificate is pinned for {peer}; get it from {peer} and pin it.")

        def judge(certificate: bytes | None) -> str:
            name = self._pins.name_of(certificate)
            if name is None:
                raise _Refused(f"the certificate of {peer} is not pinned at {self._identity.name}")
            if name != peer:
                raise _Refused(
                    f"{self._identity.name} expected {peer} at {address}, but {name} answered; correct the "
                    "address"
                )
            return name

        socket = SocketStream(await open_socket(address, peer=peer))
        stream = TlsStream(socket, self._client_context, own=self._certificate, server=False)
        return await self._secured(stream, server=False, where=f"{peer} at {address}", judge=judge)

    async def answer(self, stream: ByteStream, where: str) -> StreamLink:
        """Shake hands with a client that has connected from `where`; called by the listener."""

        def judge(certificate: bytes | None) -> str:
            name = self._pins.name_of(certificate)
            if name is None:
                raise _Refused(f"the client's certificate is not pinned at {self._identity.name}")
            return name

        tls = TlsStream(stream, self._server_context, own=self._certificate, server=True)
        return await self._secured(tls, server=True, where=where, judge=judge)

    async def _secured(
        self, stream: TlsStream, *, server: bool, where: str, judge: Callable[[bytes | None], str]
    ) -> StreamLink:
        """Make the link in time, or close the stream."""
        seconds = self._handshake_seconds
        link = None
        try:
            with trio.move_on_after(seconds):
                link = await _secure(stream, server=server, where=where, judge=judge, limits=self._limits)
        finally:
            if link is None:
                with trio.CancelScope(shield=True):
                    await stream.aclose()
        if link is None:
            raise TransportError(
                f"No TLS handshake with {where} within {seconds:g} seconds; check that it is a Tercet node, "
                "that it uses TLS and that it is not overloaded."
            )
        return link

    async def listen(self, address: str, *, nursery: trio.Nursery) -> TlsListener:
        """Listen at "host:port"; handshakes run side by side in `nursery`."""
        listener = TlsListener(self, SocketListener(await open_listening_socket(address)))
        nursery.start_soon(listener.serve, name=f"tercet handshakes at {listener.address}")
        return listener
