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
    needs: tuple[str, ...] = ()  # programs
    prepared_by: str = ""  # a workload that comes first and does not count


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The rows of one table, in the order in which they run, and the module whose command line runs them."""

    rows: tuple[Row, ...]
    module: str
    has_sources: bool  # whether `benches.sources` are to be there
    stands_alone: bool  # whether a system that fails at one row may try the others
    usual_files: int


FILES = (
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

PROGRAMS = (
    Row(title="git clone", workload="git_clone", unit="s", acknowledged_by="close", needs=("git",)),
    Row(title="git status", workload="git_status", unit="s", caches="names dropped", needs=("git",)),
    Row(title="untar", workload="untar", unit="s", acknowledged_by="close", needs=("tar",)),
    Row(title="make -j2", workload="build", unit="s", acknowledged_by="close", needs=("make", "gcc", "tar")),
    Row(title="rsync -a", workload="rsync", unit="s", acknowledged_by="close", needs=("rsync",)),
    Row(title="rsync -a again", workload="rsync_again", unit="s", caches="names dropped", needs=("rsync",)),
    Row(title="SQLite insert + commit", workload="sqlite", acknowledged_by="fsync"),
    Row(title="SQLite with its WAL", workload="sqlite_wal", acknowledged_by="fsync"),
    Row(title="16 writers, an fsync each", workload="parallel_write", unit="MiB/s", acknowledged_by="fsync"),
    Row(title="16 readers, cold", workload="parallel_read", unit="MiB/s", caches="cold"),
    Row(
        title="fio random mix",
        workload="fio_mix",
        acknowledged_by="close",
        needs=("fio",),
        prepared_by="fio_files",
        caches="pages dropped",
    ),
    Row(
        title="fio mix, fdatasync each write",
        workload="fio_mix_synced",
        acknowledged_by="fsync",
        needs=("fio",),
        prepared_by="fio_files",
        caches="pages dropped",
    ),
    Row(title="rm -r of all that", workload="remove_all", unit="s", acknowledged_by="close"),
)

SUITES = {
    "files": Suite(rows=FILES, module="benches.load", has_sources=False, stands_alone=False, usual_files=3000),
    "programs": Suite(rows=PROGRAMS, module="benches.programs", has_sources=True, stands_alone=True, usual_files=2000),
}
