"""What happens to bytes on their way out: compression, then sealing into frames (decision 0001).

Pure: nonces come in, no clock, no store, no trio. zstandard and lz4 are imported here and nowhere else.
"""
