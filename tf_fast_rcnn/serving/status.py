"""How a request can fail: gRPC's status codes, and what HTTP says for each, as TensorFlow Serving does."""

from __future__ import annotations

import grpc
import tensorflow as tf

from tf_fast_rcnn.errors import InputError

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# TensorFlow Serving's table; what is missing here is 500.
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

# gRPC sends messages in headers, of which clients take 8 kB.
_LONGEST_MESSAGE = 1024


class ServingError(Exception):
    """A request that gets no answer: `code`, a `grpc.StatusCode`, and `message`."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}...TRUNCATED"

    @property
    def http_status(self) -> int:
        return HTTP_STATUS.get(self.code, 500)


def invalid_argument(message: str) -> ServingError:
    """The `ServingError` of a request that is wrong in itself."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def to_serving_error(error: BaseException) -> ServingError:
    """The `ServingError` of any exception: bad input is INVALID_ARGUMENT, TensorFlow's
    errors keep their code, others are INTERNAL."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, InputError):
        return invalid_argument(str(error))
    if isinstance(error, tf.errors.OpError):
        return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), _without_stack(error.message))
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _without_stack(message):
    """TensorFlow's message without the lines of Python that built the graph."""
    headings = ("Graph execution error", "Detected at node", "  File ")
    return " ".join(line.strip() for line in message.splitlines() if line.strip() and not line.startswith(headings))
