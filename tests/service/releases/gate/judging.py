"""Judge bundles on images of the five colours."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from service.models.bundle import Bundle
from service.releases.gate.judge import Samples
from service.releases.gate.judge import judge as judge_for
from service.releases.gate.validation_samples import Sample
from service.releases.gate.verdict import Verdict
from service.segmentation.formats.rgb import ValueRange
from service.settings import Settings
from tests.service.class_lists import judged_by, model_list
from tests.service.tiny_bundle import COLORS, nearest, picture


def judge(
    candidate: Bundle,
    active: Bundle | None,
    best: Bundle | None,
    samples: Samples,
    settings: Settings,
    *,
    uses: int = 0,
) -> Verdict:
    """Judge a candidate that was trained for its own classes."""
    judged = judged_by(model_list(candidate.manifest))
    return judge_for(candidate, active, best, samples, settings, judged=judged, uses=uses)


def samples_of(images: int = 3, *, groups: int | None = None, empty: bool = False) -> Samples:
    """Images with correct labels, or with labels that are 255 everywhere; images in turn belong to the groups."""

    def samples(ranges: Collection[ValueRange | None]) -> Iterator[Sample]:
        for seed in range(images):
            image = picture(seed=seed)
            mask = np.full(image.shape[:2], 255, np.uint8) if empty else nearest(image, COLORS)
            group = None if groups is None else str(seed % groups)
            yield Sample(dict.fromkeys(ranges, image), mask, group)

    return samples
