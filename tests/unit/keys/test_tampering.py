"""Somebody who can write to the store has altered the sidecar: it is refused, and never opens to other keys."""

from dataclasses import replace

import pytest

from tests.unit.keys.support import NEW, OLD, load, open_sidecar, put
from zerofs.crypto import box
from zerofs.crypto.kdf import KdfCost
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, UnsupportedFormatError, WrongPasswordError
from zerofs.ids import KeyId
from zerofs.keys import vault
from zerofs.keys.chain import context_of, encode_sidecar, seal_keyring
from zerofs.keys.format import Generation, UnknownProtector, decode_sidecar
from zerofs.keys.slots import box_root
from zerofs.objectstore.memory import MemoryStore


async def test_every_bit_matters(store, world, frame):
    data = await load(store)
    for offset in range(len(data)):
        # From the salt to the end of the sealed private key nothing but the password could tell what is wrong.
        expected = WrongPasswordError if 240 <= offset < 328 else (WrongPasswordError, CorruptionError)
        if 8 <= offset < 12:
            expected = (UnsupportedFormatError, CorruptionError)  # another version looks like a newer one, but 0
        for bit in range(8):
            altered = bytearray(data)
            altered[offset] ^= 1 << bit
            await put(store, bytes(altered))
            with pytest.raises(expected):
                await vault.unseal(store, world, OLD)


async def test_every_cut_is_refused(store, world, frame):
    data = await load(store)
    for size in range(len(data)):
        await put(store, data[:size])
        with pytest.raises(CorruptionError, match=r"zerofs\.key"):
            await vault.unseal(store, world, OLD)


@pytest.mark.parametrize("start", [28, 44, 84, 96, 104, 112, 240, 256, 280], ids=str)
async def test_what_the_slot_binds_reads_as_a_wrong_password(store, world, frame, start):
    """Volume id, authority, kind … sealed private key: whoever has only the password cannot tell the difference."""
    data = bytearray(await load(store))
    data[start] ^= 1
    await put(store, bytes(data))
    expected = CorruptionError if start == 84 else WrongPasswordError  # an unknown kind is no password slot
    with pytest.raises(expected):
        await vault.unseal(store, world, OLD)


@pytest.mark.parametrize("start", [12, 144, 168, 328, 360, 460], ids=str)
async def test_what_the_root_binds_reads_as_altered(store, world, frame, start):
    """Put-id, boxed root, keyring, MAC: the password was right."""
    data = bytearray(await load(store))
    data[start] ^= 1
    await put(store, bytes(data))
    with pytest.raises(CorruptionError, match=r"zerofs\.key was altered or damaged, though the password is right"):
        await vault.unseal(store, world, OLD)


@pytest.mark.parametrize("mac", [bytes(32), b"\xff" * 32])
async def test_a_mac_made_up(store, world, frame, mac):
    data = await load(store)
    await put(store, data[:-32] + mac)
    with pytest.raises(CorruptionError, match="its MAC does not fit"):
        await vault.unseal(store, world, OLD)


async def test_a_lowered_cost_is_refused(store, world, frame):
    await vault.change_password(store, world, OLD, NEW, KdfCost(memory_kib=16384, time_cost=2, parallelism=1))
    sidecar = decode_sidecar(await load(store))
    slot = sidecar.slots[0]
    weak = replace(slot.protector, cost=KdfCost(memory_kib=8192, time_cost=1, parallelism=1))
    await put(store, encode_sidecar(replace(sidecar, slots=(replace(slot, protector=weak),)), Secret(bytes(32))))
    with pytest.raises(WrongPasswordError):
        await vault.unseal(store, world, NEW)


async def test_a_hostile_cost_is_refused_before_the_kdf_runs(store, world, frame, kdf_calls):
    data = bytearray(await load(store))
    data[228:232] = b"\xff\xff\xff\xff"
    await put(store, bytes(data))
    kdf_calls.clear()
    with pytest.raises(CorruptionError, match="refused before it ran: memory 4294967295 KiB"):
        await vault.unseal(store, world, OLD)
    assert kdf_calls == []


