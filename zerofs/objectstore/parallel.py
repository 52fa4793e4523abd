"""Several requests for one call: runs them side by side, and fails as one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from zerofs.errors import ZerofsError

T = TypeVar("T")


async def gather(jobs: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """The results of all jobs in their order, at most `at_once` of them running at a time.

    After the first ZerofsError no further job begins; those that run are cancelled, and that error is raised alone.
    """
    results: dict[int, T] = {}
    errors: list[ZerofsError] = []
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in waiting:
            try:
                results[index] = await job()
            except ZerofsError as exc:
                errors.append(exc)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(jobs))):
            nursery.start_soon(work)
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(jobs))]
