"""The least that a request can cost with the parts that this server uses."""
