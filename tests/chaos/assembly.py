"""Put the chaos test together: disk, database, clock, first model, service, clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from rich.console import Console

from service.settings import Settings
from service.storage.database import Database
from tests.chaos.calls import TIMEOUT_S, Calls
from tests.chaos.clients import Clients
from tests.chaos.clock import Clock
from tests.chaos.database_server import DatabaseServer, PostgreSql, Sqlite
from tests.chaos.fault_rounds import Chaos
from tests.chaos.faults import Fault, Scene, all_faults
from tests.chaos.first_model import make_first_model, write_recipe
from tests.chaos.installation import HEARTBEAT_S, RETRAIN_AFTER_IMAGES, Installation
from tests.chaos.ledger import Ledger
from tests.chaos.pictures import read_mask
from tests.chaos.program_watch import ProgramWatch
from tests.crash_disk import CrashDisk, crash_disk
from tests.small_disk import Disk, small_disk

DISK_MB = 400
SPLITS: tuple[Literal["labelled", "val"], ...] = ("labelled", "val")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to assemble."""

    folder: Path
    """For everything."""
    first: Path
    """For the first model; it is trained if the folder has none."""
    log: Path
    database: Literal["sqlite", "postgresql"]
    seed: int


@contextmanager
def assembled(plan: Plan, console: Console) -> Iterator[Chaos]:
    """Start everything, send the labelled images, and stop everything at the end of the block."""
    with ExitStack() as stack:
        server: DatabaseServer = PostgreSql() if plan.database == "postgresql" else Sqlite()
        stack.enter_context(closing(server))
        disk = stack.enter_context(_disk(plan.folder / "disk", DISK_MB))
        scene = _start(plan, server, disk, stack, console)
        chaos = _with_clients(scene, plan.seed, stack)
        with console.status("send the labelled images"):
            _send_data_set(chaos, plan.first / "dataset")
        yield chaos


def choose_faults(scene: Scene, words: list[str] | None) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults whose name contains one of the words, and why some of them are impossible here."""
    faults = [each for each in all_faults(scene.server) if not words or any(word in each.name for word in words)]
    reasons = {
        "clock": scene.clock.problem,
        "disk": "" if scene.disk else "mounting a disk needs root",
        "crash disk": "" if isinstance(scene.disk, CrashDisk) else "ext4 in a file needs root and loop devices",
    }
    return faults, {each.name: reasons[each.needs] for each in faults if reasons.get(each.needs)}


def _start(plan: Plan, server: DatabaseServer, disk: Disk | None, stack: ExitStack, console: Console) -> Scene:
    clock = Clock(plan.folder)
    if not (plan.first / "bundle").exists():
        with console.status("train the first model"):
            plan.first.mkdir(parents=True, exist_ok=True)
            make_first_model(plan.first)
    settings = {
        "model": str(plan.first / "bundle"),
        "database_url": server.url,
        "recipe": str(write_recipe(plan.folder)),
        "retrain_after_images": str(RETRAIN_AFTER_IMAGES),
        "retrain_after_labels": "0",
        "heartbeat_s": str(HEARTBEAT_S),
        "stop_grace_s": "10",
        "precision": "fp32",
        # A few steps make no good model: every candidate is activated, so that models are swapped.
        "gate_margin_miou": "1",
    }
    installation = Installation(plan.folder / "disk" / "data", plan.log, clock, **settings)
    stack.callback(installation.stop)
    with console.status("start the service"):
        installation.start()
    rng = np.random.default_rng(plan.seed)
    url = Settings(data_dir=installation.data_dir, database_url=server.url).resolved_database_url
    rows = Database(url)
    stack.callback(rows.close)
    return Scene(installation=installation, clock=clock, server=server, rows=rows, disk=disk, rng=rng)


def _with_clients(scene: Scene, seed: int, stack: ExitStack) -> Chaos:
    calls, ledger, watch = Calls(), Ledger(), ProgramWatch(scene.installation.data_dir)
    clients = Clients(scene.installation, calls, ledger, seed)
    for part in (watch, clients):
        part.start()
        stack.callback(part.stop)
    return Chaos(scene=scene, calls=calls, ledger=ledger, clients=clients, watch=watch)


def _send_data_set(chaos: Chaos, dataset: Path) -> None:
    """Send the labelled images, which the clients never change."""
    with chaos.scene.installation.client(TIMEOUT_S) as http:
        for split in SPLITS:
            for name in (dataset / "splits" / f"{split}.txt").read_text().split():
                data, png = ((dataset / kind / f"{name}.png").read_bytes() for kind in ("images", "masks"))
                image_id = http.post("/v1/images", content=data).raise_for_status().json()["id"]
                chaos.clients.upload(http, image_id, data)
                if not chaos.clients.label(http, image_id, read_mask(png).tobytes(), png, split):
                    raise httpx.HTTPError(f"the label of {name} was refused")


@contextmanager
def _disk(folder: Path, megabytes: int) -> Iterator[Disk | None]:
    """Mount the first of the disks that is possible here; yield None, and leave a folder, if none is."""
    for kind in (crash_disk, small_disk):
        with ExitStack() as stack:
            try:
                disk = stack.enter_context(kind(folder, megabytes))
            except pytest.skip.Exception:
                continue
            yield disk
            return
    folder.mkdir(exist_ok=True)
    yield None
