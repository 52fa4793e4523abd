"""The programs that these tests run, and the Debian packages that bring them. As a program: prints what is missing."""

import shutil
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POSTGRESQL = Path("/usr/lib/postgresql")

PACKAGES = {
    "bonnie++": "bonnie++",
    "bzip2": "bzip2",
    "dbench": "dbench",
    "fio": "fio",
    "gcc": "gcc libc6-dev",
    "git": "git",
    "make": "make",
    "pg_amcheck": "postgresql postgresql-contrib",
    "pgbench": "postgresql postgresql-contrib",
    "postgres": "postgresql postgresql-contrib",
    "postmark": "postmark",
    "psql": "postgresql postgresql-contrib",
    "rsync": "rsync",
    "stress-ng": "stress-ng",
    "tar": "tar",
}


def find(program: str) -> str:
    """Where a program is, the newest one of PostgreSQL's; empty when it is not installed."""
    versions = sorted(POSTGRESQL.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    found = (shutil.which(program, path=path) for path in [*map(str, versions), PATH])
    return next(filter(None, found), "")


def remedy(program: str) -> str:
    """What to say of a program that is missing."""
    return f"{program} is missing: apt-get install {PACKAGES[program]}"


if __name__ == "__main__":
    missing = {package for program, packages in PACKAGES.items() if not find(program) for package in packages.split()}
    print(*sorted(missing))
