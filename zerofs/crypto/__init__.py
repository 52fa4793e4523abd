"""Cryptographic primitives: secrets, AEAD, key derivation, boxes.

Pure functions of their arguments: nonces, salts and keys come in, nothing here draws entropy. What the keys mean, and
which bytes are bound to which place, is the business of `transform` and `keys`. OpenSSL, libsodium and Argon2 are
imported here and nowhere else.
"""
