"""One version of a tree: what is found in it, against a dictionary, and what is not looked for twice."""

import random

import pytest

from tests.unit.lsm.compaction.kit import PREFIX, TOKENS, Bench, RunSpec, key
from zerofs.lsm.format.manifest import Tree
from zerofs.lsm.format.rows import Row
from zerofs.lsm.reader import TreeView
from zerofs.lsm.sst import SstReader

COUNT = 300


def random_spec(choice: random.Random) -> RunSpec:
    """A run of some stretches of keys, as files made one after the other leave them, and of single ones."""
    start = choice.randrange(COUNT)
    numbers = {
        *range(start, min(start + choice.randrange(80), COUNT), choice.choice((1, 2))),
        *choice.choices(range(COUNT), k=5),
    }
    rows = {number: None if choice.random() < 0.3 else choice.randbytes(9) for number in numbers}
    ranges = [(at := choice.randrange(COUNT), at + choice.randrange(1, 60))] if choice.random() < 0.3 else []
    return RunSpec(rows=rows, ranges=ranges, cuts=(choice.choice((15, 1000)),))


@pytest.mark.parametrize("seed", range(12))
async def test_keys_are_found_as_in_a_dictionary(seed: int) -> None:
    choice = random.Random(seed)
    bench = Bench(block_size_bytes=choice.choice((100, 400)))
    expected: dict[bytes, bytes] = {}
    runs = []
    for _ in range(choice.randrange(1, 7)):
        spec = random_spec(choice)
        runs.insert(0, await bench.put(spec))
        for start, stop in spec.ranges:
            expected = {known: value for known, value in expected.items() if not key(start) <= known < key(stop)}
        expected |= {known: value for known, _, value in spec.encoded() if value}
        for number, value in spec.rows.items():
            if value is None:
                expected.pop(key(number), None)
    view = TreeView(Tree(prefix=PREFIX, runs=tuple(runs)), SstReader(bench.make_storage(), TOKENS))

    def value_of(row: Row | None) -> bytes | None:
        return None if row is None else row[2]

    for _ in range(400):
        number = choice.randrange(-2, COUNT + 3)
        asked = [
            key(at) for at in range(max(number, 0), number + choice.choice((1, 1, 3, 40)) + 1, choice.choice((1, 2)))
        ]
        if choice.random() < 0.5:
            found = await view.get_many(asked)
            assert {known: row[2] for known, row in found.items()} == {k: expected[k] for k in asked if k in expected}
        else:
            assert [value_of(await view.get(known)) for known in asked] == [expected.get(known) for known in asked]


class CountingReader(SstReader):
    """Counts how often an index was asked for, by SST."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.asked: dict[int, int] = {}

    async def index(self, info):
        self.asked[info.sst[1]] = self.asked.get(info.sst[1], 0) + 1
        return await super().index(info)


@pytest.mark.parametrize("many", [False, True])
async def test_where_a_run_has_no_rows_it_is_not_asked_again(many: bool) -> None:
    """A run of new files lies around the keys of older ones: what every change writes stands before them."""
    bench = Bench()
    old = await bench.put(RunSpec(rows=dict.fromkeys(range(10, 200), b"old")))
    new = await bench.put(RunSpec(rows={0: b"often", **dict.fromkeys(range(200, 300), b"new")}))
    reader = CountingReader(bench.make_storage(), TOKENS)
    view = TreeView(Tree(prefix=PREFIX, runs=(new, old)), reader)
    assert (await view.get(key(200)))[2] == b"new", "and its block is in memory"
    reader.asked.clear()
    for number in range(10, 200):
        found = (
            (await view.get_many([key(number), key(number + 1000)]))[key(number)]
            if many
            else await view.get(key(number))
        )
        assert found[2] == b"old"
    assert reader.asked[1] >= 190
    assert reader.asked[2] <= 2
    assert await view.get(key(5)) is None


async def test_a_block_that_lacks_what_is_wanted_was_not_used() -> None:
    """Else what lies around everything, as the blocks of newer runs do, would push out what is wanted."""
    bench = Bench(block_size_bytes=1000)
    run = await bench.put(RunSpec(rows=dict.fromkeys(range(0, 40, 2), b"value")))
    storage = bench.make_storage()
    view = TreeView(Tree(prefix=PREFIX, runs=(run,)), SstReader(storage, TOKENS))
    assert await view.get(key(0)) is not None
    assert storage.blocks.hits == 0, "it had to be fetched"
    assert not [number for number in range(1, 39, 2) if await view.get(key(number)) is not None]
    assert storage.blocks.hits == 0
    assert await view.get(key(2)) is not None
    assert await view.get_many([key(3), key(4)])
    assert storage.blocks.hits == 2
