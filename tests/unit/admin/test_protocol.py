"""zerofs.admin.control.protocol: the codec, and that nothing but ControlError comes out of any bytes."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.admin.control import protocol
from zerofs.admin.control.protocol import ControlError, RemoteError, Request

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(), values, max_size=5)


@given(st.text(), objects)
def test_requests_round_trip(name, arguments):
    line = protocol.encode_request(Request(name=name, arguments=arguments))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert protocol.decode_request(line) == Request(name=name, arguments=arguments)


@given(objects)
def test_results_round_trip(result):
    assert protocol.decode_response(protocol.encode_result(result)) == result


@given(st.text(), st.integers(1, 255))
def test_errors_round_trip(message, code):
    with pytest.raises(RemoteError) as caught:
        protocol.decode_response(protocol.encode_error(message, code))
    assert (str(caught.value), caught.value.exit_code) == (message, code)


@given(st.binary())
def test_any_bytes_give_a_message_or_a_control_error(data):
    for decode in (protocol.decode_request, protocol.decode_response):
        with contextlib.suppress(ControlError, RemoteError):
            decode(data)


@given(values)
def test_any_json_gives_a_message_or_a_control_error(value):
    for fields in (
        value,
        {"zerofs": 1, "request": value},
        {"zerofs": 1, "error": value},
        {"zerofs": 1, "result": value},
    ):
        for decode in (protocol.decode_request, protocol.decode_response):
            with contextlib.suppress(ControlError, RemoteError):
                decode(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "another version"),
        (b'{"zerofs": 2, "request": "status"}', "another version"),
        (b'{"zerofs": 1}', "not a request"),
        (b'{"zerofs": 1, "request": 1}', "not a request"),
        (b'{"zerofs": 1, "request": "status", "arguments": []}', "not a request"),
        (b" " * (protocol.REQUEST_LIMIT_BYTES + 1), "more than"),
    ],
)
def test_malformed_requests(line, message):
    with pytest.raises(ControlError, match=message):
        protocol.decode_request(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"zerofs": 1}',
        b'{"zerofs": 1, "result": 1}',
        b'{"zerofs": 1, "error": {}}',
        b'{"zerofs": 1, "error": {"message": "x", "exit_code": 0}}',
        b'{"zerofs": 1, "error": {"message": "x", "exit_code": 256}}',
    ],
)
def test_malformed_responses(line):
    with pytest.raises(ControlError):
        protocol.decode_response(line)


def test_unknown_fields_are_ignored():
    assert protocol.decode_request(b'{"zerofs": 1, "request": "status", "later": 1}') == Request(name="status")


def test_a_result_has_a_limit():
    with pytest.raises(ControlError, match="too long"):
        protocol.encode_result({"x": "x" * protocol.RESPONSE_LIMIT_BYTES})


def test_a_result_must_be_json():
    for value in (b"bytes", float("nan"), object()):
        with pytest.raises(ControlError, match="JSON"):
            protocol.encode_result({"x": value})
