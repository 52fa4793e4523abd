"""Where objects live: one protocol (`api`), three stores, and decorators that retry, count and break things.

The room knows names and bytes. It knows nothing of keys, formats or files, and everything that it is given is already
sealed. Its door is `api` (the protocol), `open` (URL to store), `conditional` and `probe`.
"""
