"""What Prometheus reads."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import prometheus_client

from tf_fast_rcnn.serving.status import to_serving_error

if TYPE_CHECKING:
    from tf_fast_rcnn.serving.limits import Limits

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of one server, with the process's memory and processor time.

    Args:
        limits: `Limits`, whose numbers are shown.
    """

    def __init__(self, limits: Limits) -> None:
        self._registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        labels = ["protocol", "method", "status"]
        self._requests = prometheus_client.Counter(
            "tf_fast_rcnn_requests", "Requests answered or refused", labels, registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            "tf_fast_rcnn_request_seconds",
            "Their time, waiting included",
            labels[:2],
            buckets=_BUCKETS,
            registry=registry,
        )
        for name, what in (("running", "Requests that run"), ("waiting", "Requests that wait")):
            gauge = prometheus_client.Gauge(f"tf_fast_rcnn_requests_{name}", what, registry=registry)
            gauge.set_function(functools.partial(getattr, limits, name))

    @contextlib.contextmanager
    def observed(self, protocol: str, method: str) -> Iterator[None]:
        """Counts a request by its status and time; errors pass."""
        started, status = time.perf_counter(), "CANCELLED"
        try:
            yield
            status = "OK"
        except Exception as error:
            status = to_serving_error(error).code.name
            raise
        finally:
            self._requests.labels(protocol, method, status).inc()
            self._seconds.labels(protocol, method).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """Bytes of `CONTENT_TYPE`."""
        return prometheus_client.generate_latest(self._registry)
