"""Which sites' pages may send requests to the gateway.

A browser lets a page of any site send requests to servers on the user's machine. It names that site in the Origin
header; or, if the site's name was made to resolve to this machine, in the Host header.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

import grpc
from aiohttp import hdrs, web

from tf_fast_rcnn.serving.status import ServingError

_ANY = "*"
_PORTS = {"http": 80, "https": 443}
_OTHER_PAGE = {"Access-Control-Allow-Methods": "POST, GET", "Access-Control-Allow-Headers": "Content-Type"}


class Sites:
    """The names of a server, and the sites whose pages may use it.

    Args:
        host: the address that the server listens on. Its own names are this address and, if it is one of the loopback
            interface, localhost and the other loopback addresses; if it stands for all interfaces, every IP address,
            localhost and the machine's name.
        hosts: further names of the server, such as that of a proxy; "*" for any.
        origins: further sites whose pages may send requests and read the responses, such as "http://localhost:3000";
            "*" for any.

    Example:
        >>> Sites("127.0.0.1").is_own("localhost:8502"), Sites("127.0.0.1").is_own("example.com")
        (True, False)
    """

    def __init__(self, host: str = "127.0.0.1", hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._host = _address(host)
        self._names = {name.lower() for name in (host, *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        if self._host is not None and self._host.is_unspecified:
            self._names |= {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
        elif self._is_loopback():
            self._names.add("localhost")

    def _is_loopback(self):
        return self._host.is_loopback if self._host is not None else "localhost" in self._names

    def is_own(self, host: str) -> bool:
        """Whether a Host header, "NAME" or "NAME:PORT", names this server."""
        name = (_host_name(host) or "").rstrip(".")
        if _ANY in self._names or name in self._names:
            return True
        address = _address(name)
        if address is None:
            return False
        if self._host is not None and self._host.is_unspecified:
            return True
        return address.is_loopback if self._is_loopback() else address == self._host

    def allows(self, origin: str, host: str) -> bool:
        """Whether pages of an Origin may use the server, which is addressed as the Host header says."""
        if self.is_other(origin):
            return True
        scheme = origin.partition("://")[0].lower()  # "null" for pages without a site
        page = _host_and_port(origin)
        return scheme in _PORTS and page[0] is not None and page == _host_and_port(f"{scheme}://{host}")

    def is_other(self, origin: str) -> bool:
        """Whether an Origin is one of the further sites."""
        return _ANY in self._origins or origin.lower() in self._origins

    @web.middleware
    async def check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Middleware that refuses requests of other sites (403), and tells browsers which ones are allowed."""
        host, origin = request.headers.get(hdrs.HOST), request.headers.get(hdrs.ORIGIN)
        if host is not None and not self.is_own(host):
            raise ServingError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"Host {host}: found a name that is not this server's; expected {', '.join(sorted(self._names))}; "
                f"start serve with --allow-host {_host_name(host) or 'NAME'}",
            )
        if origin is not None and not self.allows(origin, host or ""):
            raise ServingError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"Origin {origin}: found a page of another site; expected one of this server; start serve with "
                f"--allow-origin {origin}",
            )
        is_preflight = request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        return web.Response() if is_preflight else await handler(request)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Signal handler: pages of further sites may read the response."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.is_other(origin):
            response.headers.update({"Access-Control-Allow-Origin": origin, "Vary": "Origin"} | _OTHER_PAGE)


def _address(host):
    """The IP address that a text is, or None."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _host_and_port(url):
    """`(host, port)` of a URL, with the port that its scheme stands for."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None


def _host_name(host):
    return _host_and_port(f"http://{host}")[0]
