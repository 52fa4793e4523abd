import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_box_seal

from zerofs.crypto import box
from zerofs.errors import CorruptionError

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"

# "Cryptography in NaCl", section 10: Alice to Bob
PAPER_NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
PAPER_TEXT = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"
    "e5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"
    "0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
    "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f93776384864"
    "5e0705"
)
PAPER_SEALED = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce"
    "48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c972"
    "71d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
    "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b3"
    "7973f622a43d14a6599b1f654cb45a74e355a5"
)

AUTHORITY, SLOT, OTHER = b"a" * 32, b"s" * 32, b"o" * 32
NONCE = b"n" * 24
ROOT = bytes(range(32))


def test_public_key_vectors():
    assert box.public_key(ALICE).hex() == ALICE_PUBLIC
    assert box.public_key(BOB).hex() == BOB_PUBLIC


def test_vector_of_the_paper():
    alice, bob = box.public_key(ALICE), box.public_key(BOB)
    assert box.seal(PAPER_TEXT, PAPER_NONCE, recipient=bob, sender_private=ALICE) == PAPER_SEALED
    assert box.open_(PAPER_SEALED, PAPER_NONCE, recipient_private=BOB, sender=alice) == PAPER_TEXT


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.binary(max_size=64))
def test_round_trip(sender, nonce, text):
    sealed = box.seal(text, nonce, recipient=box.public_key(SLOT), sender_private=sender)
    assert len(sealed) == len(text) + box.OVERHEAD
    assert box.open_(sealed, nonce, recipient_private=SLOT, sender=box.public_key(sender)) == text


def make():
    return box.seal(ROOT, NONCE, recipient=box.public_key(SLOT), sender_private=AUTHORITY)


def test_only_the_recipient_opens():
    with pytest.raises(CorruptionError):
        box.open_(make(), NONCE, recipient_private=OTHER, sender=box.public_key(AUTHORITY))


def test_only_the_sender_makes():
    forged = box.seal(ROOT, NONCE, recipient=box.public_key(SLOT), sender_private=OTHER)
    with pytest.raises(CorruptionError):
        box.open_(forged, NONCE, recipient_private=SLOT, sender=box.public_key(AUTHORITY))


def test_an_anonymous_box_does_not_open():
    forged = crypto_box_seal(ROOT, box.public_key(SLOT))
    for sealed in (forged, forged[-48:]):
        with pytest.raises(CorruptionError):
            box.open_(sealed, NONCE, recipient_private=SLOT, sender=box.public_key(AUTHORITY))


def test_every_bit_and_every_cut():
    sealed = make()
    variants = [sealed[:size] for size in range(len(sealed))]
    variants += [
        bytes(byte ^ (1 << bit) if index == offset else byte for index, byte in enumerate(sealed))
        for offset in range(len(sealed))
        for bit in range(8)
    ]
    for variant in variants:
        with pytest.raises(CorruptionError):
            box.open_(variant, NONCE, recipient_private=SLOT, sender=box.public_key(AUTHORITY))


def test_another_nonce():
    with pytest.raises(CorruptionError):
        box.open_(make(), bytes(24), recipient_private=SLOT, sender=box.public_key(AUTHORITY))


@pytest.mark.parametrize("sender", [bytes(32), b"\x01" + bytes(31)])
def test_a_sender_key_of_small_order(sender):
    """With such a key anybody knows the shared secret."""
    with pytest.raises(CorruptionError):
        box.open_(make(), NONCE, recipient_private=SLOT, sender=sender)
