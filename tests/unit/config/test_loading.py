"""zerofs.config.load: what a file means, and the one line that says what is wrong with it."""

from pathlib import Path

import pytest

from zerofs.config import load
from zerofs.config.settings import ConfiguredPassword, PasswordCommand, PasswordFile, PasswordPrompt
from zerofs.errors import ConfigError
from zerofs.transform.compression import Codec

ENVIRON = {"HOME": "/home/somebody", "ZEROFS_PASSWORD": "hunter2-hunter2", "XDG_STATE_HOME": "/state"}
SECRET = "sup3r-s3cret-value"

MINIMAL = '[storage]\nurl = "s3://bucket/path"\n'


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "zerofs.toml"

    def write(text):
        path.write_text(text)
        return path

    return write


def complaint(path, environ=ENVIRON):
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None
    return message.removeprefix(f"{path}: ")


def test_defaults(write):
    path = write(MINIMAL)
    settings = load(path, ENVIRON)
    assert settings.path == path
    assert settings.state_dir == Path("/state/zerofs")
    assert settings.cache.dir == Path("/home/somebody/.cache/zerofs")
    assert settings.cache.disk_size_bytes == 10_000_000_000
    assert settings.cache.memory_size_bytes == 250_000_000
    assert settings.storage.url == "s3://bucket/path"
    assert settings.storage.password == PasswordPrompt()
    assert str(settings.filesystem.compression) == "zstd-3"
    assert settings.filesystem.max_size_bytes is None
    fuse = settings.servers.fuse
    assert (fuse.mountpoint, fuse.read_only, fuse.allow_other, fuse.writeback) == (None, False, False, True)
    assert settings.aws.endpoint is None
    assert settings.aws.access_key_id is None
    assert not settings.aws.allow_http
    assert settings.lsm.memtable_size_bytes == 16_000_000
    assert settings.lsm.chunk_sst_size_bytes == 64_000_000
    assert settings.lsm.sync_interval_s == 5.0


def test_every_key(write):
    settings = load(
        write(
            """
            [cache]
            dir = "$CACHE/zerofs"
            disk_size_gb = 1.5
            memory_size_gb = 2
            [storage]
            url = "file:///srv/${VOLUME:-main}"
            encryption_password = "${ZEROFS_PASSWORD}"
            [filesystem]
            compression = "lz4"
            max_size_gb = 0.001
            [servers.fuse]
            mountpoint = "/mnt/$$x"
            read_only = true
            allow_other = true
            writeback = false
            [aws]
            endpoint = "http://127.0.0.1:9000"
            access_key_id = "id"
            secret_access_key = "key"
            default_region = "eu-west-1"
            allow_http = true
            [lsm]
            memtable_size_mb = 0.065536
            chunk_sst_size_mb = 0.262144
            sync_interval_s = 0.5
            """
        ),
        {**ENVIRON, "CACHE": "/var/cache"},
    )
    assert settings.cache.dir == Path("/var/cache/zerofs")
    assert settings.cache.disk_size_bytes == 1_500_000_000
    assert settings.cache.memory_size_bytes == 2_000_000_000
    assert settings.storage.url == "file:///srv/main"
    assert isinstance(settings.storage.password, ConfiguredPassword)
    assert settings.storage.password.text.reveal() == b"hunter2-hunter2"
    assert settings.filesystem.compression.codec is Codec.LZ4
    assert settings.filesystem.max_size_bytes == 1_000_000
    fuse = settings.servers.fuse
    assert (fuse.mountpoint, fuse.read_only, fuse.allow_other, fuse.writeback) == (Path("/mnt/$x"), True, True, False)
    aws = settings.aws
    assert (aws.endpoint, aws.access_key_id, aws.secret_access_key) == ("http://127.0.0.1:9000", "id", "key")
    assert (aws.default_region, aws.allow_http) == ("eu-west-1", True)
    assert settings.lsm.memtable_size_bytes == 65536
    assert settings.lsm.chunk_sst_size_bytes == 262144
    assert settings.lsm.sync_interval_s == 0.5


