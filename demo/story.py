"""The whole loop in a few minutes: a first model from six labels, a service, images without labels, a better model.

It reads from top to bottom; what each step needs is in the files beside it. It uses the service as anybody can: by its
programs and over HTTP.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from demo import DemoError
from demo.client import Asker, Client, Tally
from demo.dataset import Dataset
from demo.pictures import Row, draw_sheet
from demo.programs import run_module, running_service
from demo.show import Report, Show
from demo.street import find_photo, segment_street
from demo.textures import make_textures

RECIPE = Path(__file__).with_name("textures.toml")
FIRST_STEPS, LABELLED, UNLABELLED = 200, 6, 240
SAVED, SHEET_ROWS = 8, 4
RUN_WITHIN_S, SWAP_WITHIN_S, POLL_S = 1800.0, 60.0, 0.5
ANSWERS_AFTER_SWAP = 10
# What an earlier demonstration left in the folder, and this one makes anew.
FOLDERS = ("dataset", "first", "bundle", "data", "pictures")
LOGS = ("programs.log", "service.log")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the loop came to; mIoU is 0..1, over the 60 validation images, from masks that the service returned."""

    before: float
    after: float
    tally: Tally
    pictures: list[Path]


def demo(out: Path, photo: Path | None) -> int:
    """Show the loop, and return 0 if the model got better and no request failed, else 1.

    Args:
        out: Folder for everything that it makes.
        photo: A street photograph to segment with the starter model. None: one of a neighbouring CamVid, if any.

    Raises:
        DemoError: It could not be shown to its end.
    """
    if photo is not None and not photo.is_file():
        raise DemoError(f"{photo} is no file: name a photograph with --photo")
    _clear(out)
    show = Show()
    begin = time.perf_counter()
    dataset = Dataset(out / "dataset")
    trained = first_model(out, dataset, show)
    with ExitStack() as stack:
        try:
            with show.phase("start the service"):
                service = running_service(out / "data", out / "bundle", out / "service.log", _settings())
                url = stack.enter_context(service)
            client = stack.enter_context(Client(url))
            outcome = loop(client, url, dataset, out / "pictures", show)
            street = find_photo(photo)
            if street is not None:
                with show.phase("segment a street photograph"):
                    outcome.pictures.extend(segment_street(client, street, out / "pictures"))
        except httpx.HTTPError as error:
            raise DemoError(f"the service gave an unexpected answer ({error}): see {out / 'service.log'}") from None
        with show.phase("end the service"):
            stack.close()
    return conclude(outcome, trained, time.perf_counter() - begin, show)


def first_model(out: Path, dataset: Dataset, show: Show) -> float:
    """Make the textures, train on their labels alone, and export a bundle; mIoU as the trainer measured it."""
    log = out / "programs.log"
    with show.phase("cut mosaics from real textures"):
        make_textures(dataset.folder)
    labels_only = {
        "method": "supervised",
        "train.steps": FIRST_STEPS,
        "train.batch_labelled": LABELLED,
        "data.root": dataset.folder.absolute(),
    }
    overrides = [part for name, value in labels_only.items() for part in ("--set", f"{name}={value}")]
    with show.phase(f"train a first model on {LABELLED} labels") as report:
        recipe, first = str(RECIPE), str(out / "first")
        done = run_module("trainer", "train", recipe, "--out", first, *overrides, log_file=log, report=report)
    with show.phase("export it") as report:
        bundle = ("--out", str(out / "bundle"), "--name", "textures")
        run_module("exporter", "export", done["checkpoint"], *bundle, log_file=log, report=report)
    return float(done["miou"])


