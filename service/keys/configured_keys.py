"""Keys that come from outside, where nobody can run a command: a setting, or a file such as a container's secret."""

from __future__ import annotations

from pathlib import Path

from service.errors import MaskloopError
from service.keys.api_key import digest_of
from service.settings import SHORTEST_API_KEY, Settings


class KeyUnusable(MaskloopError):  # noqa: N818 - reads as what it is; said at the start, never over HTTP
    """The file that should hold keys holds none."""


def configured_digests(settings: Settings) -> tuple[str, ...]:
    """The hashes of the keys of `MASKLOOP_API_KEY` and `MASKLOOP_API_KEY_FILE`.

    The file is read each time: several lines are several keys, so that one can come before the other goes.

    Raises:
        KeyUnusable: The file cannot be read, or holds no key, or one that is too short.
    """
    keys = [settings.api_key.get_secret_value()] if settings.api_key else []
    if settings.api_key_file:
        keys += _lines(Path(settings.api_key_file))
    return tuple(digest_of(key) for key in keys)


def _lines(path: Path) -> list[str]:
    try:
        keys = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnusable(f"MASKLOOP_API_KEY_FILE: {path} cannot be read ({error}).") from None
    if not keys or any(len(key) < SHORTEST_API_KEY for key in keys):
        raise KeyUnusable(
            f"MASKLOOP_API_KEY_FILE: {path} should hold a key a line, each of {SHORTEST_API_KEY} characters or more: "
            "`openssl rand -hex 32` makes one."
        )
    return keys
