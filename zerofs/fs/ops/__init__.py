"""One module for each family of system calls. A verb reads, checks, changes and commits; see `context`."""
