"""HTTP/1.1 below the API."""
