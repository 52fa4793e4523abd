"""Protocol servers: each turns requests of one protocol into calls of `zerofs.fs` and knows no other frontend."""
