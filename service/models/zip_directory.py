"""The end of a zip, looked at before `zipfile` reads the rest: it takes a directory of any size into memory."""

from __future__ import annotations

import struct
from typing import BinaryIO

from service.errors import BundleInvalid

# As in the standard's sections 4.3.14 to 4.3.16. The record at the end may have a comment behind it.
END, END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\5\6"
LOCATOR, LOCATOR_SIGNATURE = struct.Struct("<4sLQL"), b"PK\6\7"
LONGEST_COMMENT = (1 << 16) - 1


def check_directory(packed: BinaryIO, *, max_entries: int, max_bytes: int) -> None:
    """Hold what the end of a zip says about its directory against limits; leaves the file at its start.

    A zip of the 64-bit kind is refused: what a bundle may weigh needs none, and it would say the numbers elsewhere.

    Raises:
        BundleInvalid: No zip, or a directory of more entries or bytes than a bundle needs.
    """
    size = packed.seek(0, 2)
    packed.seek(max(0, size - END.size - LONGEST_COMMENT - LOCATOR.size))
    tail = packed.read()
    packed.seek(0)
    # `zipfile` prefers a record without a comment at the very end, as here.
    bare = tail[-END.size :]
    at = len(tail) - END.size if bare[:4] == END_SIGNATURE and bare[-2:] == b"\0\0" else tail.rfind(END_SIGNATURE)
    if at < 0 or len(tail) - at < END.size:
        raise BundleInvalid("The upload is not a readable zip (it has no end): zip the bundle folder again.")
    if tail[max(0, at - LOCATOR.size) : at].startswith(LOCATOR_SIGNATURE):
        raise BundleInvalid("The upload is a 64-bit zip: zip the bundle folder from files, not from a stream.")
    _, _, _, _, entries, directory_bytes, _, _ = END.unpack_from(tail, at)
    if entries > max_entries or directory_bytes > max_bytes:
        raise BundleInvalid(
            f"The zip lists {entries} entries in {directory_bytes} bytes: zip nothing but the files of one bundle."
        )
