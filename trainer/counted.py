"""Numbers in messages: "1 image does not exist", "2 images do not exist"."""


def counted(number: int, one: str, many: str) -> str:
    """A number before the words that fit it."""
    return f"{number} {one if number == 1 else many}"
