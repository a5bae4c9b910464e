"""Ways in which Label Studio writes the path of an image, and the names that the image can have outside of it.

| as written                                     | also tried                         |
|------------------------------------------------|------------------------------------|
| /data/upload/3/1a2b3c4d-field_1.png            | field_1.png                        |
| /data/local-files/?d=photographs/field%202.jpg | photographs/field 2.jpg            |
| s3://bucket/field%202.jpg, https://host/f.png  | field 2.jpg, f.png                 |
"""

import re
from urllib.parse import parse_qs, unquote, urlsplit

UPLOAD = re.compile(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)")
"""Prefix that Label Studio gives an uploaded file."""


def image_spellings(written: str) -> list[str]:
    """The path as it is written, then other spellings, the most likely first."""
    spellings = [written]
    if "?" in written or "%" in written or "://" in written:
        try:
            parts = urlsplit(written)
            asked = parse_qs(parts.query)
        except ValueError:
            return spellings
        spellings += asked.get("d", []) + asked.get("fileuri", []) + [unquote(parts.path)]
    spellings += [UPLOAD.sub(r"\1", each) for each in spellings]
    return [each for each in dict.fromkeys(spellings) if each.strip("/")]
