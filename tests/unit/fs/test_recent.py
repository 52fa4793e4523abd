"""The bounded dictionary."""

from zerofs.fs.recent import Recent


def test_it_remembers_between_once_and_twice_its_count() -> None:
    recent: Recent[int, str] = Recent(10)
    for number in range(100):
        recent.put(number, str(number))
        assert len(recent) <= 21
    assert recent.get(99) == "99"
    assert recent.get(89) == "89"
    assert recent.get(50) is None


def test_what_is_used_stays() -> None:
    recent: Recent[int, str] = Recent(10)
    for number in range(1000):
        recent.put(number, "x")
        assert recent.get(0) == "x"


def test_drop_and_replace() -> None:
    recent: Recent[int, str] = Recent(2)
    for number in range(4):
        recent.put(number, "a")
    recent.put(0, "b")
    assert recent.get(0) == "b"
    recent.drop(0)
    recent.drop(17)
    assert recent.get(0) is None
    assert recent.get(3) == "a"
