"""Write tests/golden/bundle_v1 for the first time: `python -m tests.exporter.make_golden`.

It stands for the bundles that are out in the world, so it is never written anew: a format 2 gets a folder of its own.
"""

import tempfile
from pathlib import Path

from exporter.export import export
from tests.exporter.conftest import GOLDEN, TINY_VIT, make_checkpoint

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "model.safetensors", TINY_VIT)
        export(checkpoint, GOLDEN, name="golden", with_checkpoint=False)
