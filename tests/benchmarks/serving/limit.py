"""The limit of this machine: raw onnxruntime in a loop, with the thread setting that was found to be best by trying."""

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tests.benchmarks.serving.servers import tethered_process
from tests.benchmarks.serving.sides import PEERS, Place, peer_environment, python_of

PASSES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How the loop runs: so many runners, which share so many sessions of so many threads."""

    sessions: int
    threads: int
    runners: int

    def __str__(self) -> str:
        return f"{self.runners} at one time, {self.sessions} sessions of {self.threads} threads"


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
        lone = {setting: 0.0 for setting in settings(self._cores) if setting.runners == 1}
        infer = dict.fromkeys(settings(self._cores), 0.0)
        whole = dict(infer)
        for _ in range(PASSES):
            for setting in infer:
                infer[setting] = max(infer[setting], self.measure(setting, seconds, whole=False)["masks_per_s"])
                found = self.measure(setting, seconds, whole=True)
                whole[setting] = max(whole[setting], found["masks_per_s"])
                if setting in lone:
                    lone[setting] = max(lone[setting], 1 / found["p50_ms"])
            one = Setting(sessions=1, threads=1, runners=1)
            lone[one] = max(lone.get(one, 0.0), 1 / self.measure(one, seconds, whole=True)["p50_ms"])
        lone_best, infer_best, whole_best = (max(found, key=found.__getitem__) for found in (lone, infer, whole))
        return Best(lone=lone_best, infer=infer_best, whole=whole_best)

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
