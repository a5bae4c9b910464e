"""Generate the tables in trainer/recipes/README.md from the headers of the recipes.

python -m tests.trainer.list_recipes            print the tables
python -m tests.trainer.list_recipes --write    write them to README.md
"""

import argparse
import re
import sys
from pathlib import Path

from trainer.recipe_file import load_recipe

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
README = RECIPES / "README.md"
TEMPLATES = ("small.toml", "base.toml")
"""Shared settings of a data set's recipes; without train.steps they cannot be run."""

BEGIN, END = "<!-- begin: python -m tests.trainer.list_recipes --write -->", "<!-- end -->"


def recipe_files() -> list[Path]:
    """All recipes that can be run, sorted."""
    return sorted(path for path in RECIPES.rglob("*.toml") if path.name not in TEMPLATES)


def template_files() -> list[Path]:
    """All files that only other recipes extend, sorted."""
    return sorted(path for path in RECIPES.rglob("*.toml") if path.name in TEMPLATES)


def header(path: Path) -> dict[str, str]:
    """The comment at the top of a recipe: its first paragraph under "", the others under labels such as "Expected"."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    parts = re.split(r"(?:^|\n)(Expected|Hardware|Data|Run|Lists): ", "\n".join(lines))
    found = {"": parts[0].replace("\n", " ")}
    return found | {label: text.replace("\n", " ") for label, text in zip(parts[1::2], parts[2::2], strict=True)}


def tables() -> str:
    """Markdown with one table per folder and one row per recipe."""
    folders: dict[str, list[Path]] = {}
    for path in recipe_files():
        folders.setdefault(path.parent.relative_to(RECIPES).as_posix(), []).append(path)
    return "\n\n".join(_table(folder, paths) for folder, paths in folders.items())


def _table(folder: str, paths: list[Path]) -> str:
    title = "Getting started" if folder == "." else folder
    head = "| recipe | method | encoder | crop | batch | steps | expected |\n|---|---|---|---|---|---|---|"
    return "\n".join([f"### {title}", "", head, *map(_row, paths)])


def _row(path: Path) -> str:
    recipe = load_recipe(path)
    train, data = recipe.train, recipe.data
    batch = str(train.batch_labelled) + ("" if recipe.method == "supervised" else f" + {train.batch_unlabelled}")
    cells = (
        f"[{path.stem}]({path.relative_to(RECIPES).as_posix()})",
        recipe.method,
        recipe.model.encoder,
        "x".join(map(str, data.crop)),
        batch,
        str(train.steps),
        header(path).get("Expected", "").rstrip("."),
    )
    return f"| {' | '.join(cells)} |"


def written(text: str) -> str:
    """The README's text with the current tables between its two markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables to README.md")
    if parser.parse_args().write:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(tables() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