async def test_slots_exchanged_between_volumes(world, cost, kdf_calls):
    sidecars = []
    for _ in range(2):
        store = MemoryStore()
        await vault.create(store, world, OLD, cost)
        sidecars.append(decode_sidecar(await load(store)))
    mixed = replace(sidecars[0], slots=sidecars[1].slots)
    store = MemoryStore()
    await put(store, encode_sidecar(mixed, Secret(bytes(32))))
    with pytest.raises(WrongPasswordError):
        await vault.unseal(store, world, OLD)


async def test_slots_in_another_order(store, world, frame):
    opened = open_sidecar(await load(store), OLD)
    own = opened.sidecar.slots[0]
    second = replace(own, kind=77, protector=UnknownProtector(data=b"x"))
    two = replace(opened.sidecar, slots=(own, second))
    swapped = encode_sidecar(replace(two, slots=(second, own)), opened.root)
    mac_of_the_right_order = encode_sidecar(two, opened.root)[-32:]
    await put(store, swapped[:-32] + mac_of_the_right_order)
    with pytest.raises(CorruptionError, match="MAC"):
        await vault.unseal(store, world, OLD)


@pytest.mark.parametrize("keep_authority", [True, False])
async def test_whoever_can_only_write_cannot_make_the_password_open_other_keys(store, world, frame, keep_authority):
    """The forgery of decision 0007, point 3: everything that is public is kept, all the rest is made anew."""
    sidecar = decode_sidecar(await load(store))
    forger_private, forger_root = Secret(b"f" * 32), Secret(b"F" * 32)
    authority = sidecar.authority if keep_authority else box.public_key(forger_private.reveal())
    slot = sidecar.slots[0]
    boxed = box_root(forger_root, slot.root_nonce, slot_public=slot.public_key, authority_private=forger_private)
    forged = replace(sidecar, authority=authority, slots=(replace(slot, boxed_root=boxed),))
    keyring = seal_keyring(
        forger_root,
        forged.keyring_nonce,
        context=context_of(forged),
        authority_private=forger_private,
        generations=(Generation(key_id=KeyId(1), created_at_ns=0, dek=Secret(b"known to the forger".ljust(32))),),
    )
    await put(store, encode_sidecar(replace(forged, sealed_keyring=keyring), forger_root))
    with pytest.raises(CorruptionError if keep_authority else WrongPasswordError):
        await vault.unseal(store, world, OLD)


async def test_an_authority_that_does_not_fit_its_private_key(store, world, frame):
    opened = open_sidecar(await load(store), OLD)
    keyring = seal_keyring(
        opened.root,
        opened.sidecar.keyring_nonce,
        context=context_of(opened.sidecar),
        authority_private=Secret(b"x" * 32),
        generations=opened.generations,
    )
    await put(store, encode_sidecar(replace(opened.sidecar, sealed_keyring=keyring), opened.root))
    with pytest.raises(CorruptionError, match="not a pair"):
        await vault.unseal(store, world, OLD)


async def test_a_keyring_of_another_volume(store, world, frame, cost):
    other = MemoryStore()
    await vault.create(other, world, OLD, cost)
    opened = open_sidecar(await load(store), OLD)
    foreign = decode_sidecar(await load(other))
    mixed = replace(opened.sidecar, sealed_keyring=foreign.sealed_keyring, keyring_nonce=foreign.keyring_nonce)
    await put(store, encode_sidecar(mixed, opened.root))
    with pytest.raises(CorruptionError, match="do not authenticate"):
        await vault.unseal(store, world, OLD)


async def test_only_unknown_slots(store, world, frame):
    opened = open_sidecar(await load(store), OLD)
    unknown = replace(opened.sidecar.slots[0], kind=77, protector=UnknownProtector(data=b"x"))
    await put(store, encode_sidecar(replace(opened.sidecar, slots=(unknown,)), opened.root))
    with pytest.raises(CorruptionError, match="no slot that a password opens in this version"):
        await vault.unseal(store, world, OLD)
