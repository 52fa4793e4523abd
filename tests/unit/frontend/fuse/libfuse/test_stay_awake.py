"""The wait for the next request: how long it is awake, and that nobody starves meanwhile."""

import os

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from zerofs.frontend.fuse.libfuse.stay_awake import YIELD_NS, AwakeTrio, staying_awake
from zerofs.frontend.fuse.patience import DISTURBED_NS, SHORT_NS
from zerofs.world import World


class ManualWorld(World):
    """A clock that moves by `step_ns` whenever it is read."""

    def __init__(self, step_ns=0):
        super().__init__()
        self.now = 1_000_000
        self.step_ns = step_ns
        self.switched = 0

    def monotonic_ns(self):
        self.now += self.step_ns
        return self.now

    def switches(self):
        return self.switched


class Polls:
    """poll(2) that answers from a list, then always with the last answer."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, descriptor):
        return self.poll

    def poll(self, timeout):
        assert timeout == 0
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_a_request_that_is_there_is_taken_without_the_scheduler():
    polls = Polls([(1, 1)])
    awake = AwakeTrio(ManualWorld(), can_read=polls)
    awake._yield_at_ns = awake._now_ns() + 1
    ran = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note, ran)
        for _ in range(10):
            await awake.wait_readable(0)
        assert ran == []
    assert ran == [1]


async def test_others_get_their_turn_however_fast_requests_come():
    awake = AwakeTrio(ManualWorld(step_ns=YIELD_NS // 4), can_read=Polls([(1, 1)]))
    ran = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note, ran)
        for _ in range(10):
            await awake.wait_readable(0)
        assert ran == [1]


async def test_a_cancelled_loop_ends_although_requests_keep_coming():
    awake = AwakeTrio(ManualWorld(step_ns=YIELD_NS // 4), can_read=Polls([(1, 1)]))
    served = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        for served in range(100):  # noqa: B007
            await awake.wait_readable(0)
    assert scope.cancelled_caught
    assert served < 10


async def test_a_request_within_the_while_is_a_hit(pipe):
    polls = Polls([], [], [], [], [], [], [], [(1, 1)])
    awake = AwakeTrio(ManualWorld(step_ns=100), can_read=polls)
    awake._patience.missed()
    await awake.wait_readable(pipe[0])
    assert polls.asked == 8
    assert awake._patience.budget_ns == SHORT_NS


async def test_after_the_while_it_sleeps_until_the_descriptor_is_readable(pipe):
    awake = AwakeTrio(ManualWorld(step_ns=SHORT_NS // 10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(awake.wait_readable, pipe[0])
        await wait_all_tasks_blocked()
        assert awake._patience.budget_ns < SHORT_NS
        assert awake._reading
        os.write(pipe[1], b"x")
    assert not awake._reading


async def test_a_withdrawn_request_is_not_read(pipe):
    polls = Polls([], [], [(1, 1)])
    awake = AwakeTrio(ManualWorld(), can_read=polls)
    awake._patience.budget_ns = 0
    os.write(pipe[1], b"x")
    await awake.wait_readable(pipe[0])
    # The first wake-up found nothing: it waited again instead of letting the caller block in read(2).
    assert polls.asked == 3


class Preempted(ManualWorld):
    """Another thread has the core all the time."""

    def switches(self):
        self.switched += 1
        return self.switched


async def test_somebody_else_wanting_the_core_ends_the_wait(pipe):
    world = Preempted(step_ns=DISTURBED_NS + 1)
    awake = AwakeTrio(world, can_read=Polls([], [], [], [], [], [(1, 1)]))
    os.write(pipe[1], b"x")
    await awake.wait_readable(pipe[0])
    assert awake._patience.deadline_ns(world.now) == world.now


async def test_a_machine_that_stood_still_does_not_end_the_wait(pipe):
    world = ManualWorld(step_ns=DISTURBED_NS + 1)
    polls = Polls([], [], [], [], [], [(1, 1)])
    awake = AwakeTrio(world, can_read=polls)
    await awake.wait_readable(pipe[0])
    assert polls.asked == 6
    assert awake._patience.deadline_ns(world.now) > world.now


async def test_one_reader_at_a_time_and_the_next_follows(pipe):
    awake = AwakeTrio(World())
    order = []

    async def reader(name):
        await awake.wait_readable(pipe[0])
        order.append((name, os.read(pipe[0], 1)))

    async with trio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(reader, name)
        await wait_all_tasks_blocked()
        for byte in range(5):
            os.write(pipe[1], bytes([byte]))
            await wait_all_tasks_blocked()
            assert len(order) == byte + 1
    assert {name for name, _ in order} == set(range(5))


async def test_a_cancelled_reader_hands_over(pipe):
    awake = AwakeTrio(World())
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        nursery.start_soon(_within, first, awake.wait_readable, pipe[0])
        await wait_all_tasks_blocked()
        nursery.start_soon(awake.wait_readable, pipe[0])
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        assert awake._reading
        os.write(pipe[1], b"x")


async def test_everything_else_is_trio():
    awake = AwakeTrio(World())
    assert awake.open_nursery is trio.open_nursery
    assert awake.ClosedResourceError is trio.ClosedResourceError
    assert awake.lowlevel.current_task() is trio.lowlevel.current_task()
    assert awake.lowlevel.notify_closing is trio.lowlevel.notify_closing
    with pytest.raises(AttributeError):
        awake.no_such_thing  # noqa: B018


async def test_the_lock_lets_everybody_in():
    lock = AwakeTrio(World()).Lock()
    async with lock, lock:
        pass


def test_the_binding_is_switched_while_inside_only():
    """If this fails with a new pyfuse3, small requests have become slower: its wait is not ours any more."""
    assert pyfuse3.trio is trio
    with staying_awake(World()):
        assert isinstance(pyfuse3.trio, AwakeTrio)
    assert pyfuse3.trio is trio


def test_a_binding_without_the_seam_is_left_alone(monkeypatch, caplog):
    monkeypatch.delattr(pyfuse3, "trio")
    with caplog.at_level("INFO"), staying_awake(World()):
        assert not hasattr(pyfuse3, "trio")
    assert "cannot be kept awake" in caplog.text


async def _note(ran):
    ran.append(1)


async def _within(scope, function, *args):
    with scope:
        await function(*args)
