"""A project for the tests of the ASGI handler, and what drives it inside one process.

``python -m tests.asgi FILE`` runs all of it in a process with these settings, and writes the results.
"""
