"""The server on its worst day: real parts, broken on purpose, and figures of what that costs (docs/guarantees.md)."""