def test_relative_paths_count_from_the_file_and_tilde_is_home(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    path = write(MINIMAL + 'password_file = "secret"\n[cache]\ndir = "~/cache"\n[servers.fuse]\nmountpoint = "mnt"\n')
    settings = load(path, ENVIRON)
    assert settings.storage.password == PasswordFile(path=path.parent / "secret")
    assert settings.servers.fuse.mountpoint == path.parent / "mnt"
    assert settings.cache.dir == Path("/home/me/cache")


def test_password_command_is_split_without_a_shell(write):
    settings = load(write(MINIMAL + "password_command = \"pass show 'my volume' ; rm\"\n"), ENVIRON)
    assert settings.storage.password == PasswordCommand(argv=("pass", "show", "my volume", ";", "rm"))


def test_settings_never_show_a_secret(write):
    text = MINIMAL + f'encryption_password = "{SECRET}"\n[aws]\naccess_key_id = "{SECRET}"\n'
    settings = load(write(text + f'secret_access_key = "{SECRET}"\n'), ENVIRON)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    settings = load(write(MINIMAL + f'password_command = "echo {SECRET}"\n'), ENVIRON)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[storage]\nurl = 3", "[storage] url must be text in quotes, not a number"),
        ("[storage]\nurl = true", "[storage] url must be text in quotes, not true or false"),
        ("[storage]\nurl = 2020-01-01", "[storage] url must be text in quotes, not a date or time"),
        ("[storage]\nurl = ['s3://b']", "[storage] url must be text in quotes, not a list"),
        ("", "[storage] is missing"),
        ("[storage]\npassword_file = 'x'", "[storage] url is missing"),
        ("storage = 's3://b'", "[storage] must be a table, not text"),
        (MINIMAL + "[cache]\ndisk_size_gb = '10'", "[cache] disk_size_gb must be a number, not text"),
        (MINIMAL + "[cache]\ndisk_size_gb = true", "[cache] disk_size_gb must be a number, not true or false"),
        (MINIMAL + "[cache]\ndisk_size_gb = 0", "[cache] disk_size_gb must be greater than 0"),
        (MINIMAL + "[lsm]\nchunk_sst_size_mb = 256.5", "[lsm] chunk_sst_size_mb must be at most 256"),
        (MINIMAL + "[lsm]\nmemtable_size_mb = 4e6", "[lsm] memtable_size_mb must be at most 256"),
        (MINIMAL + "[lsm]\nmemtable_size_mb = 0", "[lsm] memtable_size_mb must be greater than 0"),
        (MINIMAL + "[cache]\ndisk_size_gb = -1.5", "[cache] disk_size_gb must be greater than 0"),
        (MINIMAL + "[cache]\ndisk_size_gb = inf", "[cache] disk_size_gb must be a finite number"),
        (MINIMAL + "[cache]\ndisk_size_gb = nan", "[cache] disk_size_gb must be a finite number"),
        (MINIMAL + "[cache]\ndir = ''", "[cache] dir must not be empty"),
        (MINIMAL + "[servers.fuse]\nread_only = 'yes'", "[servers.fuse] read_only must be true or false, not text"),
        (MINIMAL + "[servers.fuse]\nread_only = 1", "[servers.fuse] read_only must be true or false, not a number"),
        (MINIMAL + "[servers]\nfuse = 1", "[servers.fuse] must be a table, not a number"),
        (MINIMAL + "[[cache]]\ndir = 'x'", "[cache] must be a table, not a list"),
        ("[storage]\nurl = 'ftp://x/y'", "[storage] url must be s3://bucket/path, file:///path or memory://"),
        (
            "[storage]\nurl = 's3://id:key@bucket/path'",
            "[storage] url must not hold credentials; they belong in [aws] or the environment",
        ),
        (
            MINIMAL + "[filesystem]\ncompression = 'zstd-23'",
            "[filesystem] compression must be 'zstd-{level}' with level 1-22, or 'lz4'",
        ),
        (
            MINIMAL + "[filesystem]\ncompression = 'gzip'",
            "[filesystem] compression must be 'zstd-{level}' with level 1-22, or 'lz4'",
        ),
    ],
)
def test_wrong_values(write, text, expected):
    assert complaint(write(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[storage]\nurll = 's3://b'",
            '[storage] has no key "urll"; the nearest known one is "url" in [storage]',
        ),
        (
            MINIMAL + "encryption_pasword = 'x'",
            '[storage] has no key "encryption_pasword"; the nearest known one is "encryption_password" in [storage]',
        ),
        (
            MINIMAL + "memory_size_gb = 1.0",
            '[storage] has no key "memory_size_gb"; the nearest known one is "memory_size_gb" in [cache]',
        ),
        (
            "mountpoint = '/mnt'\n" + MINIMAL,
            'there is no key "mountpoint" outside a table; the nearest known one is "mountpoint" in [servers.fuse]',
        ),
        (
            MINIMAL + "[servers]\nmountpoint = '/mnt'",
            '[servers] has no key "mountpoint"; the nearest known one is "mountpoint" in [servers.fuse]',
        ),
        (MINIMAL + "[chache]\ndir = 'x'", "there is no table [chache]; the nearest known one is [cache]"),
        (
            MINIMAL + "[servers.fues]\nread_only = true",
            "there is no table [servers.fues]; the nearest known one is [servers.fuse]",
        ),
        (
            MINIMAL + "[servers.fuse]\nxyzzy = true",
            '[servers.fuse] has no key "xyzzy"; the nearest known one is "read_only" in [servers.fuse]',
        ),
    ],
)
def test_unknown_names_are_met_with_the_nearest_known_one(write, text, expected):
    assert complaint(write(text)) == expected


