"""The FUSE frontend: requests of the Linux kernel, through the binding pyfuse3, become calls of `zerofs.fs`.

`mount.serve` is the door, `operations` the translation, `convert` its vocabulary, `mountpoint` what must hold before
and after, `stay_awake` why a small request is quick. Nothing here decides anything about files, and pyfuse3 is imported
nowhere else.
"""
