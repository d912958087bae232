"""Request handlers: one class for each path, one short method for each HTTP verb."""
