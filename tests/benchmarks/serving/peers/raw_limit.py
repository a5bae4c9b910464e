"""Raw onnxruntime in a loop without HTTP: inference alone, or with decoding and encoding.

Reads jobs as JSON lines and writes their figures. Between jobs it uses no CPU time.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.serving.peers.segmentation import Pixels, decode, encode, infer, open_session, read_palette

STEPS = ("decode", "infer", "encode")


@dataclass(frozen=True)
class Raw:
    """The photographs as files and decoded, and the palette."""

    files: list[bytes]
    images: list[Pixels]
    palette: bytes


@dataclass
class Runner:
    """One thread that segments photographs for some seconds, starting at index `first`."""

    raw: Raw
    session: Any
    whole: bool
    seconds: float
    first: int

    def __post_init__(self) -> None:
        self.count = 0
        self.steps_s: list[tuple[float, ...]] = []

    def run(self) -> None:
        end = time.perf_counter() + self.seconds
        for index in self.indices():
            start = time.perf_counter()
            if start >= end:
                return
            if self.whole:
                self.steps_s.append(self.photograph(self.raw.files[index]))
            else:
                infer(self.session, self.raw.images[index])
                self.steps_s.append((time.perf_counter() - start,))
            self.count += 1

    def indices(self) -> Iterator[int]:
        indices = list(range(len(self.raw.files)))
        return cycle(indices[self.first :] + indices[: self.first])

    def photograph(self, file: bytes) -> tuple[float, ...]:
        """Segment from JPEG to PNG; return the seconds of each step."""
        times = [time.perf_counter()]
        image = decode(file)
        times.append(time.perf_counter())
        mask = infer(self.session, image)
        times.append(time.perf_counter())
        encode(mask, self.raw.palette)
        times.append(time.perf_counter())
        return tuple(after - before for before, after in pairwise(times))


def measure(raw: Raw, sessions: list[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Return masks per second of all runners, and the median milliseconds of each step."""
    whole, seconds = job["whole"], job["seconds"]
    runners = [Runner(raw, sessions[i % len(sessions)], whole, seconds, i) for i in range(job["runners"])]
    threads = [threading.Thread(target=runner.run) for runner in runners]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - start
    steps = [step for runner in runners for step in runner.steps_s]
    names = STEPS if whole else ("infer",)
    medians = {name: 1000 * median(values) for name, values in zip(names, zip(*steps, strict=True), strict=True)}
    total = 1000 * median(map(sum, steps))
    return {"masks_per_s": sum(runner.count for runner in runners) / took_s, "steps_ms": medians, "p50_ms": total}


def main() -> None:
    """Run jobs until standard input ends."""
    files = [file.read_bytes() for file in sorted(Path(sys.argv[1]).iterdir())]
    raw = Raw(files, [decode(file) for file in files], read_palette())
    setting: tuple[int, int] | None = None
    sessions: list[Any] = []
    for line in sys.stdin:
        job = json.loads(line)
        if setting != (job["sessions"], job["threads"]):
            # Close the old sessions first: their threads would spin for a while.
            setting, sessions = (job["sessions"], job["threads"]), []
            sessions = [open_session(job["threads"]) for _ in range(job["sessions"])]
            for session in sessions:
                infer(session, raw.images[0])
        if "masks" in job:
            np.save(job["masks"], np.stack([infer(sessions[0], image) for image in raw.images]))
            found: dict[str, Any] = {}
        else:
            found = measure(raw, sessions, job)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
