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
ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
# Pillow decompresses texts up to this size.
MAX_TEXT_BYTES = 2**20
LONGEST_KEYWORD = 80
# The usual 8 KiB in each make 800 MB; each costs a microsecond.
MAX_CHUNKS = 100_000


def is_of_ios(data: bytes) -> bool:
    """Whether a file is a PNG as Xcode writes it into apps (CgBI), which other programs cannot decode."""
    return data.startswith(SIGNATURE) and data[12:16] == b"CgBI"


def without_metadata(data: bytes) -> bytes:
    """Return a PNG without metadata, apart from its orientation. Data that is not a PNG is returned unchanged.

    Raises ValueError if the checksum of another chunk is wrong, or if there are too many chunks.
    """
    if not data.startswith(SIGNATURE):
        return data
    # `kept` is where the chunks begin that are not yet in `used`.
    view, used, at, kept = memoryview(data), bytearray(), len(SIGNATURE), 0
    # Of each, only the first is read: a file of 20 MB could hold 20,000 that decompress to 1 MiB each.
    texts, chunks = set(ORIENTATION_TEXTS), 0
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or not kind.isalpha():
            break
        if (chunks := chunks + 1) > MAX_CHUNKS:
            raise ValueError(f"it has more than {MAX_CHUNKS} chunks")
        if not _is_used(kind, view[at + 8 : end - 4], texts):
            used += view[kept:at]
            kept = end
        elif end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its {kind.decode()} chunk is wrong")
        at = end
    return bytes(used + view[kept:]) if used else data


def _is_used(kind: bytes, body: memoryview, texts: set[bytes]) -> bool:
    """Whether a chunk is used; the keyword of a text is removed from `texts`."""
    if kind not in TEXTS:
        return kind in USED or not kind[0] & 0x20
    keyword = bytes(body[:LONGEST_KEYWORD]).partition(b"\0")[0]
    if keyword not in texts:
        return False
    texts.remove(keyword)
    return _is_short(kind, bytes(body))


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
