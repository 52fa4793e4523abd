"""A bank in SQLite, and what works on it: a program for tests that kill it.

ledger.py move DATABASE WRITER   moves money for ever; prints each step once it is committed
ledger.py watch DATABASE        counts the money for ever; ends when it is not all there
"""

import random
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

ACCOUNTS = 200
MONEY = 1000 * ACCOUNTS


def connect(path: Path | str) -> sqlite3.Connection:
    """With explicit transactions, and a long wait for locks."""
    bank = sqlite3.connect(path, timeout=200, isolation_level=None)
    bank.execute("PRAGMA synchronous = EXTRA")
    bank.execute("PRAGMA cache_size = 20")
    return bank


def create(path: Path, journal: str) -> None:
    """Every account has the same."""
    with closing(connect(path)) as bank:
        assert bank.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal,)
        bank.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER NOT NULL, padding BLOB)")
        bank.execute("CREATE TABLE step (writer INTEGER, number INTEGER, note BLOB, PRIMARY KEY (writer, number))")
        bank.execute("CREATE INDEX by_note ON step (note)")
        rows = [(number, MONEY // ACCOUNTS, bytes(500)) for number in range(ACCOUNTS)]
        bank.execute("BEGIN")
        bank.executemany("INSERT INTO account VALUES (?, ?, ?)", rows)
        bank.execute("COMMIT")


def sound(path: Path) -> dict[int, set[int]]:
    """The steps of each writer, of a database that must be whole."""
    with closing(connect(path)) as bank:
        assert bank.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert bank.execute("SELECT sum(money), count(*) FROM account").fetchone() == (MONEY, ACCOUNTS)
        steps: dict[int, set[int]] = {}
        for writer, number in bank.execute("SELECT writer, number FROM step"):
            steps.setdefault(writer, set()).add(number)
        return steps


def move(path: str, writer: int) -> None:
    """Each step is one transaction over several pages."""
    source = random.Random(writer)
    bank = connect(path)
    (number,) = bank.execute("SELECT coalesce(max(number), 0) FROM step WHERE writer = ?", (writer,)).fetchone()
    while True:
        number += 1
        bank.execute("BEGIN IMMEDIATE")
        bank.execute("INSERT INTO step VALUES (?, ?, ?)", (writer, number, source.randbytes(300)))
        for giver, taker in (source.sample(range(ACCOUNTS), 2) for _ in range(4)):
            bank.execute("UPDATE account SET money = money - 1 WHERE id = ?", (giver,))
            bank.execute("UPDATE account SET money = money + 1 WHERE id = ?", (taker,))
        bank.execute("COMMIT")
        print(number, flush=True)


def watch(path: str) -> None:
    """Readers see whole transactions only."""
    bank = connect(path)
    while True:
        found = bank.execute("SELECT sum(money), count(*) FROM account").fetchone()
        assert found == (MONEY, ACCOUNTS), found
        print("seen", flush=True)
        time.sleep(0.02)  # with a rollback journal, readers who never rest keep writers out


if __name__ == "__main__":
    if sys.argv[1] == "move":
        move(sys.argv[2], int(sys.argv[3]))
    else:
        watch(sys.argv[2])
