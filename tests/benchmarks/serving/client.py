"""The load generator as a separate process: reads jobs as JSON lines, writes their samples.

It shares the cores with the servers, so it does little work and reports its own CPU time.
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
    """How long requests are sent."""
    timeout_s: float
    clients: int = 0
    """Clients of a closed loop; 0: an open loop."""
    rate_per_s: float = 0.0
    """Arrival rate of an open loop."""
    seed: int = 0
    stop_below_s: float = 0.0
    """Stop a closed loop at the first latency below this."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Samples of a job, CPU seconds that the client used, and seconds until the last response."""

    samples: list[Sample]
    cpu_s: float
    took_s: float


class Client:
    """Handle of the client process, a context manager."""

    def __init__(self, photographs: Path, size: tuple[int, int]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.serving.client", str(photographs), *map(str, size)]
        self._process = subprocess.Popen(
            killed_with_parent(command),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, job: Job) -> Outcome:
        """Run a job to its end."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("Popen was called with pipes")
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended with exit code {self._process.wait()}")
        found = json.loads(line)
        return Outcome([Sample(*sample) for sample in found["samples"]], found["cpu_s"], found["took_s"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


async def run_job(job: Job, files: list[bytes], size: tuple[int, int]) -> list[Sample]:
    """Run one job in this process."""
    target = Target(job.port, job.path, job.headers, files, size=size, timeout_s=job.timeout_s)
    try:
        if job.clients:
            return await closed_loop(target, job.clients, job.seconds, stop_below_s=job.stop_below_s)
        return await open_loop(target, job.rate_per_s, job.seconds, job.seed)
    finally:
        target.close()


def main() -> None:
    """Run jobs until standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder, width, height = sys.argv[1:]
    files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    for line in sys.stdin:
        # Garbage collection would pause the client in the middle of a window.
        gc.collect()
        gc.disable()
        start, cpu_s = time.perf_counter(), time.process_time()
        samples = asyncio.run(run_job(Job(**json.loads(line)), files, (int(width), int(height))))
        spent = {"cpu_s": time.process_time() - cpu_s, "took_s": time.perf_counter() - start}
        gc.enable()
        sys.stdout.write(json.dumps({"samples": samples, **spent}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
