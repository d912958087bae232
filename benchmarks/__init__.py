"""`make bench`: the server next to its peers and its baseline, on one machine and one PostgreSQL."""
