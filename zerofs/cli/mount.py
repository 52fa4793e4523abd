"""`zerofs run` and `zerofs mount`: from a command line to a running session, in this process or in a daemon."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio

from zerofs import mounttable
from zerofs.admin import registry
from zerofs.cli import console, daemon
from zerofs.cli.failure import describe
from zerofs.cli.mount_options import MountOptions
from zerofs.cli.plan import MountPlan, check_kernel, make_plan
from zerofs.cli.rooms import RealRooms
from zerofs.cli.session import Session
from zerofs.config import load
from zerofs.config.password import read_password
from zerofs.config.paths import find_config, process_environment
from zerofs.crypto.secret import Secret
from zerofs.telemetry.log import configure
from zerofs.world import World

log = logging.getLogger(__name__)


def run(mountpoint: str | None, config: Path | None, options: MountOptions, *, verbose: bool) -> None:
    """Serve in the foreground until unmounted; the log goes to standard error. Raises whatever `Session.run` does."""
    configure(_level(verbose))
    plan, password = _prepare(mountpoint, config, options)
    _serve(plan, password, lambda: None)


def mount(
    mountpoint: str | None, config: Path | None, options: MountOptions, *, verbose: bool, quiet: bool = False
) -> None:
    """Serve in a daemon, and return when it is mounted. Raises the daemon's error when it cannot."""
    plan, password = _prepare(mountpoint, config, options)
    file = plan.settings.state_dir / "logs" / f"mount-{registry.mount_key(plan.mountpoint)}.log"
    plan = replace(plan, log=str(file))

    def work(reporter: daemon.Reporter) -> int:
        try:
            configure(_level(verbose), file)
            _serve(plan, password, reporter.ready)
        except BaseException as error:
            failure = describe(error)
            log.error("%s", failure.message)
            reporter.failed(failure.message, failure.exit_code)
            return failure.exit_code
        reporter.failed("stopped before it was mounted", 1)
        return 0

    hides = mounttable.hides_something(plan.mountpoint)
    daemon.start(file, work)
    if hides:
        console.note(f"zerofs: warning: {mounttable.NOT_EMPTY}")
    if not quiet:
        console.say(f"zerofs mounted at {plan.mountpoint}")


def check_only(mountpoint: str | None, config: Path | None, options: MountOptions) -> None:
    """What mount(8) wants with -f: everything but the mount. Raises as `mount` would before it asks for a password."""
    environ = process_environment()
    make_plan(load(config or find_config(environ), environ), mountpoint, options, environ)


def _prepare(mountpoint: str | None, config: Path | None, options: MountOptions) -> tuple[MountPlan, Secret]:
    environ = process_environment()
    settings = load(config or find_config(environ), environ)
    password = read_password(settings.storage.password, console.ask_secret)
    plan = make_plan(settings, mountpoint, options, environ)
    check_kernel(plan)
    return plan, password


def _serve(plan: MountPlan, password: Secret, ready: Callable[[], None]) -> None:
    trio.run(Session(plan, World(), RealRooms(), ready=ready).run, password)


def _level(verbose: bool) -> str:
    return "debug" if verbose else "info"
