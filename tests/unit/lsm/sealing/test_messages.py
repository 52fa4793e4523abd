import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.sealing.kit import KEY, make_setup
from zerofs.lsm.sealing import messages

U32 = st.integers(0, 2**32 - 1)


def test_the_setup_comes_as_it_was_sent():
    packet = messages.encode_setup(make_setup())
    assert messages.decode_setup(packet) == make_setup()
    assert len(packet) < messages.PACKET_MAX


@given(slot=U32, target=U32, count=U32)
def test_batches_and_answers_come_as_they_were_sent(slot, target, count):
    assert messages.decode_batch(messages.encode_batch(slot, target, count)) == (slot, target, count)
    assert messages.decode_sealed(messages.encode_sealed(slot)) == slot


@pytest.mark.parametrize("decode", [messages.decode_batch, messages.decode_sealed, messages.decode_setup])
@pytest.mark.parametrize("packet", [b"", b"x", bytes(3), bytes(5), bytes(51)])
def test_anything_else_is_refused(decode, packet):
    with pytest.raises(struct.error):
        decode(packet)


def test_the_key_is_in_no_repr():
    assert KEY.hex() not in repr(make_setup())
    assert repr(KEY) not in repr(make_setup())
