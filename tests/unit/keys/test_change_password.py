"""Changing the password: what stays, who wins, what a crash or an outage leaves."""

import random
from dataclasses import replace

import pytest
import trio

from tests.unit.keys.support import NEW, OLD, THIRD, WRONG, Afterwards, Gate, load, open_sidecar, opens, put
from zerofs.crypto.kdf import KdfCost
from zerofs.errors import (
    CorruptionError,
    KeyMissingError,
    PreconditionFailedError,
    UnavailableError,
    WrongPasswordError,
)
from zerofs.keys import vault
from zerofs.keys.chain import encode_sidecar
from zerofs.keys.format import SIDECAR_NAME, UnknownProtector, decode_sidecar
from zerofs.objectstore.decorator import Kind as Call
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.objectstore.faults import Fault, FaultyStore


async def test_change_password(store, world, frame):
    await vault.change_password(store, world, OLD, NEW)
    assert opens(await vault.unseal(store, world, NEW), frame)
    with pytest.raises(WrongPasswordError, match=WRONG):
        await vault.unseal(store, world, OLD)


async def test_change_password_rewraps_one_private_key_only(store, world, frame):
    before = decode_sidecar(await load(store))
    await vault.change_password(store, world, OLD, NEW)
    after = decode_sidecar(await load(store))
    was, now = before.slots[0].protector, after.slots[0].protector
    assert now.cost == was.cost
    assert now.salt != was.salt
    assert now.nonce != was.nonce
    assert now.sealed_private_key != was.sealed_private_key
    assert after.put_id != before.put_id
    assert after.mac != before.mac
    restored = replace(
        after,
        put_id=before.put_id,
        mac=before.mac,
        authenticated=before.authenticated,
        slots=(replace(after.slots[0], protector=was),),
    )
    assert restored == before


async def test_change_password_to_the_same_one(store, world, frame):
    before = await load(store)
    await vault.change_password(store, world, OLD, OLD)
    assert await load(store) != before
    assert opens(await vault.unseal(store, world, OLD), frame)


async def test_change_password_can_raise_the_cost(store, world, frame):
    dearer = KdfCost(memory_kib=16384, time_cost=2, parallelism=2)
    await vault.change_password(store, world, OLD, NEW, dearer)
    assert decode_sidecar(await load(store)).slots[0].protector.cost == dearer
    assert opens(await vault.unseal(store, world, NEW), frame)


async def test_change_password_refuses_a_cost_beyond_the_limits(store, world, frame, kdf_calls):
    before = await load(store)
    with pytest.raises(CorruptionError, match="refused before it ran"):
        await vault.change_password(store, world, OLD, NEW, KdfCost(memory_kib=8192, time_cost=17))
    assert await load(store) == before
    assert {call["time_cost"] for call in kdf_calls} == {1}


async def test_a_change_that_nobody_could_read_back_is_not_put(store, world, frame):
    """Each slot is within the limits, all of them together are not."""
    opened = open_sidecar(await load(store), OLD)
    own = opened.sidecar.slots[0]
    dear = KdfCost(memory_kib=1 << 20, time_cost=4, parallelism=1)
    others = (replace(own, protector=replace(own.protector, cost=dear)),) * 3
    await put(store, encode_sidecar(replace(opened.sidecar, slots=(own, *others, own)), opened.root))
    before = await load(store)
    with pytest.raises(CorruptionError, match="slots together"):
        await vault.change_password(store, world, OLD, NEW, dear)
    assert await load(store) == before
    assert opens(await vault.unseal(store, world, OLD), frame)


async def test_change_password_with_a_wrong_old_one_changes_nothing(store, world, frame):
    before = await store.get_versioned(SIDECAR_NAME)
    with pytest.raises(WrongPasswordError, match=WRONG):
        await vault.change_password(store, world, NEW, THIRD)
    assert await store.get_versioned(SIDECAR_NAME) == before


async def test_change_password_leaves_other_slots_alone(store, world, frame):
    opened = open_sidecar(await load(store), OLD)
    own = opened.sidecar.slots[0]
    unknown = replace(own, kind=77, label="recovery", protector=UnknownProtector(data=b"of a later version"))
    await put(store, encode_sidecar(replace(opened.sidecar, slots=(unknown, own)), opened.root))
    assert opens(await vault.unseal(store, world, OLD), frame)
    await vault.change_password(store, world, OLD, NEW)
    after = decode_sidecar(await load(store))
    assert after.slots[0] == unknown
    assert opens(await vault.unseal(store, world, NEW), frame)


