"""Read JSON files of a source."""

import json
from typing import Any

from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder


def read_json(source: SourceFolder, file: str) -> Any:
    """The content of a JSON file. Raises SourceError if it is damaged."""
    try:
        return json.loads(source.path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file}: is not readable JSON ({error}); export it again") from error
