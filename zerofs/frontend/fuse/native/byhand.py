"""Coroutines that are begun by hand, to see whether they have to wait at all, and go on in a task if they do."""

import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def rest(work: Coroutine[Any, Any, None], trap: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that was begun by hand, from its first pause on, within this task."""
    while True:
        try:
            value = yield trap
        except BaseException as error:
            thrown: BaseException | None = error
        else:
            thrown = None
        try:
            trap = work.send(value) if thrown is None else work.throw(thrown)
        except StopIteration:
            return
