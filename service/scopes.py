"""Scopes: what a key allows.

    predict      segment images
    contribute   add images and masks to the pool; read or delete one by its id
    train        start, watch and cancel training runs; together with contribute, list the pool
    admin        upload, activate and roll back models; change the class list

No scope includes another.
"""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["predict", "contribute", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# Scopes that callers without a key may have.
ANONYMOUS_SCOPES: tuple[Scope, ...] = ("predict", "contribute")


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse `all` or comma-separated scopes, in the order of `SCOPES`. Raises ValueError for an unknown one."""
    named = {part.strip().lower() for part in text.split(",") if part.strip()}
    if named == {"all"}:
        return SCOPES
    if unknown := sorted(named.difference(SCOPES)):
        raise ValueError(f"unknown scope {', '.join(unknown)}; choose some of {','.join(SCOPES)}, or all")
    return tuple(scope for scope in SCOPES if scope in named)
