"""Videos by address, from listed servers only, whatever an address, a name or a response says.

An origin (scheme, host and port) must be on the list word for word. Its name is resolved once,
every address that it has must be public, and the connection is made to one of these addresses: a
name that resolves to another machine a moment later gains nothing. Redirects are not followed.
Credentials in an address, other schemes and proxies are not supported.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import IO
from urllib.parse import SplitResult, urlsplit

from octvideo.errors import ConfigError
from octvideo.serve.limits import Limits, RefusedError, storing

Origin = tuple[str, str, int]
_CHUNK = 2**16
_PORTS = {"http": 80, "https": 443}


class Fetcher:
    """origins: as "https://media.example.org" or "http://host:8080". private: allow origins whose
    addresses are not public."""

    def __init__(self, origins: Iterable[str], limits: Limits, *, private: bool = False) -> None:
        self._origins = {_listed(origin) for origin in origins}
        self._limits, self._private = limits, private

    def fetch(self, address: str, file: IO[bytes]) -> None:
        """Write the response to `file`. Raises RefusedError, also for one that ends before its
        length."""
        parts, origin = self._allowed(address)
        deadline = time.monotonic() + self._limits.receive_seconds
        connection = _connected(origin, self._resolved(origin), deadline)
        line = connection.sock  # http.client forgets it when the answer has no length
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"Accept-Encoding": "identity"})
            with connection.getresponse() as answer:
                if answer.status != 200:
                    what = "redirects are not followed" if 300 <= answer.status < 400 else "not 200"
                    raise RefusedError(
                        422, f"the address answered with status {answer.status}; {what}"
                    )
                self._copy(answer, line, file, deadline)
        except TimeoutError:
            raise self._late() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(
                422, f"the address cannot be read ({type(error).__name__})"
            ) from error
        finally:
            connection.close()

    def _late(self) -> RefusedError:
        return RefusedError(422, f"the address took over {self._limits.receive_seconds:g} s")

    def _allowed(self, address: str) -> tuple[SplitResult, Origin]:
        try:
            parts = urlsplit(address)
            origin = _origin(parts)
        except ValueError:
            raise RefusedError(400, "the address is no address of HTTP") from None
        plain = address.isascii() and address.isprintable() and " " not in address
        if not plain or parts.username is not None or parts.password is not None:
            raise RefusedError(400, "an address is printable ASCII, without a user's name")
        if origin not in self._origins:
            raise RefusedError(403, "this server fetches nothing from there; POST the video itself")
        return parts, origin

    def _resolved(self, origin: Origin) -> str:
        try:
            found = socket.getaddrinfo(origin[1], origin[2], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise RefusedError(422, "the name in the address is not known") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self._private and not all(is_public(address) for address in addresses):
            raise RefusedError(403, "the name in the address means a machine that is not public")
        return addresses[0]

    def _copy(
        self,
        answer: http.client.HTTPResponse,
        line: socket.socket,
        file: IO[bytes],
        deadline: float,
    ) -> None:
        size = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            line.settimeout(left)
            # One read of the socket: a server that sends a byte a second is met by the deadline.
            data = answer.read1(_CHUNK)
            if not data:
                break
            size += len(data)
            if size > self._limits.max_bytes:
                raise RefusedError(413, f"the video is larger than {self._limits.max_bytes} bytes")
            with storing():
                file.write(data)
        if answer.length:  # http.client takes an early end for the end
            whole = size + answer.length
            raise RefusedError(422, f"the address ended after {size} of {whole} bytes")


def is_public(address: str) -> bool:
    """Whether an IP address is public, also behind the forms of IPv6 that contain one of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            return is_public(str(inner))
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


def _listed(origin: str) -> Origin:
    try:
        parts = urlsplit(origin)
        if parts.path in ("", "/") and not parts.query and parts.username is None:
            return _origin(parts)
    except ValueError:
        pass
    raise ConfigError(f"{origin!r}: give an origin, as https://media.example.org or http://host:80")


def _origin(parts: SplitResult) -> Origin:
    """Raises ValueError for an address that is not of HTTP."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("no address of HTTP")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _connected(origin: Origin, ip: str, deadline: float) -> http.client.HTTPConnection:
    """To this address, by whatever name the origin has it."""
    scheme, host, port = origin
    left = max(deadline - time.monotonic(), 0.1)
    connection = http.client.HTTPConnection(host, port, timeout=left)
    connection.default_port = _PORTS[scheme]  # left out of the Host header, as servers expect
    try:
        plain = socket.create_connection((ip, port), timeout=left)
        connection.sock = plain
        if scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        connection.close()
        raise RefusedError(
            422, f"the address cannot be reached ({type(error).__name__})"
        ) from error
    return connection
