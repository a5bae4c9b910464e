"""One short run of each soak scenario on a tiny model; `make soak` runs them at full length with their targets."""

from __future__ import annotations

from pathlib import Path

from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture, write_bundle
from tests.soak.drain import drain
from tests.soak.growth import Growth, growth, pictures
from tests.soak.overload import overload
from tests.soak.service import Service
from tests.soak.swaps import swaps
from tests.soak.versions import upload_versions

SIZE = (160, 120)
FILES = [encoded(picture(*SIZE, seed=seed)) for seed in range(4)]


def test_short_run_of_each_scenario(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "slow", work=60)
    settings = {"max_concurrent_requests": "8", "max_wait_s": "3", "model_poll_s": "0.05"}
    with Service(tmp_path / "data", bundle, **settings) as service:
        overloaded = overload(service, FILES, SIZE, max_wait_s=3.0, seconds=0.5, turns=1)
        assert set(overloaded.outcomes) == {"200", "503"}, overloaded
        assert service.metric("maskloop_segment_admitted") == 0

        valid, broken = upload_versions(service, bundle, tmp_path / "data", tmp_path / "versions")
        swapped = swaps(service, valid, broken, FILES, SIZE, cycles=2)
        assert swapped.outcomes.keys() == {"200"}, swapped
        assert swapped.active == valid[1]
        assert "does not match its sha256" in swapped.error

        grown = growth(service, pictures(10, 200), requests=30, warm_up=10)
        assert grown.statuses == {200: 30}

        drained = drain(service, FILES, SIZE, requests=6)
        assert drained.outcomes == {"200": 6}
        assert drained.refused


def test_growth_ignores_single_large_images() -> None:
    flat = Growth(requests=100, statuses={}, after_bytes=[90, *[100, 104] * 20], warm_up=10)
    assert abs(flat.grown_bytes) < 4
    leak = Growth(requests=100, statuses={}, after_bytes=[100 + 10 * i for i in range(40)], warm_up=10)
    assert leak.grown_bytes > 300
