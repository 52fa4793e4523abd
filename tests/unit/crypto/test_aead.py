import random
import threading

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.crypto import aead
from zerofs.errors import CorruptionError

# draft-irtf-cfrg-xchacha-03, A.3.1
KEY = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0x40, 0x58))
AAD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
TEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
    "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
    "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
    "c0875924c1c7987947deafd8780acf49"
)


def test_draft_vector():
    assert aead.seal(KEY, NONCE, TEXT, AAD) == SEALED
    assert aead.open_(KEY, NONCE, SEALED, AAD) == TEXT


@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=24, max_size=24),
    text=st.binary(max_size=300),
    aad=st.binary(max_size=80),
)
def test_round_trip(key, nonce, text, aad):
    sealed = aead.seal(key, nonce, text, aad)
    assert type(sealed) is bytes
    assert len(sealed) == len(text) + aead.TAG_SIZE
    assert aead.open_(key, nonce, sealed, aad) == text


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview, lambda data: memoryview(b"x" + data + b"x")[1:-1]])
def test_any_bytes_like(convert):
    assert aead.seal(KEY, convert(NONCE), convert(TEXT), convert(AAD)) == SEALED
    opened = aead.open_(KEY, convert(NONCE), convert(SEALED), convert(AAD))
    assert type(opened) is bytes
    assert opened == TEXT


def test_inputs_are_not_changed():
    text, sealed = bytearray(TEXT), bytearray(SEALED)
    aead.seal(KEY, NONCE, text, AAD)
    aead.open_(KEY, NONCE, sealed, AAD)
    assert text == TEXT
    assert sealed == SEALED


def test_hchacha20_draft_vector():
    """Section 2.2.1 of the draft."""
    prefix = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert aead._hchacha20(bytes(range(32)), prefix).hex() == expected


def libsodium_seal(key, nonce, text, aad):
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(text, aad, nonce, key)


@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=24, max_size=24),
    text=st.binary(max_size=300) | st.integers(0, 70_000).map(bytes),
    aad=st.binary(max_size=80),
)
def test_libsodium_seals_the_same(key, nonce, text, aad):
    assert aead.seal(key, nonce, text, aad) == libsodium_seal(key, nonce, text, aad)


@given(seed=st.binary(min_size=24, max_size=24) | st.just(b"\xff" * 24), count=st.integers(0, 300))
def test_nonces_of_a_batch_differ_and_share_what_a_key_is_derived_from(seed, count):
    joined = aead.nonces(seed, count)
    each = [joined[start : start + aead.NONCE_SIZE] for start in range(0, len(joined), aead.NONCE_SIZE)]
    assert len(joined) == count * aead.NONCE_SIZE
    assert len(set(each)) == count
    assert {nonce[: aead.SHARED_SIZE] for nonce in each} <= {seed[: aead.SHARED_SIZE]}
    assert each[:1] == [seed][:count]
    assert aead.nonces(seed, count) + aead.nonces(seed, 3, count) == aead.nonces(seed, count + 3)


def test_one_cipher_for_several_batches_and_threads():
    cipher = aead.Aead(KEY)
    batches = [aead.nonces(bytes([number]) * 24, 20) for number in range(4)]
    expected = {
        batch[start : start + 24]: libsodium_seal(KEY, batch[start : start + 24], TEXT, AAD)
        for batch in batches
        for start in range(0, len(batch), 24)
    }
    wrong = []

    def work(order):
        sealed = {nonce: cipher.seal(nonce, TEXT, AAD) for nonce in order}
        wrong.extend(nonce for nonce in order if sealed[nonce] != expected[nonce])
        wrong.extend(nonce for nonce in order if cipher.open(nonce, expected[nonce], AAD) != TEXT)

    orders = [random.Random(number).sample(list(expected), len(expected)) for number in range(4)]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_repr_tells_no_key():
    assert repr(aead.Aead(KEY)) == "Aead()"


def test_every_bit_matters():
    for offset in range(len(SEALED)):
        for bit in range(8):
            altered = bytearray(SEALED)
            altered[offset] ^= 1 << bit
            with pytest.raises(CorruptionError):
                aead.open_(KEY, NONCE, altered, AAD)


def test_every_cut_is_refused():
    for size in range(len(SEALED)):
        with pytest.raises(CorruptionError):
            aead.open_(KEY, NONCE, SEALED[:size], AAD)
    with pytest.raises(CorruptionError):
        aead.open_(KEY, NONCE, SEALED + b"\0", AAD)


def test_wrong_key_nonce_or_additional_data():
    for key, nonce, aad in [
        (bytes(32), NONCE, AAD),
        (KEY, bytes(24), AAD),
        (KEY, NONCE, b""),
        (KEY, NONCE, AAD + b"\0"),
    ]:
        with pytest.raises(CorruptionError, match="do not authenticate"):
            aead.open_(key, nonce, SEALED, aad)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_key_of_a_wrong_size(size):
    with pytest.raises(ValueError, match="key of"):
        aead.seal(bytes(size), NONCE, TEXT, AAD)
    with pytest.raises(ValueError, match="key of"):
        aead.open_(bytes(size), NONCE, SEALED, AAD)


@pytest.mark.parametrize("size", [0, 12, 23, 25])
def test_nonce_of_a_wrong_size(size):
    with pytest.raises(ValueError, match="nonce of"):
        aead.seal(KEY, bytes(size), TEXT, AAD)
    with pytest.raises(ValueError, match="nonce of"):
        aead.open_(KEY, bytes(size), SEALED, AAD)


def test_threads_do_not_disturb_each_other():
    text = bytes(1 << 20)
    expected = aead.seal(KEY, NONCE, text, AAD)
    results = []

    def work():
        sealed = [aead.seal(KEY, NONCE, text, AAD) for _ in range(5)]
        results.append(all(one == expected and aead.open_(KEY, NONCE, one, AAD) == text for one in sealed))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
