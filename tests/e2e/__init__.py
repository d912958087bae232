"""The server as its users meet it: browsers, generated clients, other programs, and many processes."""
