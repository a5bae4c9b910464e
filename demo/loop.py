"""The whole loop: train on 6 labels, serve, send 240 unlabelled images, retrain, swap the model, compare."""

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
from demo.client import BackgroundClient, Client, RequestCounts
from demo.comparison import Row, draw_comparison
from demo.dataset import Dataset, Miou
from demo.programs import run_module, running_service
from demo.starter_model import find_photo, segment_photo
from demo.terminal import Report, Terminal
from demo.textures import make_textures

RECIPE = Path(__file__).with_name("textures.toml")
FIRST_STEPS, LABELLED, UNLABELLED, VAL = 200, 6, 240, 60
SAVED_MASKS, COMPARED_IMAGES = 8, 4
RUN_TIMEOUT_S, SWAP_TIMEOUT_S, POLL_S = 1800.0, 60.0, 0.5
# Background requests that the new model must answer before the demonstration continues.
ANSWERS_AFTER_SWAP = 10
# Output of an earlier demonstration, deleted at the start.
FOLDERS = ("dataset", "first", "bundle", "data", "pictures")
LOGS = ("programs.log", "service.log")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """mIoU of the served `val` masks before and after retraining, and request counts."""

    before: Miou
    after: Miou
    counts: RequestCounts
    pictures: list[Path]


def run_demo(out: Path, photo: Path | None) -> int:
    """Run the demonstration and print its result; return 0 if the mIoU increased and no request failed, else 1.

    Without a `photo`, an image of a CamVid copy next to the repository is used, if any. Raises DemoError.
    """
    if photo is not None and not photo.is_file():
        raise DemoError(f"{photo} is not a file: set --photo to a photograph")
    _delete_earlier_output(out)
    terminal, start = Terminal(), time.perf_counter()
    dataset = Dataset(out / "dataset")
    trainer_miou = train_first_model(out, dataset, terminal)
    settings = {
        "MASKLOOP_RETRAIN_AFTER_IMAGES": str(UNLABELLED),
        # One run, after the last image.
        "MASKLOOP_RETRAIN_AFTER_LABELS": "0",
        "MASKLOOP_MIN_LABELLED_IMAGES": str(LABELLED),
        "MASKLOOP_RECIPE": str(RECIPE),
    }
    with ExitStack() as stack:
        try:
            with terminal.phase("start the service"):
                service = running_service(out / "data", out / "bundle", out / "service.log", settings)
                url = stack.enter_context(service)
            key = (out / "data" / "api-key").read_text().strip()
            client = stack.enter_context(Client(url, key))
            result = retrain(client, url, dataset, out / "pictures", terminal)
            street = find_photo(photo)
            if street is not None:
                with terminal.phase("segment a street photograph"):
                    result.pictures.extend(segment_photo(client, street, out / "pictures"))
        except httpx.HTTPError as error:
            raise DemoError(f"a request to the service failed ({error}): see {out / 'service.log'}") from None
        with terminal.phase("stop the service"):
            stack.close()
    return print_result(result, trainer_miou, time.perf_counter() - start, terminal)


def train_first_model(out: Path, dataset: Dataset, terminal: Terminal) -> float:
    """Make the data set, train on its labels only, export a bundle, and return the trainer's mIoU (0..1)."""
    log = out / "programs.log"
    with terminal.phase("make the data set"):
        make_textures(dataset.folder, labelled=LABELLED, unlabelled=UNLABELLED, val=VAL)
    settings = {
        "method": "supervised",
        "train.steps": FIRST_STEPS,
        "train.batch_labelled": LABELLED,
        "data.root": dataset.folder.absolute(),
    }
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with terminal.phase(f"train a first model on {LABELLED} labels") as report:
        arguments = ("train", str(RECIPE), "--out", str(out / "first"), *overrides)
        done = run_module("trainer", *arguments, log_file=log, report=report)
    with terminal.phase("export it") as report:
        arguments = ("export", done["checkpoint"], "--out", str(out / "bundle"), "--name", "textures")
        run_module("exporter", *arguments, log_file=log, report=report)
    return float(done["miou"])


