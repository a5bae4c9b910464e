"""The caller of a request: the holder of a key, or an anonymous client."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import KeyMissing, ScopeMissing
from service.scopes import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Identity and permissions."""

    id: str
    """For the rate limit: the id of the key, or the address of an anonymous client."""
    name: str | None
    """Name of the key, for logs; None for anonymous clients."""
    scopes: frozenset[Scope]
    rate_per_minute: int
    """Maximum requests per minute. 0: no limit."""

    def require(self, scope: Scope) -> None:
        """Check for a scope. Raises KeyMissing if the caller is anonymous, else ScopeMissing."""
        if scope in self.scopes:
            return
        if self.name is None:
            raise KeyMissing(
                f"This call needs a key with the scope {scope}: send it as `Authorization: Bearer KEY`. On the machine "
                "of the service, `maskloop keys show` prints the key of the first start."
            )
        raise ScopeMissing(
            f"The key {self.name!r} lacks the scope {scope}; it has {', '.join(sorted(self.scopes)) or 'none'}. Use "
            f"another key, or create one with `maskloop keys create NAME --scope {scope}`."
        )
