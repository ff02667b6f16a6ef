"""Errors of requests: gRPC status codes, and the HTTP status that TensorFlow Serving returns for each."""

from __future__ import annotations

import re

import grpc
import tensorflow as tf

from tf_fast_rcnn.errors import InputError

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# The table of TensorFlow Serving; other codes are 500.
HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

_HEADINGS = ("Graph execution error", "Detected at node", "  File ", "<stack traces unavailable>")
_OF_PYTHON = re.compile(r"\{\{function_node [^}]*\}\} ?| ?\[Op:[^]]*\]( name: \S*)?")

# gRPC sends messages in headers, which clients limit to 8 kB.
_LONGEST_MESSAGE = 1024


class ServingError(Exception):
    """A failed request, with `code`, a `grpc.StatusCode`, and `message`."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        message = message.encode("utf-8", "replace").decode()  # Requests may contain characters that are none.
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}...TRUNCATED"

    @property
    def http_status(self) -> int:
        return HTTP_STATUS.get(self.code, 500)


def invalid_argument(message: str) -> ServingError:
    """The `ServingError` for an invalid request."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def to_serving_error(error: BaseException) -> ServingError:
    """The `ServingError` for an exception: an InputError becomes INVALID_ARGUMENT, TensorFlow errors keep their code,
    and others become INTERNAL."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, InputError):
        return invalid_argument(str(error))
    if isinstance(error, tf.errors.OpError):
        return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), _without_stack(error.message))
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _without_stack(message):
    """The message of a TensorFlow error without what only calls from Python have: stack traces, names of functions."""
    lines = (_OF_PYTHON.sub("", line).strip() for line in message.splitlines() if not line.startswith(_HEADINGS))
    return " ".join(line for line in lines if line)
