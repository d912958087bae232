"""The task-management API; a request's way through it starts in ``routes.py``."""
