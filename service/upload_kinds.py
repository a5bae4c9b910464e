"""Recognise what was uploaded instead of a file: wrapped, converted on its way, or something else altogether.

Clients of other services send images as base64, data URLs or JSON, and some tools change the bytes that they send.
"""

from __future__ import annotations

import base64
import binascii
import re

# First bytes of JPEG, PNG, WebP, BMP, TIFF, GIF and ZIP.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"PK\x03\x04")
# What remains of them where a tool drops NUL bytes and line ends; AVIF has its signature behind a length.
STRIPPED = re.compile(rb"\xff\xd8\xff|\x89PNG\x1a|RIFF.{0,4}WEBP|BM|II\*|MM\*|PK\x03\x04|.{0,4}ftypavif", re.DOTALL)
# A file of this size has line ends by chance alone.
MIN_BYTES_WITH_LINE_ENDS = 8192
HEAD_BYTES = 1024
SPACE_AND_QUOTES = b" \t\n\r\f\v\"'"
# What a byte becomes that is not UTF-8; a binary file has hardly any.
REPLACEMENT, MAX_REPLACEMENTS = "\ufffd".encode(), 4
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")

SEND_FILE = "send the bytes of the file itself, as `curl --data-binary @FILE` does"
SEND_ZIP = "send the ZIP of a bundle itself, as `curl --data-binary @FILE` does"
Kind = tuple[str, str]
"""What an upload is, and the remedy. One upload may be a whole body, a part of a form, or a tensor."""
Kinds = tuple[tuple[bytes, str, str], ...]
"""Patterns with kinds."""
# Without leading white space and quotes.
TEXTS: Kinds = (
    (rb"data:[\w.+-]*/?[\w.+-]*[;,]", "is a data URL", f"decode it, and {SEND_FILE}"),
    (rb"[{\[]", "is JSON", f"{SEND_FILE} (/v2/models/seg_bytes/infer takes images as base64 in JSON)"),
    (rb"(https?|s3|gs|file)://", "is an address, and the service fetches none", SEND_FILE),
    (rb"--\S+\s+content-disposition:", "is a form without its Content-Type", "let the HTTP library set that header"),
    (
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg",
        "is an SVG drawing",
        "convert it to PNG",
    ),
    (rb"<!doctype html|<html", "is an HTML page, such as the error of a download", SEND_FILE),
)
FILES: Kinds = (
    (rb"\x1f\x8b", "is compressed with gzip", "unpack it; a compressed body needs the header Content-Encoding: gzip"),
    (rb"PK\x03\x04", "is a ZIP archive", "unpack it; /v1/segment/batch takes several images, as parts named `file`"),
    (rb"%PDF", "is a PDF", "convert its page to PNG"),
    (rb"GIF8", "is a GIF", "convert it to PNG"),
    (
        rb"\x89PNG\r\n\x1a\n.{4}CgBI",
        "is a PNG of an iOS app (CgBI)",
        "convert it with `xcrun pngcrush -revert-iphone-optimizations`",
    ),
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "is a HEIC photograph", "convert it to JPEG"),
    (rb".{4}ftyp(?!avi[fs])", "is a video", "send single frames as JPEG"),
    (rb"\x1aE\xdf\xa3", "is a video", "send single frames as JPEG"),
    (rb"\x93NUMPY", "is a NumPy array", "save it as PNG, or send it as a tensor to /v2/models/seg/infer"),
)


def recognise(data: bytes, remedy: str | None = None) -> str | None:
    """Return what an upload is, and the remedy, to follow "The upload"; None if it is unknown.

    `remedy` replaces those for images and masks.
    """
    text = data[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip(SPACE_AND_QUOTES)
    kind = _damage(data) or _match(TEXTS, text) or _base64(text) or _match(FILES, data) or _plain(text)
    return f"{kind[0]}: {remedy or kind[1]}" if kind else None


def _damage(data: bytes) -> Kind | None:
    if not data.isascii() and STRIPPED.match(data):
        has_line_ends = b"\n" in data or b"\r" in data
        if b"\0" not in data or (len(data) >= MIN_BYTES_WITH_LINE_ENDS and not has_line_ends):
            return "has lost its NUL bytes and line ends, as `curl -d @FILE` removes them", SEND_FILE
    if data[:HEAD_BYTES].count(REPLACEMENT) > MAX_REPLACEMENTS:
        return "was decoded as text on its way, which destroys it", SEND_FILE
    return None


def _match(kinds: Kinds, data: bytes) -> Kind | None:
    return next(
        ((kind, remedy) for pattern, kind, remedy in kinds if re.match(pattern, data, re.IGNORECASE | re.DOTALL)), None
    )


def _plain(text: bytes) -> Kind | None:
    is_plain = bool(text) and text.isascii() and text.decode().isprintable()
    return (f"is the text {text[:40].decode()!r}", SEND_FILE) if is_plain else None


def _base64(text: bytes) -> Kind | None:
    found = BASE64.match(text)
    if found is None:
        return None
    try:
        start = base64.urlsafe_b64decode(found[0][:16].translate(bytes.maketrans(b"+/", b"-_")))
    except binascii.Error:
        return None
    is_file = start.startswith(SIGNATURES) or start[4:12] == b"ftypavif"
    return ("is base64", f"decode it, and {SEND_FILE}") if is_file else None
