"""Every relative link of the documentation leads to a file, and every fragment to a heading."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "exporter/BUNDLE.md", "trainer/recipes/README.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
README_LINES = 100


def headings(page: Path) -> set[str]:
    """The fragments that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / name for name in OTHERS)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, fragment = link.partition("#")
        target = page if not file else page.parent / file
        assert target.exists(), link
        if fragment:
            assert fragment in headings(target), link


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    linked, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        linked.add(page)
        targets = (page.parent / link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
        todo += [target.resolve() for target in targets if target.suffix == ".md" and target.resolve() not in linked]
    assert set(PAGES) <= linked


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES
