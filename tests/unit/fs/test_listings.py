"""Names that were read once are told again, and what is not known is not made up."""

from hypothesis import given
from hypothesis import strategies as st

from zerofs.fs.listings import NAMES_MAX, OF_ONE_MAX, Listings


def names(first, stop):
    """Entries with the cookies of a range."""
    return [(cookie, 1000 + cookie, b"%d" % cookie) for cookie in range(first, stop)]


def test_parts_that_follow_one_another_become_one():
    listings = Listings()
    listings.put(7, 2, names(3, 10), is_last=False)
    assert listings.ends_at(7, 9)
    assert listings.behind(7, 9, 5) is None
    listings.put(7, 9, names(10, 12), is_last=True)
    assert listings.behind(7, 2, 100) == names(3, 12)
    assert listings.behind(7, 8, 2) == names(9, 11)
    assert listings.behind(7, 11, 2) == []


def test_what_lies_before_is_not_known():
    listings = Listings()
    listings.put(7, 5, names(6, 10), is_last=True)
    assert listings.behind(7, 4, 3) is None
    assert listings.behind(8, 5, 3) is None


def test_parts_with_a_gap_between_them_do_not_become_one():
    listings = Listings()
    listings.put(7, 2, names(3, 10), is_last=False)
    listings.put(7, 20, names(21, 25), is_last=False)
    assert listings.behind(7, 2, 3) is None
    assert listings.behind(7, 20, 3) == names(21, 24)


def test_a_directory_that_changed_is_forgotten():
    listings = Listings()
    listings.put(7, 0, names(3, 10), is_last=True)
    listings.drop(7)
    assert listings.behind(7, 0, 3) is None
    assert len(listings) == 0
    listings.put(7, 0, names(3, 10), is_last=True)
    listings.clear()
    assert listings.behind(7, 0, 3) is None
    assert len(listings) == 0


def test_of_a_long_directory_the_last_names_are_kept():
    listings = Listings()
    for first in range(3, 3 * OF_ONE_MAX, 256):
        listings.put(7, first - 1, names(first, first + 256), is_last=False)
        assert listings.ends_at(7, first + 255)
        assert len(listings) <= OF_ONE_MAX + 1


def test_of_many_directories_the_oldest_are_forgotten_also_the_empty_ones():
    listings = Listings()
    for directory in range(2 * NAMES_MAX):
        listings.put(directory, 0, [], is_last=True)
    assert len(listings) == NAMES_MAX
    listings.put(0, 0, names(3, 3 + OF_ONE_MAX), is_last=False)
    assert len(listings) <= NAMES_MAX
    assert listings.behind(2 * NAMES_MAX - 1, 0, 5) == []
    assert listings.behind(NAMES_MAX, 0, 5) is None


def test_new_names_follow_where_the_end_is_known():
    listings = Listings()
    listings.put(7, 0, [], is_last=True)
    for entry in names(3, 6):
        listings.add(7, entry)
    assert listings.behind(7, 0, 100) == names(3, 6)
    listings.put(8, 0, names(3, 6), is_last=False)
    listings.add(8, names(9, 10)[0])
    assert listings.behind(8, 0, 100) is None
    listings.add(9, names(9, 10)[0])
    assert listings.behind(9, 0, 100) is None


def test_what_somebody_saw_behind_the_end_is_not_continued():
    listings = Listings()
    listings.put(7, 1000, [], is_last=True)
    listings.add(7, names(3, 4)[0])
    assert listings.behind(7, 1000, 5) is None
    assert len(listings) == 0


def test_new_names_are_bounded_too():
    listings = Listings()
    for directory in range(8):
        listings.put(directory, 0, [], is_last=True)
        for entry in names(3, 3 + OF_ONE_MAX - 1):
            listings.add(directory, entry)
            assert len(listings) <= NAMES_MAX
    assert listings.behind(0, 0, 1) is None
    assert listings.behind(7, 0, 1) == names(3, 4)
    for entry in names(3 + OF_ONE_MAX - 1, 3 + OF_ONE_MAX + 1):
        listings.add(7, entry)
    assert listings.behind(7, 0, 1) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "read", "read", "add", "add", "remove", "rename"]),
            st.integers(0, 2),
            st.integers(2, 40),
            st.integers(1, 12),
        )
    )
)
def test_whatever_is_asked_the_answer_is_what_reading_would_give(steps):
    present = {directory: names(3, 3 + 13 * directory) for directory in range(3)}
    new = iter(names(100, 10_000))
    listings = Listings()
    for what, directory, cookie, limit in steps:
        if what == "add":
            present[directory].append(next(new))
            listings.add(directory, present[directory][-1])
        elif what == "remove":
            present[directory] = [entry for entry in present[directory] if entry[0] != cookie]
            listings.remove(directory, cookie)
        elif what == "rename":
            present[directory] = [(at, inode, name + b"x") for at, inode, name in present[directory]]
            listings.drop(directory)
        else:
            right = [entry for entry in present[directory] if entry[0] > cookie][:limit]
            found = listings.behind(directory, cookie, limit)
            if found is None:
                listings.put(directory, cookie, right, is_last=len(right) < limit)
            else:
                assert found == right[: len(found)]
                assert found or not right
    assert len(listings) == sum(len(known.entries) + 1 for known in listings._known.values())
