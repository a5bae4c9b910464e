"""The client as a process of its own: a job a line comes in as JSON, and its samples go out.

It shares the cores with the servers, so it does little and tells how much: nothing here but the standard library.
"""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from service.parent_watch import killed_with_parent
from tests.benchmarks.serving.loads import Sample, Target, closed_loop, open_loop

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One load on one server."""

    port: int
    path: str
    headers: dict[str, str]
    seconds: float
    """For how long requests are sent."""
    patience_s: float
    clients: int = 0
    """Of a closed loop; 0: an open one."""
    rate_per_s: float = 0.0
    seed: int = 0
    stop_below_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job, and the seconds of CPU that the client took for it."""

    samples: list[Sample]
    cpu_s: float
    took_s: float


class Client:
    """The client's process, seen from the benchmark. Leave with `with`."""

    def __init__(self, photographs: Path, size: tuple[int, int]) -> None:
        words = [sys.executable, "-m", "tests.benchmarks.serving.client", str(photographs), *map(str, size)]
        self._process = subprocess.Popen(
            killed_with_parent(words),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, job: Job) -> Outcome:
        """Put a load on a server."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("made with pipes")
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the client died with exit code {self._process.wait()}")
        found = json.loads(answer)
        return Outcome([Sample(*sample) for sample in found["samples"]], found["cpu_s"], found["took_s"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


async def work(job: Job, files: list[bytes], size: tuple[int, int]) -> list[Sample]:
    """Do one job."""
    target = Target(job.port, job.path, job.headers, files, size=size, patience_s=job.patience_s)
    try:
        if job.clients:
            return await closed_loop(target, job.clients, job.seconds, stop_below_s=job.stop_below_s)
        return await open_loop(target, job.rate_per_s, job.seconds, job.seed)
    finally:
        target.close()


def main() -> None:
    """Jobs until standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder, width, height = sys.argv[1:]
    files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    for line in sys.stdin:
        # No pause of the collector in the middle of a window.
        gc.collect()
        gc.disable()
        began, cpu_s = time.perf_counter(), time.process_time()
        samples = asyncio.run(work(Job(**json.loads(line)), files, (int(width), int(height))))
        spent = {"cpu_s": time.process_time() - cpu_s, "took_s": time.perf_counter() - began}
        gc.enable()
        sys.stdout.write(json.dumps({"samples": samples, **spent}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
