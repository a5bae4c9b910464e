"""Put ids into paths."""

from urllib.parse import quote


def quoted(name: str | int) -> str:
    """Quote an id as one segment of a path, whatever is in it."""
    return quote(str(name), safe="")
