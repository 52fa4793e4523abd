import random

from zerofs.objectstore.backoff import full_jitter_s


class Always:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def test_bounds_double_up_to_the_longest():
    bounds = [full_jitter_s(Always(1.0), failures, 0.1, 5.0) for failures in range(1, 9)]
    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_whole_range_is_used():
    assert full_jitter_s(Always(0.0), 5, 0.1, 5.0) == 0.0
    drawn = [full_jitter_s(random.Random(seed), 3, 0.1, 5.0) for seed in range(200)]
    assert min(drawn) < 0.02
    assert 0.38 < max(drawn) < 0.4


def test_very_many_failures_do_not_overflow():
    assert full_jitter_s(Always(1.0), 100_000, 0.1, 5.0) == 5.0
