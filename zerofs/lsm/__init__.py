"""The log-structured merge tree over an object store. `lsm.engine` is the only door."""
