"""Which sites' pages may use the gateway."""

import contextlib

import pytest
import requests
from servers import in_thread

from tf_fast_rcnn.serving.gateway import Gateway, gateway_application
from tf_fast_rcnn.serving.limits import Limits
from tf_fast_rcnn.serving.server import listening
from tf_fast_rcnn.serving.sites import Sites


@pytest.mark.parametrize(
    ("host", "more", "own", "others"),
    [
        (
            "127.0.0.1",
            (),
            ("127.0.0.1", "127.0.0.1:8502", "localhost:9", "LocalHost", "localhost.:1", "[::1]:8502", "127.0.0.9"),
            ("example.com", "example.com:8502", "localhost.example.com", "192.0.2.1", "", "a:b:c", "127.0.0.1.nip.io"),
        ),
        ("::1", (), ("[::1]", "localhost", "127.0.0.1"), ("[2001:db8::1]", "example.com")),
        ("192.0.2.7", (), ("192.0.2.7:8502",), ("localhost", "127.0.0.1", "192.0.2.8", "example.com")),
        ("0.0.0.0", (), ("192.0.2.7:8502", "localhost", "[2001:db8::1]"), ("example.com",)),
        ("cells.example.com", (), ("cells.example.com:8502",), ("localhost", "127.0.0.1", "example.com")),
        ("127.0.0.1", ("Cells.example.com",), ("cells.example.com", "localhost"), ("example.com",)),
        ("127.0.0.1", ("*",), ("example.com",), ()),
    ],
)
def test_own_names(host, more, own, others):
    sites = Sites(host, more)
    assert [name for name in own if not sites.is_own(name)] == []
    assert [name for name in others if sites.is_own(name)] == []


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://127.0.0.1:8502", "127.0.0.1:8502", True),
        ("http://localhost", "localhost:80", True),
        ("https://cells.example.com", "cells.example.com", True),
        ("https://cells.example.com:443", "cells.example.com", True),
        ("http://localhost:3000", "localhost:8502", False),
        ("http://127.0.0.1:8502", "localhost:8502", False),
        ("http://example.com", "127.0.0.1:8502", False),
        ("null", "127.0.0.1:8502", False),
        ("", "", False),
        ("http://", "", False),
        ("http://[", "[", False),
        ("file://localhost", "localhost", False),
        ("https://lab.example.com", "127.0.0.1:8502", True),
        ("https://LAB.example.com", "127.0.0.1:8502", True),
        ("http://lab.example.com", "127.0.0.1:8502", False),
    ],
)
def test_origins(origin, host, allowed):
    assert Sites(origins=["https://lab.example.com/"]).allows(origin, host) is allowed
    assert Sites(origins=["*"]).allows(origin, host)


@pytest.fixture(scope="module")
def url():
    """A gateway without a server behind it, which refuses other sites before it asks the server."""
    with in_thread(_gateway()) as port:
        yield f"http://127.0.0.1:{port}/"


@contextlib.asynccontextmanager
async def _gateway():
    limits = Limits(1, 1)
    sites = Sites("127.0.0.1", (), ["https://lab.example.com"])
    # In the event loop that runs it: a gRPC channel belongs to the loop in which it is made.
    gateway = Gateway("tiny", "127.0.0.1:9", None, limits)
    async with listening(gateway_application(gateway, limits, 1 << 20, sites), "127.0.0.1", 0, 5) as port:
        yield port
    await gateway.close()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            {"Host": "example.com"},
            "Host example.com: found a name that is not this server's; expected 127.0.0.1, local",
        ),
        ({"Origin": "http://example.com"}, "Origin http://example.com: found a page of another site"),
        ({"Origin": "null"}, "start serve with --allow-origin null"),
    ],
)
def test_pages_of_other_sites_are_refused(url, headers, found):
    for method, path in (("GET", ""), ("GET", "healthz"), ("POST", "v1/models/tiny:detect"), ("OPTIONS", "")):
        answer = requests.request(method, url + path, headers=headers, data=b"image", timeout=60)
        assert answer.status_code == 403
        assert found in answer.json()["error"]
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_pages_of_the_gateway_and_of_sites_that_were_named_are_answered(url):
    own, named = {"Origin": url.rstrip("/")}, {"Origin": "https://lab.example.com"}
    for headers in ({}, own, named):
        answer = requests.get(url, headers=headers, timeout=60)
        assert answer.status_code == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == (named["Origin"] if headers == named else None)
    asked = named | {"Access-Control-Request-Method": "POST"}
    answer = requests.options(f"{url}v1/models/tiny:detect", headers=asked, timeout=60)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Headers"]) == (200, "Content-Type")
