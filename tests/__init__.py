"""The specification, as tests: one module for each behaviour."""
