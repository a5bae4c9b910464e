"""Data folders whose names have a meaning in URLs, configuration files or shells."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts
from pydantic import ValidationError
from sqlalchemy import text

from service.broker import broker_spec, broker_url, socket_path
from service.child_process import Child
from service.queue import KEY_PREFIX, QUEUE, RUN_TASK, Queue
from service.settings import Settings
from service.storage.database import Database
from tests.service.conftest import eventually

ODD = """# ?a=1 %41%23 ;é日@:"'\\ $HOME {} [*] & + ~\n"""
NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)


@settings(max_examples=25)
@given(NAMES)
@example("#")
@example("a?b")
@example("%41")
@example("x;y")
@example("user:secret@host")
@example("file:x")
@example(":memory:")
def test_database_is_created_in_the_data_folder(name: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / name
        folder.mkdir()
        database = Database(Settings(data_dir=folder).resolved_database_url)
        with database.write() as session:
            session.execute(text("CREATE TABLE test (id INTEGER)"))
        database.close()
        assert [path.name for path in folder.iterdir()] == ["maskloop.db"]
        assert list(Path(root).iterdir()) == [folder]


@given(NAMES)
@example("%41")
@example("a#b?c;d")
def test_url_of_the_broker_gives_back_its_path(name: str) -> None:
    path = Path("/data") / name / "valkey.sock"
    url = broker_url(path)
    # Celery splits at `;`, then parses what follows `redis+`.
    assert ";" not in url
    assert f"/{url_to_parts(url.removeprefix('redis+')).path}" == str(path)


def test_broker_in_an_odd_folder_is_reached() -> None:
    # Not pytest's folder: the path of a Unix socket may have 107 bytes only.
    with tempfile.TemporaryDirectory() as root, socket_path(Path(root) / ODD) as path:
        folder = Path(root) / ODD
        folder.mkdir()
        assert path.is_relative_to(folder)
        child = Child(broker_spec(folder, path))
        child.start()
        try:
            eventually(path.exists)
            queue = Queue(broker_url(path))
            queue.enqueue(RUN_TASK, "a-run")
            queue.close()
            client: Any = redis.Redis(unix_socket_path=str(path))
            assert client.llen(KEY_PREFIX + QUEUE) == 1
            client.close()
        finally:
            child.stop(force=lambda: True)


def test_folder_that_is_not_utf8_is_rejected() -> None:
    with pytest.raises(ValidationError, match="not UTF-8; choose another folder"):
        Settings(data_dir=Path("/data/\udcff"))
