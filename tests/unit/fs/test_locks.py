"""Locks by inode."""

import random

import pytest
import trio
import trio.testing

from zerofs.fs.locks import TREE, InodeLocks


async def test_free_locks_cost_no_checkpoint() -> None:
    locks = InodeLocks()
    with trio.testing.assert_no_checkpoints(), await locks.hold(3):
        assert locks.is_held(3)
        with await locks.hold(5, 4, 5, TREE):
            assert len(locks) == 4
    assert len(locks) == 0


async def test_waiters_come_in_order() -> None:
    locks = InodeLocks()
    order = []

    async def worker(number: int) -> None:
        with await locks.hold(1):
            order.append(number)
            await trio.testing.wait_all_tasks_blocked()
            assert locks.is_held(1)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(worker, number)
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert order == sorted(order)
    assert len(order) == 5
    assert len(locks) == 0


async def test_whoever_need_not_wait_goes_before_but_passes_nobody_over_twice() -> None:
    locks = InodeLocks()
    order = []

    async def wait_for_it() -> None:
        with await locks.hold(1):
            order.append("waited")

    async with trio.open_nursery() as nursery:
        with await locks.hold(1):
            nursery.start_soon(wait_for_it)
            await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_no_checkpoints():
            for _ in range(3):
                with await locks.hold(1):
                    order.append("at once")
        with await locks.hold(1):
            await trio.testing.wait_all_tasks_blocked()  # now the one who waits finds it taken
            order.append("before")
        assert locks.is_held(1)
        with await locks.hold(1):
            order.append("after")
    assert order == ["at once"] * 3 + ["before", "waited", "after"]
    assert not locks.is_held(1)


async def test_a_lock_is_not_left_alone_while_somebody_was_called_to_take_it() -> None:
    locks = InodeLocks()

    async def wait_for_it() -> None:
        with await locks.hold(1):
            pass

    async with trio.open_nursery() as nursery:
        with await locks.hold(1):
            nursery.start_soon(wait_for_it)
            await trio.testing.wait_all_tasks_blocked()
        with await locks.hold(1):
            pass
        assert locks.is_held(1)
    assert not locks.is_held(1)


async def test_a_waiter_that_is_cancelled_when_it_was_passed_over_takes_nothing() -> None:
    locks = InodeLocks()
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            await locks.hold(0, 1)

    async with trio.open_nursery() as nursery:
        held = await locks.hold(1)
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        with held:
            pass
        with await locks.hold(1):
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert locks.is_held(1)
            assert not locks.is_held(0)
    assert len(locks) == 0
    assert not locks.is_held(1)


async def test_a_cancelled_waiter_gives_back_what_it_had() -> None:
    locks = InodeLocks()
    with await locks.hold(2):
        with trio.move_on_after(0) as scope:
            await locks.hold(1, 2, 3)
        assert scope.cancelled_caught
        assert not locks.is_held(1)
        assert not locks.is_held(3)
    with trio.testing.assert_no_checkpoints(), await locks.hold(1, 2, 3):
        pass


async def test_an_error_inside_releases() -> None:
    locks = InodeLocks()
    with pytest.raises(ZeroDivisionError), await locks.hold(1, 2):
        raise ZeroDivisionError
    assert len(locks) == 0


async def test_many_tasks_with_many_locks_neither_deadlock_nor_meet() -> None:
    locks = InodeLocks()
    inside: set[int] = set()
    rng = random.Random(7)
    done = 0

    async def worker() -> None:
        nonlocal done
        for _ in range(30):
            wanted = rng.sample(range(6), rng.randrange(1, 4))
            with trio.move_on_after(5 if rng.random() < 0.9 else 0):
                with await locks.hold(*wanted):
                    assert not inside & set(wanted)
                    inside.update(wanted)
                    with trio.CancelScope(shield=True):
                        await trio.lowlevel.checkpoint()
                    inside.difference_update(wanted)
                    done += 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(worker)
    assert done > 200
    assert len(locks) == 0
