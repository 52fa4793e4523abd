"""The real world, where it must agree with the kernel."""

from zerofs.world import World


def test_what_the_kernel_stamps_later_is_not_older(tmp_path):
    """The kernel stamps files with the time of its last tick."""
    world = World()
    for number in range(50):
        before_ns = world.now_ns()
        path = tmp_path / f"{number}"
        path.touch()
        assert path.stat().st_mtime_ns >= before_ns
