"""A table that holds nothing alive, finds whatever lives, and does not fill up with the dead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs.fs.weaktable import WeakTable


class Value:
    """Something that can be held."""


@given(st.lists(st.tuples(st.sampled_from(("put", "again", "let go", "drop")), st.integers(0, 15)), max_size=200))
def test_it_knows_what_is_held_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    table: WeakTable[int, Value] = WeakTable()
    held: dict[int, Value] = {}
    for step, key in steps:
        if step == "put":
            held[key] = Value()
            table.put(key, held[key])
        elif step == "again" and key in held:
            table.put(key, held[key])
        elif step == "let go":
            held.pop(key, None)
        elif step == "drop":
            table.drop(key)
            held.pop(key, None)
        assert [table.get(key) for key in range(16)] == [held.get(key) for key in range(16)]


def test_the_dead_do_not_pile_up() -> None:
    table: WeakTable[int, Value] = WeakTable()
    held = [Value() for _ in range(100)]
    for key, value in enumerate(held):
        table.put(key, value)
    for key in range(100, 10_000):
        table.put(key, Value())
        assert len(table) <= 500
    assert all(table.get(key) is value for key, value in enumerate(held))


@pytest.mark.parametrize("before", range(12))
def test_a_value_that_was_replaced_does_not_come_back(before: int) -> None:
    table: WeakTable[int, Value] = WeakTable()
    old, new, others = Value(), Value(), [Value() for _ in range(10)]
    table.put(0, old)
    for key in range(1, before + 1):
        table.put(key, others[key % 10])
    table.put(0, new)
    for key, value in enumerate(others * 3, 1):
        table.put(key, value)
        assert table.get(0) is new
    assert old is not new
