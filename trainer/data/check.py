"""Look at a data set before training on it."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from trainer.data.dataset import DatasetError, Sample, SegmentationDataset
from trainer.data.decode import ImageError
from trainer.data.layouts import open_dataset


def check_dataset(root: Path) -> int:
    """Decode everything that DATASET's splits name and print what was found.

    Returns 0 when all is usable, 1 when something is not.

    A sample with a mask is checked as a pair; one without is checked as an unlabelled image.

    Raises:
        DatasetError, TaxonomyError: it is no data set at all.
    """
    console = Console()
    dataset = open_dataset(root)
    paths = sorted((root / "splits").rglob("*.txt"))
    if not paths:
        raise DatasetError(
            f"{root / 'splits'}: holds no split; add labelled.txt, unlabelled.txt and val.txt, an image name a line"
        )
    problems = []
    for path in paths:
        name = str(path.relative_to(root / "splits").with_suffix(""))
        try:
            samples = dataset.split(name)
        except DatasetError as error:
            problems.append(str(error))
            continue
        wrong = list(_problems(dataset, samples, name))
        problems += wrong
        labelled = sum(dataset.has_mask(sample) for sample in samples)
        console.print(f"{name}: {len(samples)} images, {labelled} with masks, {len(wrong)} unusable")
    for problem in dict.fromkeys(problems):
        console.print(problem, style="red", markup=False, soft_wrap=True)
    console.print(f"{len(dataset.taxonomy)} classes: {', '.join(dataset.taxonomy.names)}")
    return 1 if problems else 0


def _problems(dataset: SegmentationDataset, samples: tuple[Sample, ...], split: str) -> list[str]:
    found = []
    for sample in track(samples, description=split, console=Console(stderr=True), transient=True):
        try:
            if dataset.has_mask(sample):
                dataset.read_pair(sample)
            else:
                dataset.read(sample)
        except ImageError as error:
            found.append(str(error))
    return found
