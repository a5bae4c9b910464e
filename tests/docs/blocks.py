"""The code blocks of README.md and docs/*.md.

A shell block is fenced with the language `sh`. A block that the tests cannot run has a comment on the line before it:
`<!-- not run: REASON -->`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from maskloop import PROGRAM_OF

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

FENCE = "```"
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
OWN_PROGRAM = re.compile(
    rf"-m (trainer|exporter|service)\b([^)#\n]*)|(?<![\w./-])(maskloop) ((?:{'|'.join(PROGRAM_OF)}) [^)#|\n]*)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        page: Its file, relative to the repository.
        line: Number of its first line, from 1.
        language: The word behind the fence.
        text: Its lines.
        not_run: Why the tests do not run it; empty: they do.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str

    def __str__(self) -> str:
        """The name of its test."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """Its lines without comments; lines that end with a backslash are joined with the next one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [bare for line in lines if (bare := re.sub(r"(^|\s)#.*", "", line).strip())]

    def own_arguments(self) -> list[tuple[str, list[str]]]:
        """The program and the arguments of each `-m PROGRAM ...` and `maskloop VERB ...`, also inside of `$(...)`."""
        found = (match for command in self.commands() for match in OWN_PROGRAM.finditer(f"{command} "))
        return [(match[1] or match[3], shlex.split(match[2] or match[4])) for match in found]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found, before = [], ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if line.startswith(FENCE):
            body = []
            for _, inside in lines:
                if inside.startswith(FENCE):
                    break
                body.append(inside)
            marked = NOT_RUN.fullmatch(before)
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, number + 1, line[3:], "\n".join(body), marked[1] if marked else ""))
        before = line
    return found


def indented_lines(page: Path) -> list[str]:
    """The lines of indented code blocks, and others that are indented as far."""
    outside, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        inside ^= line.startswith(FENCE)
        if not inside and line.startswith("    "):
            outside.append(line.strip())
    return outside
