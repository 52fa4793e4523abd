"""zerofs.config.expand: every form of a reference, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.config.expand import expand
from zerofs.errors import ConfigError

ENVIRON = {"NAME": "value", "EMPTY": "", "A_1": "one", "SNEAKY": "$NAME ${NAME} $$"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$NAME", "value"),
        ("${NAME}", "value"),
        ("a${NAME}b$NAME/c", "avalueb" + "value/c"),
        ("$NAME-x", "value-x"),
        ("$A_1.", "one."),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${MISSING:-other text}", "other text"),
        ("${MISSING:-}", ""),
        ("${NAME:-other}", "value"),
        ("$$", "$"),
        ("$$NAME", "$NAME"),
        ("$$$NAME", "$value"),
        ("100$$", "100$"),
        ("$SNEAKY", "$NAME ${NAME} $$"),
    ],
)
def test_references(text, expected):
    assert expand(text, ENVIRON) == expected


@pytest.mark.parametrize("text", ["$MISSING", "${MISSING}", "a$NAME$MISSING"])
def test_unset_variable_is_named(text):
    with pytest.raises(ConfigError, match="MISSING is not set"):
        expand(text, ENVIRON)


@pytest.mark.parametrize("text", ["$", "pa$", "$1", "$ NAME", "${", "${NAME", "${}", "${1A}", "${NAME-x}", "$-"])
def test_a_dollar_sign_that_begins_nothing_is_refused(text):
    with pytest.raises(ConfigError, match=r"\$\$"):
        expand(text, ENVIRON)


def test_messages_never_show_the_text_or_a_value():
    with pytest.raises(ConfigError) as caught:
        expand("hunter2 $NAME $MISSING", ENVIRON)
    assert "hunter2" not in str(caught.value)
    assert "value" not in str(caught.value)


@given(st.text())
def test_any_text_survives_doubled_dollars(text):
    assert expand(text.replace("$", "$$"), {}) == text
