"""`make bench`: the server beside its peers and its baselines, on one machine and one PostgreSQL."""
