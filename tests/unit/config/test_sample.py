"""The sample configuration: equal to the kept file, and equal to the defaults."""

import re
from dataclasses import replace
from pathlib import Path

from zerofs.config import load, schema
from zerofs.config.sample import reference, sample_config

ROOT = Path(__file__).parents[3]
ENVIRON = {"HOME": "/home/me", "ZEROFS_PASSWORD": "hunter2-hunter2"}


def test_the_kept_file_is_what_init_writes():
    assert (ROOT / "zerofs.example.toml").read_text() == sample_config(), "run: make docs"


def test_it_loads_to_the_defaults(tmp_path):
    sample, minimal = tmp_path / "sample.toml", tmp_path / "minimal.toml"
    sample.write_text(sample_config())
    minimal.write_text(
        '[storage]\nurl = "s3://bucket/path"\nencryption_password = "hunter2-hunter2"\n'
        '[servers.fuse]\nmountpoint = "/mnt/zerofs"\n'
    )
    assert replace(load(sample, ENVIRON), path=minimal) == load(minimal, ENVIRON)


def test_the_commented_keys_are_valid_too(tmp_path):
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", sample_config())
    text = re.sub(r"(?m)^(encryption_password|password_command) = .*$", "", text)
    path = tmp_path / "all.toml"
    path.write_text(text)
    environ = {**ENVIRON, "ZEROFS_ACCESS_KEY_ID": "id", "ZEROFS_SECRET_ACCESS_KEY": "key"}
    settings = load(path, environ)
    assert settings.aws.allow_http
    assert settings.filesystem.max_size_bytes == 100_000_000_000


def test_every_key_stands_in_sample_and_reference():
    for name, table in schema.tables().items():
        assert f"[{name}]" in sample_config()
        for key in schema.keys(table):
            assert key.description.endswith(".")
            assert re.search(rf"(?m)^(# )?{key.name} = ", sample_config())
            assert f"| `{key.name}` |" in reference()
