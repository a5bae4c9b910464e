"""Content negotiation: choose a media type by the Accept header."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import NotAcceptable


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """Choose a media type by RFC 9110, section 12.5.1; of equal quality, the first of `offers`.

    The quality of an offer is that of the most specific range that matches it. A missing or empty header accepts
    anything.

    Raises:
        NotAcceptable: No range matches any offer with a quality above 0.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = dict(_range(part) for part in accept.split(",") if part.strip())
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"Accept: {accept!r} matches none of {', '.join(offers)}: request one of these.")
    return best


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return media_range, _number(value)
    return media_range, 1.0


def _number(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _quality(offer: str, ranges: dict[str, float]) -> float:
    for candidate in (offer, f"{offer.split('/', maxsplit=1)[0]}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0
