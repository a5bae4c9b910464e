"""Translate the class ids of a data set's masks to those of the service, by the names of the classes."""

# H, W pixels

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from service.client.folders.dataset_folder import ClassList
from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from service.client.answers import ServiceClasses


class UnusableMask(Exception):  # noqa: N818 - what it is
    """A mask cannot be translated. The text states the remedy."""


class LabelIds:
    """Translates masks to ids of the service's class list."""

    def __init__(self, source: ClassList, target: ServiceClasses) -> None:
        """Match the classes by name. Raises WrongUsage if the target lacks one."""
        id_of = {each.name: each.id for each in target.classes}
        if missing := [name for name in source.names if name not in id_of]:
            raise WrongUsage(
                f"The service has no class {', '.join(map(repr, missing))}; its classes are {', '.join(id_of)}. Change "
                "them with `maskloop classes set CLASSES.toml`, rename those in classes.toml, or give --by-id to send "
                "the ids as they are."
            )
        self.version = target.version
        """Version of the class list of the ids."""
        self._id_of = {position: id_of[name] for position, name in enumerate(source.names)}
        self._ignored = {source.ignore_index: target.ignore_index}
        self.is_identity = all(old == new for old, new in (self._id_of | self._ignored).items())

    def translate(self, png: bytes) -> bytes:
        """Return the PNG of a mask with the ids of the service. Raises UnusableMask."""
        if self.is_identity:
            return png
        import numpy as np  # noqa: PLC0415 - slow
        from PIL import Image  # noqa: PLC0415

        ids_HW = read_ids(png)
        known = self._id_of | self._ignored
        present = [int(value) for value in np.unique(ids_HW)]
        if unknown := [value for value in present if value not in known]:
            raise UnusableMask(f"the mask holds the ids {unknown[:8]}, which classes.toml does not have: renumber it")
        table = np.zeros(max(present) + 1, np.uint16)
        for value in present:
            table[value] = known[value]
        translated_HW = table[ids_HW]
        is_wide = int(translated_HW.max(initial=0)) > 255
        sink = io.BytesIO()
        Image.fromarray(translated_HW if is_wide else translated_HW.astype(np.uint8)).save(sink, format="PNG")
        return sink.getvalue()


def read_ids(png: bytes) -> npt.NDArray[np.integer]:
    """Read class ids [H, W] from a PNG with one channel of 8 or 16 bits, or a palette. Raises UnusableMask."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    try:
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableMask(f"the mask is no PNG that can be read ({error}): save it again") from None
    if image.mode not in ("L", "P") and not image.mode.startswith("I;16"):
        raise UnusableMask(f"the mask is {image.mode} and must have one channel of class ids: see `maskloop import`")
    ids_HW: npt.NDArray[np.integer] = np.asarray(image)
    return ids_HW
