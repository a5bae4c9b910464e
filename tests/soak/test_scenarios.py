"""The scenarios in short, and what of them holds on any machine; `make soak` holds them to figures."""

from __future__ import annotations

from pathlib import Path

import pytest

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
PLACES = 6


@pytest.fixture
def slow_bundle(tmp_path: Path) -> Path:
    """A model that takes a while for an image."""
    return write_bundle(tmp_path / "slow", work=60)


def test_under_overload_everybody_is_told(slow_bundle: Path, tmp_path: Path) -> None:
    with Service(tmp_path / "data", slow_bundle, max_concurrent_requests=str(PLACES), max_wait_s="3") as service:
        seen = overload(service, FILES, SIZE, longest_wait_s=3.0, seconds=2.0, turns=1)
        assert service.metric("maskloop_segment_admitted") == 0
        assert service.ask("POST", "/v1/segment", FILES[0])[0] == 200
    # Nobody was cut off, nobody waited in vain, and no mask had the wrong size.
    assert set(seen.outcomes) == {"200", "503"}, seen
    assert seen.outcomes["503"] > seen.outcomes["200"]


def test_what_was_accepted_is_answered_before_the_end(slow_bundle: Path, tmp_path: Path) -> None:
    with Service(tmp_path / "data", slow_bundle) as service:
        seen = drain(service, FILES, SIZE, requests=24)
    assert seen.outcomes == {"200": 24}
    assert seen.refused


def test_versions_change_places_without_a_failure(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    with Service(tmp_path / "data", bundle, model_poll_s="0.05") as service:
        sound, broken = upload_versions(service, bundle, tmp_path / "data", tmp_path / "versions")
        seen = swaps(service, sound, broken, FILES, SIZE, cycles=6)
    assert set(seen.outcomes) == {"200"}, seen
    assert seen.outcomes["200"] > 6
    # The broken one never served, and the service says why.
    assert seen.serves == sound[1]
    assert "does not match its sha256" in seen.error


def test_mixed_sizes_are_all_answered(tmp_path: Path) -> None:
    with Service(tmp_path / "data", write_bundle(tmp_path / "bundle")) as service:
        seen = growth(service, pictures(30, 600), requests=300, settled=100)
    assert seen.statuses == {200: 300}


def test_growth_is_told_from_a_large_image() -> None:
    flat = Growth(requests=100, statuses={}, after_bytes=[90, *[100, 104] * 20], settled=10)
    assert abs(flat.grown_bytes) < 4
    leak = Growth(requests=100, statuses={}, after_bytes=[100 + 10 * i for i in range(40)], settled=10)
    assert leak.grown_bytes > 300
