"""What a call sends and how its answer is read, apart from the client that sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)

JSON_TYPE, BYTES_TYPE = "application/json", "application/octet-stream"
Params = Mapping[str, str | int | float | bool | Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form: its name for the service, and its path or its bytes."""

    name: str
    content: Path | bytes

    @classmethod
    def of(cls, file: Path | str | Upload) -> Upload:
        """Return the upload of a file."""
        return file if isinstance(file, Upload) else cls(Path(file).name, Path(file))

    def read(self) -> bytes:
        """Return its bytes. Raises OSError."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request without server and key."""

    method: str
    path: str
    """Below the server, with its variables filled in and quoted."""
    params: Params = field(default_factory=dict)
    """Query; None: left out."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    form: Sequence[Upload] = ()
    """Files, each a part `file` of a form. They are read from disk while they are sent."""
    repeatable: bool = False
    """Sending it twice does what sending it once does, so that it is sent again after a lost answer."""
    timeout_s: float | None = None
    """Longest time without a byte from the service; None: that of the client."""

    @contextmanager
    def arguments(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments of httpx's `build_request`; the files are open until the end. Raises OSError."""
        given: dict[str, Any] = {"method": self.method, "url": self.path, "headers": dict(self.headers)}
        given["params"] = {name: value for name, value in self.params.items() if value is not None}
        with ExitStack() as stack:
            if self.form:
                given["files"] = [("file", (upload.name, _opened(upload, stack), BYTES_TYPE)) for upload in self.form]
            elif self.content is not None:
                given["content"] = self.content
            if self.timeout_s is not None:
                given["timeout"] = self.timeout_s
            yield given


def _opened(upload: Upload, stack: ExitStack) -> Any:
    content = upload.content
    return content if isinstance(content, bytes) else stack.enter_context(content.open("rb"))


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request with one answer."""

    request: Request
    parse: Callable[[httpx.Response], T]


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """A request whose answer is one JSON document per line, each read as it arrives."""

    request: Request
    parse_line: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """A list that comes in pages: `page(cursor)` asks for one and gets its entries and the cursor of the next one."""

    page: Callable[[str | None], Call[tuple[Sequence[T], str | None]]]


def model_call(answer: type[Answer], request: Request) -> Call[Answer]:
    """Return a call whose answer is a JSON object."""
    return Call(request, lambda response: answer.model_validate_json(response.content))


def dict_call(request: Request) -> Call[dict[str, Any]]:
    """Return a call whose answer is a JSON object that the client does not describe further."""
    return Call(request, _dict)


def text_call(request: Request) -> Call[str]:
    """Return a call whose answer is a text."""
    return Call(request, lambda response: response.text)


def bytes_call(request: Request) -> Call[bytes]:
    """Return a call whose answer is a file."""
    return Call(request, lambda response: response.content)


def json_body(value: Any) -> tuple[bytes, dict[str, str]]:
    """Return content and headers of a JSON body."""
    return json.dumps(value).encode(), {"Content-Type": JSON_TYPE}


def _dict(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()
    return found