def retrain(client: Client, url: str, dataset: Dataset, pictures: Path, terminal: Terminal) -> Result:
    """Segment the `val` split, send all images, wait until the service has retrained and swapped, segment again."""
    val = dataset.images("val")
    with terminal.phase(f"segment {len(val)} images") as report:
        before = client.masks(val, report)
    saved = _save_masks(client, val[:SAVED_MASKS], pictures / "before")
    with terminal.phase("send the labelled images") as report:
        _send_labelled_images(client, dataset, report)
    with BackgroundClient(url, val[0].read_bytes()) as background:
        unlabelled = dataset.images("unlabelled")
        with terminal.phase(f"send {len(unlabelled)} unlabelled images") as report:
            for number, image in enumerate(unlabelled, 1):
                client.add_image(image)
                report(number, len(unlabelled))
        with terminal.phase("the service retrains") as report:
            run = _wait_for_run(client, report)
        with terminal.phase("the service swaps the model"):
            _wait_for_swap(background, run["candidate_version"])
    with terminal.phase(f"segment {len(val)} images again") as report:
        after = client.masks(val, report)
    _save_masks(client, val[:SAVED_MASKS], pictures / "after")
    rows = [
        Row(np.asarray(Image.open(image)), dataset.label(image), old, new)
        for image, old, new in zip(val[:COMPARED_IMAGES], before, after, strict=False)
    ]
    draw_comparison(pictures / "comparison.png", rows, dataset.classes())
    return Result(
        before=dataset.miou(val, before),
        after=dataset.miou(val, after),
        counts=background.counts,
        pictures=[pictures / "comparison.png", *saved[:2]],
    )


def print_result(result: Result, trainer_miou: float, seconds: float, terminal: Terminal) -> int:
    """Print the table, the pictures' paths and any errors; return the exit code, 0 or 1."""
    counts, before, after = result.counts, result.before.value, result.after.value
    rows = {
        "mIoU before, labels only": f"{before:.4f} over {result.before.over}   (by the trainer: {trainer_miou:.4f})",
        "mIoU after, with unlabelled images": f"{after:.4f} over {result.after.over}   ({after - before:+.4f})",
        "images": f"{LABELLED} labelled, {UNLABELLED} unlabelled, {VAL} for validation",
        "requests during retraining and swap": f"{counts.answered} answered, {len(counts.failures)} failed",
        "responses by model": ", ".join(f"{count} by {version}" for version, count in counts.by_version.items()),
        **{f"seconds: {name}": f"{value:.1f}" for name, value in terminal.phase_seconds.items()},
        "seconds: total": f"{seconds:.1f}",
    }
    terminal.table("Result", rows)
    for picture in result.pictures:
        terminal.print(str(picture))
    errors = [f"a request failed: {failure}" for failure in counts.failures[:3]]
    if after <= before:
        errors.append("the mIoU did not increase")
    for error in errors:
        terminal.print(f"error: {error}")
    return 1 if errors else 0


def _delete_earlier_output(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in LOGS:
        (out / name).unlink(missing_ok=True)


def _save_masks(client: Client, images: list[Path], folder: Path) -> list[Path]:
    """Write `NAME-mask.png` and `NAME-overlay.jpg` of each image to `folder`."""
    folder.mkdir(parents=True)
    files = []
    for image in images:
        mask, overlay = folder / f"{image.stem}-mask.png", folder / f"{image.stem}-overlay.jpg"
        mask.write_bytes(client.segment(image))
        overlay.write_bytes(client.segment(image, "image/jpeg"))
        files += [mask, overlay]
    return files


def _send_labelled_images(client: Client, dataset: Dataset, report: Report) -> None:
    pairs = [(image, split) for split in ("labelled", "val") for image in dataset.images(split)]
    for number, (image, split) in enumerate(pairs, 1):
        client.add_labelled_image(image, dataset.mask_file(image), split)
        report(number, len(pairs))


def _wait_for_run(client: Client, report: Report) -> dict[str, Any]:
    """Wait until the model of the newest run was promoted, and return the run."""
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while time.monotonic() < deadline:
        run = next(iter(client.runs()), None)
        if run is not None and run["status"] == "judged" and run["report"]["outcome"] == "promote":
            return run
        if run is not None and run["status"] not in {"queued", "running"}:
            raise DemoError(
                f"the training run ended with status {run['status']}: {run['error'] or run['report']['sentence']}"
            )
        if run is not None and run["steps"]:
            report(run["step"], run["steps"], f"{run['phase']}  loss {run['loss'] or 0:.3f}")
        time.sleep(POLL_S)
    raise DemoError(f"the training run did not finish within {RUN_TIMEOUT_S:.0f} s: see service.log")


def _wait_for_swap(background: BackgroundClient, version: str) -> None:
    """Wait until model `version` has answered `ANSWERS_AFTER_SWAP` background requests."""
    deadline = time.monotonic() + SWAP_TIMEOUT_S
    while background.counts.by_version.get(version, 0) < ANSWERS_AFTER_SWAP:
        if time.monotonic() > deadline:
            raise DemoError(f"model {version} did not answer within {SWAP_TIMEOUT_S:.0f} s: see service.log")
        time.sleep(POLL_S)
