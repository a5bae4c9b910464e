"""Write tests/golden/bundle_v1 once: `python -m tests.exporter.make_golden`.

It represents existing bundles of format 1, so it is never regenerated; format 2 will get its own folder.
"""

import tempfile
from pathlib import Path

from exporter.export import export
from tests.exporter.conftest import GOLDEN, TINY_VIT, make_checkpoint

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "model.safetensors", TINY_VIT)
        export(checkpoint, GOLDEN, name="golden", with_checkpoint=False)
