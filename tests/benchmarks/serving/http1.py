"""HTTP/1.1 as a client needs it: the bytes of a request, and answers out of the bytes that come back."""

from dataclasses import dataclass

HEAD_END = b"\r\n\r\n"
PNG = b"\x89PNG\r\n\x1a\n"


class NotHttp(ValueError):  # noqa: N818 - reads as what it is
    """What came is no answer of HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def png(self) -> bytes:
        """The body, or what follows the JSON and the length that Triton puts in front of a tensor."""
        json_bytes = self.headers.get("inference-header-content-length")
        return self.body if json_bytes is None else self.body[int(json_bytes) + 4 :]


def request_head(path: str, headers: dict[str, str], length: int) -> bytes:
    """A POST's head, up to the empty line."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a whole PNG file; None if it is none."""
    if not data.startswith(PNG) or data[12:16] != b"IHDR" or data[-8:-4] != b"IEND":
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


class ResponseParser:
    """Give it what arrives on one connection, on which one request at a time is under way."""

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._status = 0
        self._headers: dict[str, str] | None = None

    def feed(self, data: bytes) -> Response | None:
        """The answer, once it is whole.

        Raises:
            NotHttp: It is none.
        """
        self._arrived += data
        while self._headers is None:
            if not self._read_head():
                return None
        body = self._read_body(self._headers)
        return None if body is None else self._finish(body)

    def end(self) -> Response | None:
        """The answer that ends with its connection, if there is one."""
        if self._headers is None or {"content-length", "transfer-encoding"} & self._headers.keys():
            return None
        return self._finish(bytes(self._arrived))

    def _finish(self, body: bytes) -> Response:
        response = Response(self._status, self._headers or {}, body)
        self.__init__()  # type: ignore[misc]
        return response

    def _read_head(self) -> bool:
        end = self._arrived.find(HEAD_END)
        if end < 0:
            return False
        first, *lines = self._arrived[:end].decode("latin-1").split("\r\n")
        del self._arrived[: end + len(HEAD_END)]
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise NotHttp(f"an answer begins with {first[:60]!r}")
        self._status = int(rest[:3])
        if self._status >= 200:  # below: "go on", and the answer is still to come
            pairs = (line.partition(":") for line in lines)
            self._headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return True

    def _read_body(self, headers: dict[str, str]) -> bytes | None:
        if self._status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        if "content-length" not in headers:
            return None
        length = int(headers["content-length"])
        return bytes(self._arrived[:length]) if len(self._arrived) >= length else None

    def _read_chunks(self) -> bytes | None:
        """All chunks, or None while the last one is not here. Answers are small: each look begins at the first."""
        body, at = bytearray(), 0
        while (line_end := self._arrived.find(b"\r\n", at)) >= 0:
            size = int(self._arrived[at:line_end].split(b";")[0], 16)
            at = line_end + 2
            if len(self._arrived) < at + size + 2:
                return None
            if size == 0:
                return bytes(body)
            body += self._arrived[at : at + size]
            at += size + 2
        return None
