"""The task-management API; ``routes.py`` is the place to start reading."""

__version__ = "0.2.0"
