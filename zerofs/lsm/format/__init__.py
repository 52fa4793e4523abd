"""Every byte that the engine stores: pure codecs, bytes in, values out."""