def test_an_unknown_key_is_told_before_the_key_that_is_missing_for_it(write):
    assert '"urll"' in complaint(write("[storage]\nurll = 's3://b'\n[cache]\ndisk_size_gb = 'x'"))


def test_unset_variable_names_variable_table_and_key(write):
    text = complaint(write(MINIMAL + 'encryption_password = "${NOT_THERE}"'), {"HOME": "/h"})
    assert text.startswith("[storage] encryption_password: the environment variable NOT_THERE is not set")


def test_unset_home_is_told_for_the_default_cache_directory(write):
    assert complaint(write(MINIMAL), {}).startswith("[cache] dir: the environment variable HOME is not set")


@pytest.mark.parametrize("table", ["aws", "storage"])
def test_variables_are_expanded_in_every_string(write, table):
    text = MINIMAL.replace('"s3://bucket/path"', '"$URL"') + '[aws]\ndefault_region = "$REGION"\n'
    settings = load(write(text), {**ENVIRON, "URL": "memory://", "REGION": "mars"})
    assert (settings.storage.url, settings.aws.default_region) == ("memory://", "mars")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("encryption_password = 'a'\npassword_file = 'b'", "both encryption_password and password_file"),
        ("encryption_password = 'a'\npassword_command = 'b'", "both encryption_password and password_command"),
        ("password_file = 'a'\npassword_command = 'b'", "both password_file and password_command"),
        ('password_command = "\'open"', "password_command is not a command line"),
        ("password_command = ' '", "password_command is not a command line"),
        ("[aws]\naccess_key_id = 'a'", "access_key_id and secret_access_key go together"),
        ("[aws]\nendpoint = 'http://127.0.0.1:9000'", "set allow_http = true"),
    ],
)
def test_contradictions(write, keys, expected):
    assert expected in complaint(write(MINIMAL + keys))


@pytest.mark.parametrize(
    "text",
    [
        f"[storage]\nurl = 's3://b'\nencryption_password = ['{SECRET}']",
        f"[storage]\nurl = 's3://{SECRET}@b'",
        f"[storage]\nurl = '{SECRET}'",
        f"[storage]\nurl = 's3://b'\nencryption_password = '{SECRET}'\npassword_file = '{SECRET}'",
        f"[storage]\nurl = 's3://b'\nencryption_password = '$X{SECRET}'",
        f"[storage]\nurl = 's3://b'\nencryption_password = '{SECRET}$'",
        f"[storage]\nurl = 's3://b'\nencryption_password = '{SECRET}\n",
        f"[storage]\nurl = 's3://b'\nencryption_password = {SECRET}\n",
        f"[storage]\nurl = 's3://b'\n[aws]\nsecret_access_key = '{SECRET}'",
        f"[storage]\nurl = 's3://b'\n[filesystem]\ncompression = '{SECRET}'",
        f"[storage]\nurl = 's3://b'\n[aws]\nendpoint = 'https://a:{SECRET}@host'",
    ],
)
def test_no_message_shows_a_value(write, text):
    assert SECRET not in complaint(write(text)).replace(f"X{SECRET}", "")


def test_a_password_in_the_environment_need_not_be_text(write):
    settings = load(write(MINIMAL + 'encryption_password = "$BYTES"'), {**ENVIRON, "BYTES": "secret\udcff"})
    assert settings.storage.password.text.reveal() == b"secret\xff"


def test_files_that_cannot_be_read(tmp_path):
    assert complaint(tmp_path / "missing.toml") == "cannot be read: No such file or directory"
    assert complaint(tmp_path) == "cannot be read: Is a directory"
    path = tmp_path / "zerofs.toml"
    path.write_bytes(b"\xff\xfe")
    assert complaint(path) == "is not UTF-8 text"
    path.write_text("[storage\n")
    assert complaint(path).startswith("is not TOML: ")
    path.write_text("a = " + "[" * 100_000)
    assert complaint(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert complaint(path) == "is too large to be a configuration file"
