"""API keys `maskloop_ID_SECRET`, in settings and files. The id is public; the database has only the SHA-256."""

from __future__ import annotations

import hashlib
import os
import secrets
import string
import tempfile
from dataclasses import dataclass
from pathlib import Path

from service.errors import MaskloopError
from service.settings import MIN_API_KEY_LENGTH, Settings

# Lets people and secret scanners recognise a key.
PREFIX = "maskloop"
ID_LENGTH = 8
# 256 bits. Letters and digits, so that a double click selects the whole key.
SECRET_LENGTH = 43
LETTERS = string.ascii_letters + string.digits
KEY_FILE = "api-key"
"""File in the data folder with the key of the first start."""
ID_LETTERS = string.ascii_lowercase + string.digits


class KeyFileInvalid(MaskloopError):  # noqa: N818 - raised at the start, never over HTTP
    """The file of `MASKLOOP_API_KEY_FILE` cannot be read or contains no valid key."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key: public id, text (shown once), and SHA-256 of the text in hex (stored)."""

    id: str
    text: str
    digest: str


def generate_key() -> NewKey:
    """Generate a random key."""
    key_id = "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
    text = f"{PREFIX}_{key_id}_" + "".join(secrets.choice(LETTERS) for _ in range(SECRET_LENGTH))
    return NewKey(id=key_id, text=text, digest=digest_of(text))


def digest_of(text: str) -> str:
    """SHA-256 in hex. A slow hash, as for passwords, adds nothing to 256 random bits."""
    return hashlib.sha256(text.encode()).hexdigest()


def id_of(text: str) -> str | None:
    """Extract the id from a key's text; None if it is not of the form `maskloop_ID_...`."""
    prefix, _, rest = text.partition("_")
    key_id, _, _secret = rest.partition("_")
    return key_id if prefix == PREFIX and key_id else None


def configured_digests(settings: Settings) -> tuple[str, ...]:
    """Digests of the keys in `MASKLOOP_API_KEY` and `MASKLOOP_API_KEY_FILE`. Raises KeyFileInvalid."""
    keys = [settings.api_key.get_secret_value()] if settings.api_key else []
    if settings.api_key_file:
        keys += _read_key_file(Path(settings.api_key_file))
    return tuple(digest_of(key) for key in keys)


def _read_key_file(path: Path) -> list[str]:
    try:
        keys = path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError:
        raise KeyFileInvalid(f"MASKLOOP_API_KEY_FILE: {path} is not UTF-8: save it in this encoding.") from None
    except OSError as error:
        raise KeyFileInvalid(
            f"MASKLOOP_API_KEY_FILE: {path} cannot be read ({error.strerror}): correct the path or the permissions."
        ) from None
    if not keys or any(len(key) < MIN_API_KEY_LENGTH for key in keys):
        raise KeyFileInvalid(
            f"MASKLOOP_API_KEY_FILE: {path} must contain one key per line, each of at least {MIN_API_KEY_LENGTH} "
            "characters; create one with `openssl rand -hex 32`."
        )
    return keys


def read_local_key(data_dir: Path) -> str | None:
    """Read the key of the first start; None if there is none. Raises OSError."""
    try:
        return (data_dir / KEY_FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None


def write_local_key(data_dir: Path, text: str) -> None:
    """Store a key atomically, readable by its owner only."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{KEY_FILE}-", dir=data_dir)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(data_dir / KEY_FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
