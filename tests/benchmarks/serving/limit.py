"""The upper limit of this machine: raw onnxruntime in a loop, with the fastest thread setting, found by trial."""

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tests.benchmarks.serving.server_process import start_process
from tests.benchmarks.serving.servers import PEERS, Launch, peer_environment, python_of

TRIALS = 6
"""Number of times that each setting is measured. The machine's speed varies within seconds, so settings are compared by
their median share of a trial's total and not by their highest rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Number of sessions, threads per session, and concurrent runners that share the sessions."""

    sessions: int
    threads: int
    runners: int

    def __str__(self) -> str:
        return f"{self.runners} concurrent, {self.sessions} sessions of {self.threads} threads"


Rates = dict[Setting, float]
"""Masks per second by setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The fastest settings."""

    single: Setting
    """Lowest latency for one photograph at a time."""
    infer: Setting
    """Highest rate of inference alone."""
    whole: Setting
    """Highest rate of decoding, inference and encoding."""


def settings(cores: int) -> list[Setting]:
    """Return the settings to try: from one session with all threads to one per core, also with more runners."""
    counts = [count for count in range(1, cores + 1) if cores % count == 0]
    even = [Setting(sessions=count, threads=cores // count, runners=count) for count in counts]
    return [*even, *(Setting(sessions=cores, threads=1, runners=cores + more) for more in (1, cores))]


def fastest(trials: list[Rates]) -> Setting:
    """Return the setting with the highest median share of a trial's total rate."""
    shares = [{setting: rate / sum(rates.values()) for setting, rate in rates.items()} for rates in trials]
    return max(shares[0], key=lambda setting: median(share[setting] for share in shares))


class Limit:
    """The process that runs the loop, a context manager."""

    def __init__(self, photographs: Path, launch: Launch) -> None:
        """Start it. Raises ServerError."""
        command = [python_of("limit"), "-m", f"{PEERS}.raw_limit", str(photographs)]
        self._log = launch.folder / "log"
        with self._log.open("wb") as sink:
            self._process = start_process(command, peer_environment(launch), stdin=subprocess.PIPE, stderr=sink)
        self._cores = launch.cores

    def masks(self, file: Path) -> npt.NDArray[np.uint8]:
        """Return the reference masks of all photographs, uint8 [N, H, W]; `file` is a temporary .npy file."""
        self._run(Setting(sessions=1, threads=1, runners=1), masks=str(file))
        masks_NHW: npt.NDArray[np.uint8] = np.load(file)
        return masks_NHW

    def find_best(self, seconds: float) -> Best:
        """Measure all settings in turn, each for `seconds`, TRIALS times."""
        infer, whole, single = list[Rates](), list[Rates](), list[Rates]()
        one_thread = Setting(sessions=1, threads=1, runners=1)
        for _ in range(TRIALS):
            infer.append({each: self._rate(each, seconds, whole=False) for each in settings(self._cores)})
            whole.append({each: self._rate(each, seconds, whole=True) for each in settings(self._cores)})
            # With one runner, the rate is that of one photograph at a time.
            one_runner = {each: rate for each, rate in whole[-1].items() if each.runners == 1}
            single.append(one_runner | {one_thread: self._rate(one_thread, seconds, whole=True)})
        return Best(single=fastest(single), infer=fastest(infer), whole=fastest(whole))

    def _rate(self, setting: Setting, seconds: float, *, whole: bool) -> float:
        return float(self.measure(setting, seconds, whole=whole)["masks_per_s"])

    def measure(self, setting: Setting, seconds: float, *, whole: bool) -> dict[str, Any]:
        """Return masks_per_s, p50_ms and steps_ms of a setting; `whole` includes decoding and encoding."""
        return self._run(setting, whole=whole, seconds=seconds)

    def _run(self, setting: Setting, **job: Any) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("Popen was called with pipes")
        self._process.stdin.write(json.dumps(asdict(setting) | job).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"raw onnxruntime failed: {self._log.read_text(errors='replace')[-1000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
