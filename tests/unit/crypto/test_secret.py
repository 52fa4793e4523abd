import copy
import logging
import pickle
import traceback
from dataclasses import dataclass

import pytest

from zerofs.crypto.secret import Secret

VALUE = b"correct horse battery staple"


def test_reveal_gives_the_bytes():
    assert Secret(VALUE).reveal() == VALUE
    assert Secret(bytearray(VALUE)).reveal() == VALUE


def test_later_changes_of_the_source_do_not_reach_it():
    source = bytearray(VALUE)
    secret = Secret(source)
    source[0] = 0
    assert secret.reveal() == VALUE


def test_matches_compares_contents():
    assert Secret(VALUE).matches(Secret(VALUE))
    assert not Secret(VALUE).matches(Secret(VALUE + b"!"))
    assert not Secret(VALUE).matches(Secret(b""))


def test_no_equality_and_no_hash():
    with pytest.raises(TypeError, match="matches"):
        _ = Secret(VALUE) == Secret(VALUE)
    with pytest.raises(TypeError, match="matches"):
        _ = Secret(VALUE) in [VALUE, VALUE]
    with pytest.raises(TypeError):
        hash(Secret(VALUE))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle(protocol):
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(Secret(VALUE), protocol)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda secret: secret.__getstate__()])
def test_no_copy(copier):
    with pytest.raises(TypeError, match="copied"):
        copier(Secret(VALUE))


def test_no_bytes_and_no_attributes():
    secret = Secret(VALUE)
    with pytest.raises(TypeError):
        bytes(secret)
    with pytest.raises(AttributeError):
        secret.note = 1


def test_never_written(caplog):
    @dataclass
    class Holder:
        secret: Secret

    secret = Secret(VALUE)
    logging.getLogger("zerofs.test").warning("holding %s %r", secret, Holder(secret))
    try:
        raise ValueError(secret)
    except ValueError as exc:
        text = "".join(traceback.format_exception(exc))
    written = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{Holder(secret)}", text, caplog.text]
    for line in written:
        assert "horse" not in line
        assert VALUE.hex() not in line
    assert "Secret(…)" in caplog.text


def test_wipe_forgets():
    secret = Secret(VALUE)
    buffer = secret._buffer
    secret.wipe()
    assert secret.reveal() == b""
    assert buffer == b""
