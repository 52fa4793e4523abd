"""The rows of the tables: which workload, in what state of the caches, counted in what."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a workload, and in what state of the caches it runs."""

    title: str
    workload: str
    unit: str = "/s"
    caches: str = "as they are"  # or "cold", "pages dropped", "names dropped"
    acknowledged_by: str | None = None  # "close" or "fsync"


ROWS = (
    Row(title="sequential write + fsync", workload="sequential_write", unit="MiB/s", acknowledged_by="fsync"),
    Row(title="cold sequential read", workload="sequential_read", unit="MiB/s", caches="cold"),
    Row(title="warm sequential read", workload="sequential_read", unit="MiB/s", caches="pages dropped"),
    Row(title="random 4 KiB read", workload="random_read", caches="pages dropped"),
    Row(title="random 4 KiB write + fsync", workload="random_write", acknowledged_by="fsync"),
    Row(title="create + write 4 KiB + close", workload="create", acknowledged_by="close"),
    Row(title="stat walk", workload="stat_walk", caches="names dropped"),
    Row(title="cold small reads", workload="small_read", caches="cold"),
    Row(title="delete", workload="delete", acknowledged_by="close"),
)

DROP = {"cold": "3", "pages dropped": "1", "names dropped": "2"}
"""What the kernel is told to forget: see `mounts.drop_caches`."""
