"""`make bench`: the server beside its peers and its floors, on one machine and one PostgreSQL."""
