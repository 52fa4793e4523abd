import logging
import os
import re
import stat

import pytest

from zerofs.crypto.secret import Secret
from zerofs.errors import ConfigError
from zerofs.telemetry import log

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ([A-Z]+) ([a-z.0-9]+): (.*)")
OUR_LOGGERS = ("", "zerofs", "boto3", "botocore", "s3transfer", "urllib3", "trio", "pyfuse3")


@pytest.fixture(autouse=True)
def restored_logging():
    """Logging is one per process: put everything back."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in OUR_LOGGERS}
    handlers = list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "zerofs.log"


def read(log_file):
    return log_file.read_text(encoding="utf-8").splitlines()


def test_one_line_in_one_format(log_file):
    log.configure("info", log_file)
    logging.getLogger("zerofs.lsm.engine").warning("object %s is late", "wal/1.sst")
    (line,) = read(log_file)
    assert LINE.fullmatch(line).groups() == ("WARNING", "zerofs.lsm.engine", "object wal/1.sst is late")


def test_the_time_is_utc():
    record = logging.makeLogRecord({"created": 1763719200.1239, "levelname": "INFO", "name": "zerofs", "msg": "m"})
    assert log.LineFormatter().format(record) == "2025-11-21T10:00:00.123Z INFO zerofs: m"


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("WARNING", 2)],
)
def test_levels(log_file, level, expected):
    log.configure(level, log_file)
    logger = logging.getLogger("zerofs.test")
    for method in (logger.debug, logger.info, logger.warning, logger.error):
        method("m")
    assert len(read(log_file)) == expected


def test_unknown_level_and_the_old_setting_stays(log_file):
    log.configure("info", log_file)
    with pytest.raises(ConfigError, match="unknown log level 'loud': use one of debug, info, warning, error"):
        log.configure("loud")
    logging.getLogger("zerofs").info("still here")
    assert len(read(log_file)) == 1


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot open the log file .*: Is a directory"):
        log.configure("info", tmp_path)


def test_only_the_owner_reads_the_file(log_file):
    old = os.umask(0)
    try:
        log.configure("info", log_file)
    finally:
        os.umask(old)
    assert stat.S_IMODE(log_file.stat().st_mode) == 0o600


def test_appends(log_file):
    log_file.write_text("before\n")
    log.configure("info", log_file)
    logging.getLogger("zerofs").info("after")
    assert read(log_file)[0] == "before"
    assert len(read(log_file)) == 2


def test_configure_again_replaces_the_handler(log_file, tmp_path):
    log.configure("info", log_file)
    log.configure("debug", tmp_path / "second.log")
    logging.getLogger("zerofs").debug("once")
    assert read(log_file) == []
    assert len(read(tmp_path / "second.log")) == 1


def test_stderr_by_default(capsys):
    log.configure("info")
    logging.getLogger("zerofs").info("hello")
    assert LINE.fullmatch(capsys.readouterr().err.strip())


@pytest.mark.parametrize("name", ["botocore.auth", "boto3", "urllib3.connectionpool", "s3transfer", "some.other"])
def test_other_libraries_speak_from_warning_up(log_file, name):
    logging.getLogger(name.partition(".")[0]).setLevel(logging.NOTSET)
    log.configure("debug", log_file)
    logger = logging.getLogger(name)
    logger.debug("Authorization: AWS4-HMAC-SHA256 …")
    logger.info("chatter")
    logger.warning("trouble")
    (line,) = read(log_file)
    assert line.endswith(f" WARNING {name}: trouble")


def test_error_level_quietens_other_libraries_too(log_file):
    log.configure("error", log_file)
    logging.getLogger("botocore").warning("trouble")
    assert read(log_file) == []


def test_a_traceback_without_values_of_variables(log_file):
    log.configure("info", log_file)
    password = "hunter2 hunter2"
    try:
        raise ValueError(f"length {len(password)}")
    except ValueError:
        logging.getLogger("zerofs").exception("failed")
    lines = read(log_file)
    assert lines[0].endswith("ERROR zerofs: failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: length 15"
    shown = [line for line in lines if "hunter2" in line]
    assert shown == []


def test_a_traceback_that_another_handler_has_formatted_is_not_taken_over(log_file):
    log.configure("info", log_file)
    record = logging.makeLogRecord({"name": "zerofs", "msg": "m", "exc_text": "locals: password = hunter2"})
    assert "hunter2" not in log.LineFormatter().format(record)


def test_no_exception_to_show():
    record = logging.makeLogRecord({"name": "zerofs", "msg": "m", "exc_info": (None, None, None)})
    assert log.LineFormatter().format(record).endswith(": m")


def test_secrets_never(log_file):
    log.configure("debug", log_file)
    secret = Secret(b"hunter2 hunter2")
    logging.getLogger("zerofs").debug("secret %s %r %s", secret, secret, {"key": secret})
    (line,) = read(log_file)
    assert "hunter2" not in line
    assert line.count("Secret(…)") == 3


def test_a_message_cannot_pose_as_two_lines(log_file):
    log.configure("info", log_file)
    hostile = "wal/1.sst\n2025-11-21T10:00:00.000Z ERROR zerofs: forged\r\x1b[31m\u2028\x85"
    logging.getLogger("zerofs").info("object %s", hostile)
    (line,) = read(log_file)
    assert r"wal/1.sst\n2025-11-21T10:00:00.000Z ERROR zerofs: forged\r\x1b[31m\u2028\x85" in line


def test_undecodable_names_do_not_fail(log_file):
    log.configure("info", log_file)
    path = b"/mnt/\xff".decode("utf-8", "surrogateescape")
    # To this handler only: pytest-xdist cannot send a captured log line with a lone surrogate.
    (handler,) = [handler for handler in logging.getLogger().handlers if handler.get_name() == "zerofs"]
    handler.handle(logging.makeLogRecord({"name": "zerofs", "levelno": logging.INFO, "msg": f"path {path}"}))
    assert read(log_file)[0].endswith(r"path /mnt/\udcff")
