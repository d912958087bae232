"""Functions that run the SQL statements, which are built once; the first argument is the database."""
