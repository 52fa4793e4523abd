import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import ObjectStoreError, RangeError
from zerofs.objectstore.api import (
    body_pieces,
    body_prefix,
    body_size,
    check_name,
    check_prefix,
    is_name,
    join_body,
    range_size,
)

pieces = st.lists(
    st.binary(max_size=20).flatmap(lambda b: st.sampled_from([b, bytearray(b), memoryview(b)])), max_size=9
)
bodies = st.one_of(st.binary(max_size=99), st.binary(max_size=99).map(memoryview), pieces)


def plain(body):
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b"".join(body)


@given(body=bodies, size=st.integers(0, 64))
def test_all_views_of_a_body_agree(body, size):
    expected = plain(body)
    assert body_size(body) == len(expected)
    assert join_body(body) == expected
    assert type(join_body(body)) is bytes
    assert b"".join(body_pieces(body)) == expected
    assert body_prefix(body, size) == expected[:size]


def test_joining_bytes_copies_nothing():
    data = b"a body"
    assert join_body(data) is data
    assert join_body([b"", data]) is data


@given(size=st.integers(0, 40), start=st.integers(-2, 45), length=st.none() | st.integers(-2, 45))
def test_a_range_is_inside_or_refused(size, start, length):
    data = bytes(range(size))
    wanted = range(start, size if length is None else start + length)
    inside = start >= 0 and (
        all(index in range(size) for index in wanted) and (len(wanted) > 0 or (start, length) == (0, None))
    )
    if inside:
        assert range_size("name", size, start, length) == len(data[start : wanted.stop])
    else:
        with pytest.raises(RangeError):
            range_size("name", size, start, length)


@given(st.text(alphabet="ab./-_0~\n é", max_size=12))
def test_names_never_escape(text):
    if is_name(text):
        assert not text.startswith("/")
        assert not {"", ".", ".."} & set(text.split("/"))
        assert text.isascii()
        assert text.isprintable()
        assert check_name(text) == text
        for end in range(len(text) + 1):
            assert check_prefix(text[:end]) == text[:end]
    else:
        with pytest.raises(ObjectStoreError):
            check_name(text)


def test_messages_do_not_repeat_endless_names():
    with pytest.raises(ObjectStoreError) as caught:
        check_name("/" * 100_000)
    assert len(str(caught.value)) < 1000
