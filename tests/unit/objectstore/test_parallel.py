from functools import partial

import pytest
import trio

from zerofs.errors import UnavailableError
from zerofs.objectstore.parallel import gather


async def test_results_come_in_the_order_of_the_jobs(autojump_clock):
    async def job(number):
        await trio.sleep(10 - number)
        return number

    assert await gather([partial(job, number) for number in range(10)], 4) == list(range(10))
    assert await gather([], 4) == []


async def test_at_most_so_many_at_once(autojump_clock):
    running, most = 0, 0

    async def job():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    await gather([job] * 10, 3)
    assert most == 3
    assert trio.current_time() >= 4


async def test_the_first_error_is_raised_alone_and_ends_the_rest(autojump_clock):
    begun = []

    async def job(number):
        begun.append(number)
        await trio.sleep(number)
        raise UnavailableError(f"number {number}")

    with pytest.raises(UnavailableError, match="number 1"):
        await gather([partial(job, number) for number in range(1, 9)], 3)
    assert begun == [1, 2, 3]
