"""PostgreSQL: a real server, and concurrent requests that SQLite would put in order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from service.analyses.analysed_range import begin
from service.errors import ImageNotFound
from service.state import State, open_state
from service.storage.database import Database
from service.storage.migrate import migrate, upgrade
from service.storage.tables import Base, Image, Pool
from tests.service import postgresql
from tests.service.class_lists import TINY
from tests.service.conftest import MakeSettings, encoded
from tests.service.tiny_bundle import picture

CLIENTS, ROUNDS = 8, 25


@pytest.fixture
def state(make_settings: MakeSettings, tmp_path: Path) -> Iterator[State]:
    opened = open_state(make_settings(database_url=postgresql.create_database(tmp_path)))
    yield opened
    opened.close()
    postgresql.drop_databases()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call all functions at the same moment, each in a thread."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_migrations_match_the_tables(tmp_path: Path) -> None:
    database = Database(postgresql.create_database(tmp_path))
    with database.engine.begin() as connection:
        upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()
    postgresql.drop_databases()


def test_process_that_hangs_within_a_transaction_loses_its_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.storage.database.POSTGRESQL_IDLE_TIMEOUT_MS", 200)
    hung, other = (Database(postgresql.create_database(tmp_path)) for _ in range(2))
    migrate(hung.engine, tmp_path / "lock")

    def hang_while_another_writes() -> None:
        with hung.write() as session:
            session.scalars(select(Pool).with_for_update()).one()
            with other.write() as waiting:
                waiting.scalars(select(Pool).with_for_update()).one().val = 7
            session.get_one(Pool, 1).val = 1

    with pytest.raises(DBAPIError):
        hang_while_another_writes()
    with hung.read() as session:
        assert session.get_one(Pool, 1).val == 7
    for database in (hung, other):
        database.close()
    postgresql.drop_databases()


def test_same_bytes_from_many_clients_are_one_image(state: State) -> None:
    for seed in range(ROUNDS):
        data = encoded(picture(seed=seed))
        added = at_once(*[partial(state.images.add, data)] * CLIENTS)
        assert sum(new for _, new in added) == 1
        assert len({row.id for row, _ in added}) == 1
    assert state.images.counts().unlabelled == ROUNDS
    assert [image.sequence for image in state.images.page().images] == list(range(ROUNDS, 0, -1))


def test_two_workers_begin_to_analyse_with_a_model_at_once(state: State) -> None:
    state.models.ensure_start_model()
    version = str(state.models.list()[0].version)
    begun = at_once(*[partial(begin, state.database, version, None)] * CLIENTS)
    assert len({row.id for row in begun}) == 1


def test_batches_with_the_same_images_in_other_orders_do_not_block_each_other(state: State) -> None:
    for seed in range(0, ROUNDS, 5):
        received = [state.images.receive(encoded(picture(seed=seed + number))) for number in range(5)]
        orders = [received, received[::-1], received[2:] + received[:2], received[:3]]
        added = at_once(*(partial(state.images.add_all, order) for order in orders))
        assert sum(new for batch in added for _, new in batch) == len(received)
    assert state.images.counts().unlabelled == ROUNDS
    assert [image.sequence for image in state.images.page().images] == list(range(ROUNDS, 0, -1))


def test_image_added_and_deleted_at_once_has_row_and_file_or_neither(state: State) -> None:
    data = encoded(picture())
    image_id = hashlib.sha256(data).hexdigest()
    for _ in range(ROUNDS):
        state.images.add(data)
        at_once(lambda: state.images.delete(image_id), lambda: state.images.add(data), lambda: state.images.add(data))
        try:
            state.images.get(image_id)
        except ImageNotFound:
            assert state.images.counts().unlabelled == 0
        else:
            assert state.images.read(image_id) == data
            assert state.images.counts().unlabelled == 1
            state.images.delete(image_id)


def test_mask_shared_by_two_images_is_kept_when_one_is_labelled_again(state: State) -> None:
    first, second = (state.images.add(encoded(picture(seed=seed)))[0].id for seed in range(2))
    masks = [encoded(np.full((30, 40), value, np.uint8)) for value in (1, 2)]

    def label(image_id: str, mask: bytes) -> None:
        state.images.put_mask(image_id, mask, classes=TINY, split="labelled")

    for turn in range(ROUNDS):
        label(first, masks[turn % 2])
        at_once(partial(label, first, masks[1 - turn % 2]), partial(label, second, masks[turn % 2]))
        assert state.images.read_mask(first)
        assert state.images.read_mask(second)
    counts = state.images.counts()
    assert (counts.labelled, counts.val, counts.unlabelled) == (2, 0, 0)


def test_labels_set_at_once_get_different_numbers(state: State) -> None:
    ids = [state.images.add(encoded(picture(seed=seed)))[0].id for seed in range(20)]
    mask = encoded(np.ones((30, 40), np.uint8))
    at_once(*(partial(state.images.put_mask, i, mask, classes=TINY) for i in ids))
    images = state.images.page().images
    assert sorted(image.label_sequence or 0 for image in images) == list(range(1, 21))
    counts = state.images.counts()
    assert (counts.labelled, counts.val) == (16, 4)


def test_labels_set_while_the_leader_of_their_cluster_is_deleted(state: State) -> None:
    mask = encoded(np.ones((30, 40), np.uint8))
    for turn in range(5):
        ids = [state.images.add(encoded(picture(seed=10 * turn + seed)))[0].id for seed in range(6)]
        with state.database.write() as session:
            for image_id in ids[1:]:
                session.get_one(Image, image_id).duplicate_of = ids[0]
        label = partial(state.images.put_mask, data=mask, classes=TINY, split="labelled")
        at_once(partial(state.images.delete, ids[0]), *(partial(label, image_id) for image_id in ids[1:]))
        assert {state.images.get(image_id).duplicate_of for image_id in ids[2:]} == {ids[1]}
    counts = state.images.counts()
    assert (counts.labelled, counts.val, counts.unlabelled) == (25, 0, 0)


def test_labels_of_one_cluster_set_at_once_are_in_one_split(state: State) -> None:
    # A lock orders requests with the same mask.
    masks = [encoded(np.full((30, 40), value, np.uint8)) for value in range(5)]
    for turn in range(5):
        ids = [state.images.add(encoded(picture(seed=10 * turn + seed)))[0].id for seed in range(5)]
        with state.database.write() as session:
            for image_id in ids[1:]:
                session.get_one(Image, image_id).duplicate_of = ids[0]
        label = partial(state.images.put_mask, classes=TINY)
        at_once(*(partial(label, *each) for each in zip(ids, masks, strict=True)))
        assert len({state.images.get(image_id).split for image_id in ids}) == 1


def test_first_answer_to_a_schedule_by_many_workers(make_settings: MakeSettings, tmp_path: Path) -> None:
    url = postgresql.create_database(tmp_path)
    workers = [open_state(make_settings(database_url=url, retrain_cron="0 3 * * *")) for _ in range(4)]
    assert at_once(*(worker.retrain_policy.consider_schedule for worker in workers)) == [None] * 4
    for worker in workers:
        worker.close()
    postgresql.drop_databases()
