"""The task-management API; a request's way through it starts in ``routes.py``."""

__version__ = "0.2.0"
