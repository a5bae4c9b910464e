"""Demonstration of the whole loop on one machine: train, serve, collect images, retrain, swap the model.

It uses Maskloop as any user can: it starts the three programs as subprocesses, without importing them, and sends HTTP
requests.
"""


class DemoError(Exception):
    """The demonstration cannot continue; the message states the remedy."""
