"""The limit of this machine: raw onnxruntime in a loop, with the thread setting that was found to be best by trying."""

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tests.benchmarks.serving.servers import tethered_process
from tests.benchmarks.serving.sides import PEERS, Place, peer_environment, python_of

# Of trying each setting. The machine's speed changes from second to second: a setting's median share of what all did
# in a pass tells more than its best.
PASSES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How the loop runs: so many runners, which share so many sessions of so many threads."""

    sessions: int
    threads: int
    runners: int

    def __str__(self) -> str:
        return f"{self.runners} at one time, {self.sessions} sessions of {self.threads} threads"


Rates = dict[Setting, float]
"""Masks a second, by setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The fastest settings."""

    lone: Setting
    """One photograph after the other: the least milliseconds."""
    infer: Setting
    """Inference alone: the most masks a second."""
    whole: Setting
    """Decoding, inference and encoding: the most masks a second."""


def settings(cores: int) -> list[Setting]:
    """What is tried: all threads in one session, one thread in many, and between; and one runner more than sessions."""
    shares = [count for count in range(1, cores + 1) if cores % count == 0]
    even = [Setting(sessions=count, threads=cores // count, runners=count) for count in shares]
    return [*even, *(Setting(sessions=cores, threads=1, runners=cores + more) for more in (1, cores))]


def fastest(passes: list[Rates]) -> Setting:
    """The setting whose rate is the most, by the median of its shares in what all settings did in a pass."""
    shares = [{each: rate / sum(rates.values()) for each, rate in rates.items()} for rates in passes]
    return max(shares[0], key=lambda each: median(share[each] for share in shares))


class Limit:
    """The process that runs the loop. Leave with `with`."""

    def __init__(self, photographs: Path, place: Place) -> None:
        """Start it. Raises SideFailed."""
        words = [python_of("limit"), "-m", f"{PEERS}.raw_limit", str(photographs)]
        self._log = place.folder / "log"
        with self._log.open("wb") as sink:
            self._process = tethered_process(words, peer_environment(place), stdin=subprocess.PIPE, stderr=sink)
        self._cores = place.cores

    def masks(self, file: Path) -> npt.NDArray[np.uint8]:
        """The masks of all photographs, which those of every side are held against: uint8 [N, H, W]."""
        self._do(Setting(sessions=1, threads=1, runners=1), masks=str(file))
        masks_NHW: npt.NDArray[np.uint8] = np.load(file)
        return masks_NHW

    def find_best(self, seconds: float) -> Best:
        """Try all settings, each so long, in turns."""
        infer, whole, lone = list[Rates](), list[Rates](), list[Rates]()
        one = Setting(sessions=1, threads=1, runners=1)
        for _ in range(PASSES):
            infer.append({each: self._rate(each, seconds, whole=False) for each in settings(self._cores)})
            whole.append({each: self._rate(each, seconds, whole=True) for each in settings(self._cores)})
            # Of one runner, the rate is that of one photograph after the other.
            alone = {each: rate for each, rate in whole[-1].items() if each.runners == 1}
            lone.append(alone | {one: self._rate(one, seconds, whole=True)})
        return Best(lone=fastest(lone), infer=fastest(infer), whole=fastest(whole))

    def _rate(self, setting: Setting, seconds: float, *, whole: bool) -> float:
        return float(self.measure(setting, seconds, whole=whole)["masks_per_s"])

    def measure(self, setting: Setting, seconds: float, *, whole: bool) -> dict[str, Any]:
        """masks_per_s, p50_ms and steps_ms of one setting."""
        return self._do(setting, whole=whole, seconds=seconds)

    def _do(self, setting: Setting, **job: Any) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("made with pipes")
        self._process.stdin.write(json.dumps(asdict(setting) | job).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"raw onnxruntime failed: {self._log.read_text(errors='replace')[-1000:]}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
