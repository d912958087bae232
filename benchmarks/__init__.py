"""``make bench``: compare the server with peers and a baseline, on one machine and one PostgreSQL."""
