"""PostgreSQL with its data on a mount: whatever is killed, what it acknowledged is there, and whole."""

import re
import shutil

import pytest

from tests.mount.hosts import wait_for
from tests.programs import kit
from tests.programs.postgres import USER, Inserter, Server

pytestmark = kit.MARKS

CLIENTS = 4
SCALE = 2
ROWS = 40
"""Rows of each inserter before the axe falls; pgbench works all the while."""

SUMS = {"accounts": "abalance", "tellers": "tbalance", "branches": "bbalance", "history": "delta"}


@pytest.fixture
def server(mount, plain):
    """A running server with pgbench's tables and one of ours. It is killed at the end, if it still runs."""
    kit.need_root()
    kit.need("postgres", "psql", "pgbench", "pg_amcheck")
    directory, outside = mount.path / "data", plain / "outside"
    for path in (directory, outside):
        path.mkdir(mode=0o700)
        shutil.chown(path, USER, USER)
    made = Server(directory, outside / "server.log")
    made.create()
    made.start()
    try:
        made.run("pgbench", "--initialize", "--quiet", f"--scale={SCALE}", "--foreign-keys")
        made.query("CREATE TABLE mine (client text, number int, PRIMARY KEY (client, number))")
        yield made
    finally:
        made.kill()


def transactions(server):
    """How many pgbench did, by the server's own books, which must agree with each other."""
    sums = {server.query(f"SELECT sum({column}) FROM pgbench_{table}")[0][0] for table, column in SUMS.items()}
    assert len(sums) == 1, sums
    return int(server.query("SELECT count(*) FROM pgbench_history")[0][0])


def kill_server(mount, server):
    server.kill()


def kill_both(mount, server):
    pids = server.processes()
    assert len(pids) > CLIENTS
    server.kill()
    mount.kill()
    mount.drop_cache()
    mount.start()


def kill_filesystem_first(mount, server):
    """The server meets a dead filesystem before it dies."""
    mount.kill()
    server.kill()
    mount.drop_cache()
    mount.start()


def crash(mount, server, kill, number):
    """Clients at work until the kill. What was acknowledged: transactions of pgbench, and numbers by client."""
    names = [f"client-{number}-{which}" for which in "ab"]
    clients = [Inserter(server, name) for name in names]
    bench = kit.start(
        *("pgbench", "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", "--time=100"),
        cwd=server.log.parent,
        user=USER,
        environ=server.environ,
    )
    try:
        wait_for(lambda: all(len(client.acknowledged()) >= ROWS for client in clients), f"{ROWS} rows of each client")
        kill(mount, server)
        code, said = kit.finish(bench, timeout_s=60)
        assert code == 2, said
        for client in clients:
            assert client.process.wait(60) != 0
    finally:
        for process in (bench, *(client.process for client in clients)):
            kit.end(process)
    done = int(re.search(r"number of transactions actually processed: (\d+)", said)[1])
    return done, {client.name: client.acknowledged() for client in clients}


def test_acknowledged_transactions_survive_every_kill(mount, server):
    expected = {}
    done = 0
    for number, kill in enumerate((kill_server, kill_both, kill_filesystem_first)):
        more, rows = crash(mount, server, kill, number)
        expected |= rows
        server.start()
        assert "database system was not properly shut down" in server.log.read_text()
        found = transactions(server)
        assert more > 0
        assert done + more <= found <= done + more + CLIENTS, "what was under way may be there"
        done = found
        for name, numbers in expected.items():
            there = {int(row[0]) for row in server.query(f"SELECT number FROM mine WHERE client = '{name}'")}
            assert numbers <= there
            assert len(there - numbers) <= 1
    server.check()
    server.stop()
    server.run("pg_checksums", "--check", "-D", server.directory)
    kit.unchanged_after_cold_remount(mount, mount.path)
    server.start()
    assert transactions(server) == done
    server.check()
    server.stop()
