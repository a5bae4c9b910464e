"""Images one by one, under the names by which onnxruntime's tools ask for them."""

from collections.abc import Iterator, Sequence

from exporter.probe import Bytes


class Images:
    """What onnxruntime calls a calibration data reader."""

    def __init__(self, images: Sequence[Bytes]) -> None:
        self._images = iter(images)

    def __iter__(self) -> Iterator[dict[str, Bytes]]:
        return iter(self.get_next, None)

    def get_next(self) -> dict[str, Bytes] | None:
        """The next image as the graph's input, uint8 [1,H,W,3]; None at the end."""
        image_HW3 = next(self._images, None)
        return None if image_HW3 is None else {"image": image_HW3[None]}
