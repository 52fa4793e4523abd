"""Byte layouts of the filesystem's rows: pure, without world, store or trio. Every byte: docs/format/records.md."""