async def test_of_two_concurrent_changes_exactly_one_wins(store, world, frame):
    gate = Gate(store, Call.PUT_IF_MATCH, 2)
    outcomes = {}

    async def change(name, new):
        try:
            await vault.change_password(gate, world, OLD, new)
        except PreconditionFailedError as exc:
            outcomes[name] = exc
        else:
            outcomes[name] = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change, "new", NEW)
        nursery.start_soon(change, "third", THIRD)
    (winner,) = [name for name, error in outcomes.items() if error is None]
    (loser,) = [error for error in outcomes.values() if error is not None]
    assert "this password change was not made" in str(loser)
    passwords = {"new": NEW, "third": THIRD}
    for name, password in passwords.items():
        if name == winner:
            assert opens(await vault.unseal(store, world, password), frame)
        else:
            with pytest.raises(WrongPasswordError):
                await vault.unseal(store, world, password)


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT, Fault.BUSY])
async def test_change_password_with_an_ambiguous_put(store, world, frame, autojump_clock, fault):
    faulty = FaultyStore(store, random.Random(1))
    faulty.plan(fault, Call.PUT_IF_MATCH)
    await vault.change_password(faulty, world, OLD, NEW)
    assert opens(await vault.unseal(store, world, NEW), frame)


async def test_change_password_with_a_put_that_arrives_late(store, world, frame, autojump_clock):
    async with trio.open_nursery() as nursery:
        faulty = FaultyStore(store, random.Random(1), nursery=nursery)
        faulty.plan(Fault.DELAYED, Call.PUT_IF_MATCH)
        await vault.change_password(faulty, world, OLD, NEW)
        await vault.change_password(store, world, NEW, THIRD)
    assert opens(await vault.unseal(store, world, THIRD), frame)


async def test_change_password_when_the_store_falls_silent(store, world, frame, autojump_clock):
    before = await load(store)

    class FallsSilent(StoreDecorator):
        async def _around(self, request, call):
            if request.kind is not Call.GET or request.name != SIDECAR_NAME or self.silent:
                self.silent = True
                raise UnavailableError("no answer")
            return await call()

        silent = False

    with pytest.raises(UnavailableError, match=r"not known whether .* try the new password first, then the old one"):
        await vault.change_password(FallsSilent(store), world, OLD, NEW)
    assert await load(store) == before


async def test_read_back_of_somebody_elses_later_change(store, world, frame):
    async def change_again():
        await vault.change_password(store, world, NEW, THIRD)

    with pytest.raises(PreconditionFailedError, match="right after this password change"):
        await vault.change_password(Afterwards(store, change_again), world, OLD, NEW)
    assert opens(await vault.unseal(store, world, THIRD), frame)


async def test_read_back_of_a_later_change_that_keeps_our_password(store, world, frame):
    async def change_again():
        await vault.change_password(store, world, NEW, NEW)

    await vault.change_password(Afterwards(store, change_again), world, OLD, NEW)
    assert opens(await vault.unseal(store, world, NEW), frame)


async def test_read_back_of_damage(store, world, frame):
    async def damage():
        data = bytearray(await load(store))
        data[-1] ^= 1
        await put(store, bytes(data))

    with pytest.raises(CorruptionError, match="MAC"):
        await vault.change_password(Afterwards(store, damage), world, OLD, NEW)


async def test_read_back_of_a_deleted_sidecar(store, world, frame):
    async def delete():
        await store.delete(SIDECAR_NAME)

    with pytest.raises(KeyMissingError):
        await vault.change_password(Afterwards(store, delete), world, OLD, NEW)


@pytest.mark.parametrize(
    ("point", "holds"), [("keys_after_derive_before_replace", OLD), ("keys_after_replace_before_read_back", NEW)]
)
async def test_a_crash_while_changing(store, world, frame, point, holds):
    world.crash_at = point
    with pytest.raises(KeyboardInterrupt):
        await vault.change_password(store, world, OLD, NEW)
    world.crash_at = None
    assert opens(await vault.unseal(store, world, holds), frame)
    with pytest.raises(WrongPasswordError):
        await vault.unseal(store, world, NEW if holds is OLD else OLD)


async def test_an_old_copy_still_opens_with_the_old_password(store, world, frame):
    """Not a promise but a fact, which the command tells its user."""
    copy = await load(store)
    await vault.change_password(store, world, OLD, NEW)
    await put(store, copy)
    assert opens(await vault.unseal(store, world, OLD), frame)
