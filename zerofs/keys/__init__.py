"""From a password to the keys of a volume: the sidecar `zerofs.key`, its slots, and the keyring (decision 0007).

`vault` is the door. Nothing here decides whether a volume may be created: that is the business of `volume`.
"""
