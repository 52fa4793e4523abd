from dataclasses import replace

import pytest

from zerofs.crypto import box
from zerofs.crypto.kdf import KdfCost
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError
from zerofs.keys.format import KIND_PASSWORD, Slot, UnknownProtector
from zerofs.keys.slots import SlotContext, SlotEntropy, box_root, open_private_key, open_root, protect

PASSWORD, OTHER = Secret(b"correct horse"), Secret(b"wrong horse!")
AUTHORITY, ROOT, PRIVATE = Secret(b"a" * 32), Secret(b"r" * 32), Secret(b"s" * 32)
CONTEXT = SlotContext(volume_id=b"v" * 16, authority=box.public_key(AUTHORITY.reveal()))
ENTROPY = SlotEntropy(salt=b"t" * 16, nonce=b"n" * 24)
NONCE = b"N" * 24
PUBLIC = box.public_key(PRIVATE.reveal())


@pytest.fixture
def slot(cost, kdf_calls):
    bare = Slot(
        kind=KIND_PASSWORD,
        label="password",
        created_at_ns=7,
        public_key=PUBLIC,
        root_nonce=NONCE,
        boxed_root=box_root(ROOT, NONCE, slot_public=PUBLIC, authority_private=AUTHORITY),
        protector=UnknownProtector(data=b""),
    )
    return protect(CONTEXT, bare, PRIVATE, PASSWORD, cost, ENTROPY)


def test_the_password_opens_the_private_key_and_that_the_root(slot):
    private_key = open_private_key(CONTEXT, slot, PASSWORD)
    assert private_key.matches(PRIVATE)
    assert open_root(CONTEXT, slot, private_key).matches(ROOT)


def test_another_password_does_not(slot):
    assert open_private_key(CONTEXT, slot, OTHER) is None


def test_protect_replaces_the_protector_only(slot, cost):
    fresh = SlotEntropy(salt=b"T" * 16, nonce=b"M" * 24)
    changed = protect(CONTEXT, slot, PRIVATE, OTHER, cost, fresh)
    assert replace(changed, protector=slot.protector) == slot
    assert (changed.protector.salt, changed.protector.nonce) == (fresh.salt, fresh.nonce)
    assert open_private_key(CONTEXT, changed, PASSWORD) is None
    assert open_private_key(CONTEXT, changed, OTHER).matches(PRIVATE)


SLOT_CHANGES = [
    {"kind": 2},
    {"label": "passwort"},
    {"label": ""},
    {"created_at_ns": 8},
    {"public_key": box.public_key(b"x" * 32)},
]
PROTECTOR_CHANGES = [
    {"cost": KdfCost(memory_kib=8193, time_cost=1, parallelism=1)},
    {"cost": KdfCost(memory_kib=8192, time_cost=2, parallelism=1)},
    {"cost": KdfCost(memory_kib=8192, time_cost=1, parallelism=2)},
    {"salt": b"u" * 16},
    {"nonce": b"m" * 24},
    {"sealed_private_key": bytes(48)},
]
CONTEXT_CHANGES = [{"volume_id": b"w" * 16}, {"authority": box.public_key(b"x" * 32)}]


@pytest.mark.parametrize("change", SLOT_CHANGES, ids=str)
def test_every_clear_fact_of_the_slot_is_bound(slot, change):
    assert open_private_key(CONTEXT, replace(slot, **change), PASSWORD) is None


@pytest.mark.parametrize("change", PROTECTOR_CHANGES, ids=str)
def test_every_clear_fact_of_the_protector_is_bound(slot, change):
    changed = replace(slot, protector=replace(slot.protector, **change))
    assert open_private_key(CONTEXT, changed, PASSWORD) is None


@pytest.mark.parametrize("change", CONTEXT_CHANGES, ids=str)
def test_volume_and_authority_are_bound(slot, change):
    assert open_private_key(replace(CONTEXT, **change), slot, PASSWORD) is None


@pytest.mark.parametrize("change", PROTECTOR_CHANGES[:3], ids=str)
def test_the_cost_is_bound_by_more_than_the_key_it_makes(slot, change, monkeypatch):
    """Even if a weaker cost gave the same KEK, the slot would not open."""
    kek = b"k" * 32
    monkeypatch.setattr("zerofs.crypto.kdf.hash_secret_raw", lambda *_args, **_cost: kek)
    sealed = protect(CONTEXT, slot, PRIVATE, PASSWORD, slot.protector.cost, ENTROPY)
    assert open_private_key(CONTEXT, sealed, PASSWORD).matches(PRIVATE)
    assert open_private_key(CONTEXT, replace(sealed, protector=replace(sealed.protector, **change)), PASSWORD) is None


def test_roots_exchanged_between_slots_do_not_open(slot):
    """A root boxed by the same authority, but for somebody else."""
    other = Secret(b"o" * 32)
    boxed = box_root(ROOT, NONCE, slot_public=box.public_key(other.reveal()), authority_private=AUTHORITY)
    with pytest.raises(CorruptionError):
        open_root(CONTEXT, replace(slot, boxed_root=boxed), PRIVATE)


def test_a_root_that_the_authority_did_not_box(slot):
    boxed = box_root(ROOT, NONCE, slot_public=PUBLIC, authority_private=Secret(b"x" * 32))
    with pytest.raises(CorruptionError):
        open_root(CONTEXT, replace(slot, boxed_root=boxed), PRIVATE)


def test_a_protector_of_an_unknown_kind_opens_nothing_and_costs_nothing(slot, kdf_calls):
    kdf_calls.clear()
    assert open_private_key(CONTEXT, replace(slot, protector=UnknownProtector(data=b"x")), PASSWORD) is None
    assert kdf_calls == []


@pytest.mark.parametrize(
    "hostile",
    [
        KdfCost(memory_kib=4096, time_cost=1, parallelism=1),
        KdfCost(memory_kib=1 << 31, time_cost=1, parallelism=1),
        KdfCost(memory_kib=1 << 20, time_cost=16, parallelism=1),
    ],
    ids=str,
)
def test_limits_hold_before_the_kdf_runs(slot, hostile, kdf_calls):
    kdf_calls.clear()
    with pytest.raises(CorruptionError, match="refused before it ran"):
        open_private_key(CONTEXT, replace(slot, protector=replace(slot.protector, cost=hostile)), PASSWORD)
    with pytest.raises(CorruptionError, match="refused before it ran"):
        protect(CONTEXT, slot, PRIVATE, PASSWORD, hostile, ENTROPY)
    assert kdf_calls == []


def test_no_secret_in_a_repr(slot):
    shown = repr(slot)
    for secret in (PASSWORD, PRIVATE, ROOT, AUTHORITY):
        assert secret.reveal().decode() not in shown
        assert secret.reveal().hex() not in shown
