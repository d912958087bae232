"""The HTTP/1.1 server that the API runs on."""
