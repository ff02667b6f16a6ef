"""JSON values as TensorFlow Serving reads them, with RapidJSON, and errors in its words."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tf_fast_rcnn.serving.status import ServingError, invalid_argument

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile(rf"{_BYTE_ORDER_MARK}?[ \t\n\r]*")
_STRING_OR_INF = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|Inf(?!i)', re.DOTALL)
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
# Escapes in strings: surrogate pairs, halves of such pairs (the group), and others.
_ESCAPES = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)", re.DOTALL)
_UNFINISHED_NUMBER = re.compile(r"\.|[eE][+-]?")
_LITERALS = ("null", "true", "false", "NaN", "Infinity")
# Python's message -> RapidJSON's.
_PARSE_ERRORS = {
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character at": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_MISSING_COMMA = {
    "{": "Missing a comma or '}' after an object member.",
    "[": "Missing a comma or ']' after an array element.",
}
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_BLANKS = str.maketrans("", "", " \t\n\r\v\f")
_TYPES = ((dict, "Object"), (list, "Array"), (str, "String"), ((int, float), "Number"), (type(None), "Null"))
_LONGEST_VALUE = 400  # characters of a JSON value in an error


class Repeated(dict):
    """A JSON object in which a name occurs more than once; the first value counts."""


def _first_of_each(pairs):
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    return Repeated(dict(reversed(pairs)))


def _double(text):
    """A decimal number; one beyond the range of a double is an error, and not infinite as in Python."""
    value = float(text)
    if math.isinf(value):
        raise number_too_big()
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_first_of_each, parse_float=_double, parse_constant=_CONSTANTS.__getitem__
)


def read_body(body: bytes) -> dict[str, Any]:
    """Parses the body of a request as a JSON object, by the rules of TensorFlow Serving.

    The encoding is UTF-8; bytes that are not UTF-8 are kept as they are. "Inf" is also a number, the first of several
    values of a name counts, and text after the object is ignored. (Versions of TensorFlow Serving differ in this: those
    of 2022 refuse such text.)

    Raises:
        ServingError: if it is not a JSON object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape")
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        message, position = _parse_error(error)
        offset = len(error.doc[:position].encode("utf-8", "surrogateescape"))
        raise invalid_argument(f"JSON Parse error: {message} at offset: {offset}") from None
    except ValueError:  # Python limits the number of digits of integers, far above the range of a double.
        raise number_too_big() from None
    except RecursionError as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise format_error(value, "Is not object")
    return value


def _parse(text):
    start = _SPACE.match(text).end()
    try:
        value, end = _decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if not text.startswith(("Inf", "-Inf"), error.pos):
            raise
        text = _STRING_OR_INF.sub(lambda match: match[0] if match[0][0] == '"' else "Infinity", text)
        value, end = _decoder.raw_decode(text, start)
    if "\\u" in text:
        _check_surrogates(text, start, end)
    return value


def _check_surrogates(text, start, end):
    """Halves of surrogate pairs, which Python's parser lets pass, are errors anywhere in the JSON."""
    for match in _ESCAPES.finditer(text, start, end):
        if match[1]:
            raise json.JSONDecodeError("The surrogate pair in string is invalid.", text, match.start())


def _parse_error(error):
    """`(message, position)` of RapidJSON for an error of Python's parser."""
    text, position = error.doc, error.pos
    if _SPACE.fullmatch(text):
        return "The document is empty.", len(text)
    if error.msg == "Unterminated string starting at":
        return "Missing a closing quotation mark in string.", len(text)
    if error.msg == "Expecting value":
        return "Invalid value.", position + _length_of_literal(text[position : position + len("-Infinity")])
    if error.msg != "Expecting ',' delimiter":
        return _PARSE_ERRORS.get(error.msg, error.msg), position - error.msg.startswith("Invalid \\uXXXX")
    if match := _UNFINISHED_NUMBER.match(text, position):
        return f"Miss {'fraction part' if match[0] == '.' else 'exponent'} in number.", match.end()
    return _MISSING_COMMA[_container(text[:position])], position


def _length_of_literal(text):
    """How many characters of a text are the beginning of a value."""
    signs = text.startswith("-")
    equal = ([one == other for one, other in zip(text[signs:], literal, strict=False)] for literal in _LITERALS)
    return signs + max([*each, False].index(False) for each in equal)


def _container(text):
    """The bracket that is open at the end of a text."""
    opened = []
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            opened.append(match[0])
        elif match[0] in "]}":
            opened.pop()
    return opened[-1]


def signature_name(value: Mapping[str, Any]) -> str:
    """The signature that a request names; "" if none.

    Raises:
        ServingError: if it is not a string.
    """
    name = value.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(value, "not formatted correctly. 'signature_name' key must be a string value.")
    return name.encode("utf-8", "replace").decode()


def check_examples(value: Mapping[str, Any]) -> None:
    """Checks the examples of a :classify or :regress request.

    Raises:
        ServingError: if they are not what TensorFlow Serving takes.
    """
    if "context" in value:
        _check_example(value["context"])
    if "examples" not in value:
        raise format_error(value, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(value["examples"], list):
        raise format_error(value, "Expecting 'examples' value to be an list/array")
    if not value["examples"]:
        raise format_error(value, "'examples' value is an empty array")
    for example in value["examples"]:
        _check_example(example)


def _check_example(value):
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")


def type_name(value: Any) -> str:
    """How TensorFlow Serving calls the type of a JSON value."""
    if isinstance(value, bool):
        return str(value)
    return next(name for kind, name in _TYPES if isinstance(value, kind))


def is_base64(value: Any) -> bool:
    """Whether a JSON value is an object that represents bytes, {"b64": TEXT}."""
    if not isinstance(value, dict) or isinstance(value, Repeated):
        return False
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def decode_base64(text: str) -> bytes:
    """Decodes base64 like TensorFlow Serving: blanks and line breaks are skipped, and padding may be left out.

    Raises:
        ServingError: if it is not base64.

    Example:
        >>> decode_base64("aGVs\\nbG8")
        b'hello'
    """
    match = _BASE64.fullmatch(text.translate(_BLANKS))
    if match is None or len(match[1]) % 4 == 1 or len(match[2]) not in (0, -len(match[1]) % 4):
        raise invalid_argument("Unable to base64 decode")
    return base64.b64decode(match[1] + "=" * (-len(match[1]) % 4))


def number_too_big() -> ServingError:
    """The error of a number that no double can hold."""
    return invalid_argument("JSON Parse error: Number too big to be stored in double.")


def format_error(value: Any, message: str) -> ServingError:
    """The error of a JSON value."""
    return invalid_argument(f"JSON Value: {to_text(value)} {message}")


def to_text(value: Any) -> str:
    """The beginning of a JSON value as text, indented like in TensorFlow Serving."""
    text = ""
    try:
        for part in json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value):
            text += part[: _LONGEST_VALUE + 1]
            if len(text) > _LONGEST_VALUE:
                return f"{text[:_LONGEST_VALUE]}..."
    except RecursionError:
        return f"{text[:_LONGEST_VALUE]}..."
    return text
