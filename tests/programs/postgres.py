"""A PostgreSQL server whose data directory lies on a mount, to be killed and started again."""

import contextlib
import os
import signal
from pathlib import Path

from tests.mount.hosts import wait_for
from tests.programs import kit

USER = "postgres"
START_TIMEOUT_S = 100.0

SETTINGS = """
listen_addresses = ''
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 16MB
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 30s
max_connections = 20
"""


class Server:
    """Its directory is made by `create`; clients find its socket there, too."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self.log = log
        self.pid = 0
        self.environ = {"PGHOST": str(directory), "PGDATABASE": "postgres", "PGUSER": USER}

    def run(self, *command: object, **options) -> str:
        """Run one of PostgreSQL's programs, as its user."""
        return kit.run(*command, cwd=self.log.parent, user=USER, environ=self.environ, **options)

    def create(self) -> None:
        """initdb, with checksums over all pages."""
        self.run("initdb", "-D", self.directory, "--data-checksums", "--auth=trust", "--locale=C.UTF-8")
        with (self.directory / "postgresql.conf").open("a") as file:
            file.write(SETTINGS + f"unix_socket_directories = '{self.directory}'\n")

    def start(self) -> None:
        """Returns when it takes connections: after recovery."""
        options = ("-D", self.directory, "-l", self.log, "-w", "-t", str(int(START_TIMEOUT_S)))
        code, said = kit.attempt("pg_ctl", "start", *options, cwd=self.log.parent, user=USER, environ=self.environ)
        assert code == 0, said + self.log.read_text()[-4000:]
        self.pid = int((self.directory / "postmaster.pid").read_text().split("\n", 1)[0])

    def stop(self) -> None:
        """With a last checkpoint."""
        self.run("pg_ctl", "stop", "-D", self.directory, "-m", "fast", "-w")
        self.pid = 0

    def processes(self) -> set[int]:
        """The server's first process and its children, which are all there are."""
        if not self.pid:
            return set()
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {self.pid, *map(int, children)}

    def kill(self) -> None:
        """kill -9, to all of its processes."""
        pids = self.processes()
        for pid in sorted(pids, key=lambda pid: pid != self.pid):  # the first one first, or it would start others
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Reaped, too: a new server asks only whether the number of the old one is taken.
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of PostgreSQL")
        self.pid = 0

    def query(self, text: str) -> list[tuple[str, ...]]:
        """The rows that a statement gives."""
        said = self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text)
        return [tuple(line.split("|")) for line in said.splitlines()]

    def check(self) -> None:
        """Every index agrees with its table, every table with itself."""
        self.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--rootdescend", "--parent-check")


class Inserter:
    """A client that inserts a row, waits until it is committed, writes that down, and so on."""

    def __init__(self, server: Server, name: str, count: int = 20_000) -> None:
        self.name = name
        self._script = server.log.parent / f"{name}.sql"
        self._said = server.log.parent / f"{name}.out"
        self._script.write_text(
            "".join(f"INSERT INTO mine VALUES ('{name}', {number}) RETURNING number;\n" for number in range(count))
        )
        with self._said.open("w") as output:
            self.process = kit.start(
                *("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", self._script),
                cwd=server.log.parent,
                user=USER,
                environ=server.environ,
                output=output,
            )

    def acknowledged(self) -> set[int]:
        """The numbers of the rows that were committed, as far as the client was told."""
        return {int(line) for line in self._said.read_text().split("\n")[:-1] if line.isdecimal()}
