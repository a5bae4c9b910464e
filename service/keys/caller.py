"""Who asks: a key's holder, or somebody without a key."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import KeyMissing, ScopeMissing
from service.scopes import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do.

    Attributes:
        id: By which their requests are counted.
        name: For logs; None for somebody without a key.
        scopes: What they may do.
        rate_per_minute: Requests that they may send; 0: any number.
    """

    id: str
    name: str | None
    scopes: frozenset[Scope]
    rate_per_minute: int

    def require(self, scope: Scope) -> None:
        """Let them pass, or not.

        Raises:
            KeyMissing: They came without a key, and this needs one.
            ScopeMissing: Their key is good, and not for this.
        """
        if scope in self.scopes:
            return
        if self.name is None:
            raise KeyMissing(f"This needs a key with the scope {scope}: send it as `Authorization: Bearer KEY`.")
        raise ScopeMissing(
            f"The key {self.name!r} has not the scope {scope}, only {', '.join(sorted(self.scopes)) or 'none'}: use "
            f"another, or make one with `python -m service keys create NAME --scope {scope}`."
        )
