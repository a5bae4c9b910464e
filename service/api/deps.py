"""What endpoints ask for: the state of the process, and the encoded image in a request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from service.errors import BadInput
from service.state import State

BINARY = {"schema": {"type": "string", "format": "binary"}}
MULTIPART = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}


def upload_docs(*media_types: str) -> dict[str, Any]:
    """How OpenAPI shows a body that is one file: as it is, or as `file` of a form."""
    content: dict[str, Any] = dict.fromkeys(media_types, BINARY)
    return {"requestBody": {"required": True, "content": {**content, "multipart/form-data": MULTIPART}}}


IMAGE_DOCS = upload_docs("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff")


def get_state(request: Request) -> State:
    """The state that the lifespan opened."""
    state: State = request.state.maskloop
    return state


async def read_upload(request: Request) -> bytes:
    """The file in a request: its body, or the part `file` of a form.

    Of the content type only `multipart/form-data` matters: what the bytes are is seen by their beginning.

    Raises:
        BadInput: The body is empty, or the form holds no file.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=8) as form:
            part = form.get("file")
            data = await part.read() if isinstance(part, UploadFile) else b""
    else:
        data = await request.body()
    if not data:
        raise BadInput("The body is empty: send the file itself, or a form with a part named `file`.")
    return data


StateOf = Annotated[State, Depends(get_state)]
Upload = Annotated[bytes, Depends(read_upload)]
