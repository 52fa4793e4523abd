"""Sizes and durations: constants, and their spelling for people."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
GB = 10**9

NS_PER_S = 10**9

CHUNK_SIZE = 32 * KIB
"""Bytes of a file that one chunk covers."""


def format_size(size_bytes: int) -> str:
    """A size for people: `512 B`, `1.5 MiB`."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= KIB
        if size < KIB:
            return f"{size:.1f} {unit}"
    return f"{size / KIB:.1f} PiB"


def format_duration(duration_s: float) -> str:
    """A duration for people: `0.4 s`, `3 min 5 s`, `2 h 4 min`."""
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(int(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
