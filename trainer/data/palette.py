"""Colours for classes that come without."""


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """The first `count` colours of Pascal VOC's palette: the bits of the id, dealt out to red, green and blue."""
    return [(_channel(index, 0), _channel(index, 1), _channel(index, 2)) for index in range(count)]


def _channel(index: int, first_bit: int) -> int:
    return sum((index >> (3 * step + first_bit) & 1) << (7 - step) for step in range(8))
