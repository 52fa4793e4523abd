"""The command line: arguments in, exit code out. The only room that prints, asks, exits or handles signals.

`main` is the entry point, `app` declares the commands; each command's work stands in a module of its own, imported
when it is used, so that a query does not wait for libraries that it does not need.
"""
