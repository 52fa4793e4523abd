"""Requests and responses of the control socket: pure codec, no socket.

    request     {"zerofs": 1, "request": NAME, "arguments": {…}} LF
    response    {"zerofs": 1, "result": {…}} LF
            or  {"zerofs": 1, "error": {"message": TEXT, "exit_code": N}} LF

One JSON object a line, UTF-8, requests up to REQUEST_LIMIT_BYTES and responses up to RESPONSE_LIMIT_BYTES including the
newline; answers come in the order of the requests. "zerofs" is the version of the conversation; unknown fields are
ignored, so a field may be added without a new version.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from zerofs.errors import ZerofsError

VERSION = 1
REQUEST_LIMIT_BYTES = 16 * 1024
RESPONSE_LIMIT_BYTES = 1024 * 1024

STATUS = "status"
"""What the mount is doing. Result: the fields of `zerofs status --json`."""

FLUSH = "flush"
"""Answers when everything written so far is in the store. `kernel: false` leaves out what the kernel holds back."""

STOP = "stop"
"""As the first SIGTERM: unmount, store everything, end. Answers as `wait` does."""

WAIT = "wait"
"""Answers when the mount is gone and its volume closed: a result if everything is stored, else the error."""

CHECKPOINT = "checkpoint"
"""`action` is create, delete or list, `name` a checkpoint. Result: {"checkpoints": […]}, the one concerned first."""

COLLECT = "collect"
"""One pass of the collector, with `dry_run` without deleting. Result: the fields of `zerofs collect --json`."""

CLEAR_DATA_LOST = "clear-data-lost"
"""The operator knows that a write was lost. Result: {"was_lost": whether one was}."""


class ControlError(ZerofsError):
    """A message that breaks the rules of the conversation."""


class RemoteError(ZerofsError):
    """The other side's error, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(slots=True, frozen=True, kw_only=True)
class Request:
    """One request: a name and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


def encode_request(request: Request) -> bytes:
    """The request as one line."""
    return _line({"request": request.name, "arguments": request.arguments})


def decode_request(line: bytes) -> Request:
    """The request in `line`, with or without its newline. Raises ControlError."""
    message = _object(line, REQUEST_LIMIT_BYTES)
    name, arguments = message.get("request"), message.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ControlError("not a request: 'request' must be text and 'arguments' an object")
    return Request(name=name, arguments=arguments)


def encode_result(result: dict[str, Any]) -> bytes:
    """A successful response as one line. Raises ControlError when it is not JSON, or too long."""
    line = _line({"result": result})
    if len(line) > RESPONSE_LIMIT_BYTES:
        raise ControlError("the response is too long")
    return line


def encode_error(message: str, exit_code: int) -> bytes:
    """A failed response as one line."""
    return _line({"error": {"message": message[:4096], "exit_code": exit_code}})


def decode_response(line: bytes) -> dict[str, Any]:
    """The result in `line`.

    Raises:
        RemoteError: the response is an error.
        ControlError: it is not a response.
    """
    message = _object(line, RESPONSE_LIMIT_BYTES)
    error, result = message.get("error"), message.get("result")
    if isinstance(error, dict):
        text, code = error.get("message"), error.get("exit_code")
        if not isinstance(text, str) or not isinstance(code, int) or not 0 < code < 256:
            raise ControlError("not a response: an error without message and exit code")
        raise RemoteError(text, code)
    if not isinstance(result, dict):
        raise ControlError("not a response: neither a result nor an error")
    return result


def _line(message: dict[str, Any]) -> bytes:
    try:
        return json.dumps({"zerofs": VERSION, **message}, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ControlError("the message cannot be written as JSON") from error


def _object(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        raise ControlError(f"a line of more than {limit} bytes")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("a line that is not JSON") from None
    if not isinstance(message, dict):
        raise ControlError("a line that is not a JSON object")
    if message.get("zerofs") != VERSION:
        raise ControlError(f"another version of the conversation; this side speaks version {VERSION}")
    return message
