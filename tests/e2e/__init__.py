"""The server as strangers meet it: browsers, generated clients, made-up requests."""