def loop(client: Client, url: str, dataset: Dataset, pictures: Path, show: Show) -> Outcome:
    """Ask for masks, send labels, send images without labels, and see the service retrain itself and swap the model."""
    val = dataset.images("val")
    with show.phase(f"ask for the masks of {len(val)} images") as report:
        before = client.masks(val, report)
    saved = _save_masks(client, val[:SAVED], pictures / "before")
    with show.phase("send the labelled images") as report:
        _send_labels(client, dataset, report)
    with Asker(url, val[0].read_bytes()) as asker:
        unlabelled = dataset.images("unlabelled")
        with show.phase(f"send {len(unlabelled)} images without labels") as report:
            for number, image in enumerate(unlabelled, 1):
                client.add(image)
                report(number, len(unlabelled))
        with show.phase("the service retrains itself") as report:
            run = _follow_run(client, report)
        with show.phase("the new model takes over"):
            _await_swap(asker, run["candidate_version"])
    with show.phase(f"ask for the masks of {len(val)} images again") as report:
        after = client.masks(val, report)
    _save_masks(client, val[:SAVED], pictures / "after")
    rows = [
        Row(np.asarray(Image.open(image)), dataset.label(image), old, new)
        for image, old, new in zip(val[:SHEET_ROWS], before, after, strict=False)
    ]
    draw_sheet(pictures / "sheet.png", rows, dataset.classes())
    return Outcome(
        before=dataset.miou(val, before),
        after=dataset.miou(val, after),
        tally=asker.tally,
        pictures=[pictures / "sheet.png", *saved[:2]],
    )


def conclude(outcome: Outcome, trained: float, seconds: float, show: Show) -> int:
    """Print the table and the pictures' paths; 0 if all is as it should be."""
    tally = outcome.tally
    answers = ", ".join(f"{count} by {version}" for version, count in tally.versions.items())
    rows = {
        "mIoU before, labels only": f"{outcome.before:.4f}   (its trainer measured {trained:.4f})",
        "mIoU after, with the unlabelled images": f"{outcome.after:.4f}   ({outcome.after - outcome.before:+.4f})",
        "images": f"{LABELLED} labelled, {UNLABELLED} unlabelled, 60 for validation",
        "requests during the run and the swap": f"{tally.answered} answered, {len(tally.failures)} failed",
        "answers by model": answers,
        **{f"seconds: {name}": f"{value:.1f}" for name, value in show.seconds.items()},
        "seconds: in all": f"{seconds:.1f}",
    }
    show.table("The loop, once around", rows)
    for picture in outcome.pictures:
        show.say(str(picture))
    problems = [f"a request failed: {failure}" for failure in tally.failures[:3]]
    if outcome.after <= outcome.before:
        problems.append("the model did not get better: mIoU after is not above mIoU before")
    for problem in problems:
        show.say(f"error: {problem}")
    return 1 if problems else 0


def _settings() -> dict[str, str]:
    return {
        "MASKLOOP_RETRAIN_AFTER_IMAGES": str(UNLABELLED),
        "MASKLOOP_MIN_LABELLED_IMAGES": str(LABELLED),
        "MASKLOOP_RECIPE": str(RECIPE),
    }


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in LOGS:
        (out / name).unlink(missing_ok=True)


def _save_masks(client: Client, images: list[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    saved = []
    for image in images:
        mask, overlay = folder / f"{image.stem}-mask.png", folder / f"{image.stem}-overlay.jpg"
        mask.write_bytes(client.segment(image))
        overlay.write_bytes(client.segment(image, "image/jpeg"))
        saved += [mask, overlay]
    return saved


def _send_labels(client: Client, dataset: Dataset, report: Report) -> None:
    pairs = [(image, split) for split in ("labelled", "val") for image in dataset.images(split)]
    for number, (image, split) in enumerate(pairs, 1):
        client.label(image, dataset.mask_file(image), split)
        report(number, len(pairs))


def _follow_run(client: Client, report: Report) -> dict[str, Any]:
    deadline = time.monotonic() + RUN_WITHIN_S
    while time.monotonic() < deadline:
        run = next(iter(client.runs()), None)
        if run is not None:
            if run["status"] not in {"queued", "running"}:
                break
            if run["steps"]:
                report(run["step"], run["steps"], f"{run['phase']}  loss {run['loss'] or 0:.3f}")
        time.sleep(POLL_S)
    if run is None or run["status"] != "succeeded":
        raise DemoError(f"the run did not end well: {run and (run['status'], run['error'] or run['report'])}")
    return run


def _await_swap(asker: Asker, version: str) -> None:
    deadline = time.monotonic() + SWAP_WITHIN_S
    while asker.tally.versions.get(version, 0) < ANSWERS_AFTER_SWAP:
        if time.monotonic() > deadline:
            raise DemoError(f"{version} was promoted and did not answer within {SWAP_WITHIN_S:.0f} s")
        time.sleep(POLL_S)
