"""What a caller may do. No scope includes another: a key that swaps models need not see anybody's images.

    predict      segment images
    contribute   put images and masks into the pool, and fetch or delete one by its id
    train        start, watch and cancel runs; with contribute, list the pool
    admin        bring, activate and remove models

Which call needs which stands at the routes; a test holds the whole list.
"""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["predict", "contribute", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """`all`, or some of the scopes with commas between, in the order of `SCOPES`.

    Raises:
        ValueError: There is no such scope.
    """
    named = {part.strip().lower() for part in text.split(",") if part.strip()}
    if named == {"all"}:
        return SCOPES
    if unknown := sorted(named.difference(SCOPES)):
        raise ValueError(f"no scope {', '.join(unknown)}: choose some of {','.join(SCOPES)}, or all")
    return tuple(scope for scope in SCOPES if scope in named)
