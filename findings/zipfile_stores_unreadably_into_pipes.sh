#!/usr/bin/env bash
# One would guess: a ZIP archive that Python's zipfile writes to a pipe can be read from a pipe, whatever the compression.
# True: an entry without compression has its size only after its content, so a program that reads from a pipe cannot find
# its end and refuses the archive. Deflated at level 0, which does not compress either, it can be read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet stream-unzip==0.0.101
"$work/venv/bin/python" - <<'PYTHON'
import io
import os
import platform
import zipfile

from stream_unzip import UnzipError, stream_unzip


def piped(kind, level):
    """An archive with two entries, as it comes out of a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe, zipfile.ZipFile(pipe, "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(zipfile.ZipInfo(name), b"pixels", kind, level)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def outcome(packed):
    try:
        return [(name.decode(), b"".join(chunks)) for name, _, chunks in stream_unzip([packed])]
    except UnzipError as error:
        return type(error).__name__


print("Python", platform.python_version(), "stream-unzip 0.0.101")
stored, deflated = piped(zipfile.ZIP_STORED, None), piped(zipfile.ZIP_DEFLATED, 0)
for name, packed in (("stored", stored), ("deflated, level 0", deflated)):
    assert zipfile.ZipFile(io.BytesIO(packed)).testzip() is None
    print(f"  {name}: read from a pipe: {outcome(packed)}")
if outcome(stored) != "NotStreamUnzippable" or len(outcome(deflated)) != 2:
    raise SystemExit("the behaviour has changed")
PYTHON
