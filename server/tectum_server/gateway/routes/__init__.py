"""The gateway's routes: each reads a request, makes one call, and writes the answer."""
