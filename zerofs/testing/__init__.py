"""Fakes and worlds for tests, shipped with the package: faithful stand-ins for rooms below the one that is tested."""
