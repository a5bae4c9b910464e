"""A key as text: `maskloop_ID_SECRET`. The id names it in the open; of the whole only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import string
from dataclasses import dataclass

# So that a person, or a program that looks for leaked secrets, sees what it is.
PREFIX = "maskloop"
ID_LENGTH = 8
# 43 of 62 letters are 256 bits. No sign among them, so that a double click takes all of it.
SECRET_LENGTH = 43
LETTERS = string.ascii_letters + string.digits
ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that nobody has seen yet.

    Attributes:
        id: Its public part.
        text: All of it; it is shown once.
        digest: What is kept.
    """

    id: str
    text: str
    digest: str


def make_key() -> NewKey:
    """A new key, from the system's source of randomness."""
    key_id = "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
    text = f"{PREFIX}_{key_id}_" + "".join(secrets.choice(LETTERS) for _ in range(SECRET_LENGTH))
    return NewKey(id=key_id, text=text, digest=digest_of(text))


def digest_of(text: str) -> str:
    """SHA-256 in hex: enough for 256 random bits, which nobody guesses; a slow hash is for what people think up."""
    return hashlib.sha256(text.encode()).hexdigest()


def id_of(text: str) -> str | None:
    """The id that a text claims; None where it does not look like a key of ours."""
    prefix, _, rest = text.partition("_")
    key_id, _, _secret = rest.partition("_")
    return key_id if prefix == PREFIX and key_id else None
