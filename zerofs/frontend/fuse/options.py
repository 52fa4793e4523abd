"""What may be chosen about a FUSE mount."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class FuseOptions:
    """Choices of one mount. That the kernel checks permissions (`default_permissions`) is none: it always does."""

    read_only: bool = False
    """The kernel refuses every change before we see it."""

    allow_other: bool = False
    """Users other than the one who mounts are let in, as far as file modes allow."""

    writeback: bool = True
    """The kernel gathers writes in its page cache; their errors show at fsync, flush or close."""

    driver: str = "native"
    """Who speaks the kernel's protocol."""

    fsname: str = "zerofs"
    """What `mount` and `df` show as the source. Everybody on the host can read it: no credentials."""

    lifetime_s: float = 86_400.0
    """How long the kernel may answer for a name, present or absent, and its attributes without asking again."""

    lifetime: Callable[[], float] | None = None
    """The same for a filesystem that changes behind our back (a follower): asked at every answer."""

    stay_awake: bool = True
    """After a request, wait for the next one awake for a short, adaptive while."""
