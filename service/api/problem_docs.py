"""How OpenAPI shows problems: which statuses a route may answer with, and what their bodies hold."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic import BaseModel, Field

from service.api.problems import MEDIA_TYPE
from service.errors import MaskloopError


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(description="urn:maskloop:problem:SLUG; stable")
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do about it, for a person")


# FastAPI's own refusal of parameters, as `problems.py` writes it.
INVALID_REQUEST = "The request is not valid (invalid-request)"


def problem_docs(*errors: type[MaskloopError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these errors, parameters that are refused, and a fault of ours."""
    titles: dict[int, list[str]] = defaultdict(list)
    titles[422].append(INVALID_REQUEST)
    every: tuple[type[MaskloopError], ...] = (*errors, MaskloopError)
    for error in every:
        titles[error.status].append(f"{error.title} ({error.slug})")
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": "; ".join(said), "content": content} for status, said in sorted(titles.items())}
