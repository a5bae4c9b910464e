"""Remove the chunks of a PNG that do not affect its pixels, and verify the checksums of the others.

Pillow refuses a file because of a colour profile or a text that is large or damaged, but decodes pixels whose checksum
is wrong. libpng, which browsers use, ignores such a text and refuses such pixels.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks that are used: transparency, orientation, frames. The type of a critical chunk is in upper case.
USED = {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
# Texts in which older programs and Adobe's store the orientation.
ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# Pillow decompresses texts up to this size.
MAX_TEXT_BYTES = 2**20
LONGEST_KEYWORD = 80


def without_metadata(data: bytes) -> bytes:
    """Return a PNG without metadata, apart from its orientation. Data that is not a PNG is returned unchanged.

    Raises ValueError if the checksum of another chunk is wrong.
    """
    if not data.startswith(SIGNATURE):
        return data
    view, parts = memoryview(data), list[memoryview]()
    # `kept` is where the chunks begin that are not yet in `parts`.
    at, kept = len(SIGNATURE), 0
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or not kind.isalpha():
            break
        if not _is_used(kind, view[at + 8 : end - 4]):
            parts.append(view[kept:at])
            kept = end
        elif end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its {kind.decode()} chunk is wrong")
        at = end
    return b"".join([*parts, view[kept:]]) if parts else data


def _is_used(kind: bytes, body: memoryview) -> bool:
    if kind in TEXTS:
        return bytes(body[:LONGEST_KEYWORD]).startswith(ORIENTATION_TEXTS) and _is_short(kind, bytes(body))
    return kind in USED or not kind[0] & 0x20


def _is_short(kind: bytes, text: bytes) -> bool:
    """Whether Pillow would decompress a text."""
    after_keyword = text.partition(b"\0")[2]
    if kind == b"tEXt" or (kind == b"iTXt" and not after_keyword.startswith(b"\1")):
        return True
    # zTXt: method, data. iTXt: flag, method, language, translated keyword, data.
    packed = after_keyword[1:] if kind == b"zTXt" else after_keyword[2:].split(b"\0", 2)[-1]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail
