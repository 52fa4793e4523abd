import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import ConfigError
from zerofs.keys.password import check_password

GOOD = "correct horse"
MESSAGES = {
    "Password cannot be empty",
    "Password must be at least 8 characters long",
    "Please choose a secure password, not 'CHANGEME'",
}


def test_a_good_password():
    assert check_password(GOOD).reveal() == b"correct horse"


@pytest.mark.parametrize("text", [f"{GOOD}\n", f"{GOOD}\r\n", f"  {GOOD}\t", f"\n\n{GOOD}", f"\u00a0{GOOD}\u2003"])
def test_surrounding_whitespace_is_trimmed(text):
    assert check_password(text).matches(check_password(GOOD))


def test_inner_whitespace_stays():
    assert check_password("a b\tc\nd e f").reveal() == b"a b\tc\nd e f"


@pytest.mark.parametrize("text", ["", " ", "\n", "\r\n\t \u00a0"])
def test_empty(text):
    with pytest.raises(ConfigError, match=r"^Password cannot be empty$"):
        check_password(text)


@pytest.mark.parametrize("text", ["a", "1234567", "  1234567  ", "\u00fc" * 7, "\U0001f511" * 7])
def test_too_short(text):
    with pytest.raises(ConfigError, match=r"^Password must be at least 8 characters long$"):
        check_password(text)


@pytest.mark.parametrize("text", ["12345678", "\u00fc" * 8, "\U0001f511" * 8])
def test_eight_characters_are_enough(text):
    assert check_password(text).reveal() == text.encode()


@pytest.mark.parametrize("text", ["CHANGEME", " CHANGEME\n"])
def test_placeholder(text):
    with pytest.raises(ConfigError, match=r"^Please choose a secure password, not 'CHANGEME'$"):
        check_password(text)


def test_the_placeholder_inside_a_longer_password_is_allowed():
    assert check_password("CHANGEME-not").reveal() == b"CHANGEME-not"


def test_longest():
    assert len(check_password("x" * 4096).reveal()) == 4096
    with pytest.raises(ConfigError, match="at most 4096 bytes"):
        check_password("x" * 4097)
    with pytest.raises(ConfigError, match="at most 4096 bytes"):
        check_password("\u00fc" * 2049)


def test_no_unicode_normalisation():
    assert not check_password("pa\u0308ssword").matches(check_password("p\u00e4ssword"))


def test_bytes_that_are_not_utf_8_come_back():
    raw = b"\xff\xfe secret \x80"
    assert check_password(raw.decode("utf-8", "surrogateescape")).reveal() == raw


def test_what_cannot_be_encoded_is_refused_without_being_shown():
    text = "hush" * 2 + "\ud800"
    with pytest.raises(ConfigError, match="cannot be encoded") as caught:
        check_password(text)
    assert "hushhush" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(st.text(min_size=1, max_size=20))
def test_accepts_or_refuses_and_never_shows(text):
    trimmed = text.strip()
    if len(trimmed) >= 8 and trimmed != "CHANGEME":
        assert check_password(text).reveal().decode() == trimmed
    else:
        with pytest.raises(ConfigError) as caught:
            check_password(text)
        assert str(caught.value) in MESSAGES
