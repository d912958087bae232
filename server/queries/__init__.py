"""The statements, built once, as plain functions that take the database first."""
