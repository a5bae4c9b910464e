"""The package datasets reads its own folder."""

import numpy as np
from datasets import load_from_disk

from tests.trainer.data.exports.sdk_readers.painting import Painting

if __name__ == "__main__":
    painting = Painting()
    for rows in load_from_disk(str(painting.export)).values():
        for row in rows:
            if row["mask"] is not None:
                painting.save(row["name"], np.asarray(row["mask"]))
