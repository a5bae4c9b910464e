"""Database, migrations and blob store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_mock_engine, event, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from service.classes.class_store import ClassStore
from service.classes.label_counts import count_uncounted
from service.errors import StorageFailed
from service.storage.database import Database
from service.storage.migrate import NEWEST_REVISION, SCRIPTS, migrate, upgrade
from service.storage.tables import (
    ACTIVE_RUN,
    UNLABELLED,
    VALID_KEY,
    Base,
    ClassListRow,
    Image,
    Model,
    Pool,
    Run,
    RunLabel,
    RunStatus,
)
from service.storage.tables.table_base import partial_on_postgresql


@pytest.fixture
def database(tmp_path: Path) -> Database:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    migrate(opened.engine, tmp_path / "lock")
    return opened


# Alembic cannot compare the index on an expression; the next test compares the stored SQL.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrations_match_the_tables(tmp_path: Path) -> None:
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.engine.begin() as connection:
        upgrade(connection)
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    assert differences == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("maskloop.db", "is not valid"),
        ("postgresql://host:port/maskloop", "is not valid"),
        ("nothing://host/maskloop", "is not valid"),
        ("mssql+pymssql://host/maskloop", "pymssql.*install it"),
    ],
)
def test_unusable_url_gets_an_error_with_a_remedy(url: str, message: str) -> None:
    with pytest.raises(StorageFailed, match=f"MASKLOOP_DATABASE_URL.*{message}"):
        Database(url)


def test_new_database_has_the_schema_of_the_migrations(database: Database, tmp_path: Path) -> None:
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.engine.begin() as connection:
        upgrade(connection)
    assert schema(migrated) == schema(database)
    migrated.close()


def test_migrated_runs_keep_their_fencing_number(tmp_path: Path) -> None:
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.engine.begin() as connection:
        upgrade(connection, "0003")
        connection.execute(
            text(
                "INSERT INTO runs (id, status, reason, created_at, attempts) VALUES ('r', 'queued', 'auto', '2026', 2)"
            )
        )
        upgrade(connection)
        assert connection.execute(text("SELECT attempts, fence, saved_step FROM runs")).one() == (2, 2, 0)
    migrated.close()


def schema(database: Database) -> dict[str, list[str]]:
    """Return the stored SQL of every table and index, without spaces. A migration appends columns: order is ignored."""
    query = text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    with database.read() as session:
        return {
            name: sorted(part.rstrip(")") for part in "".join(sql.replace("(", "(,", 1).split()).split(","))
            for name, sql in session.execute(query)
        }


def test_migration_numbers_images_and_keeps_snapshots(tmp_path: Path) -> None:
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    image = (
        "INSERT INTO images VALUES (:id, 'image/png', 4, 3, 100, '2026-01-0' || :day, :mask, :split, "
        "CASE WHEN :mask IS NOT NULL THEN '2026-02-0' || (9 - :day) END)"
    )
    run = "INSERT INTO runs (id, status, reason, created_at) VALUES (:id, :status, 'auto', '2026-03-0' || :day)"
    with migrated.engine.begin() as connection:
        upgrade(connection, "0003")
        for day, (image_id, mask, split) in enumerate(
            [("a", None, None), ("b", "m1", "labelled"), ("c", "m2", "val"), ("d", None, None)], start=1
        ):
            connection.execute(text(image), {"id": image_id, "day": day, "mask": mask, "split": split})
        for day, (run_id, status) in enumerate([("r2", "failed"), ("r1", "running")], start=1):
            connection.execute(text(run), {"id": run_id, "status": status, "day": day})
        for image_id, role in {"a": "unlabelled", "b": "labelled", "c": "val"}.items():
            connection.execute(text("INSERT INTO run_images VALUES ('r2', :id, :role)"), {"id": image_id, "role": role})
        upgrade(connection)
    with migrated.read() as session:
        images = session.scalars(select(Image).order_by(Image.sequence)).all()
        assert [(i.id, i.sequence, i.label_sequence) for i in images] == [
            ("a", 1, None),
            ("b", 2, 2),
            ("c", 3, 1),
            ("d", 4, None),
        ]
        pool = session.scalars(select(Pool)).one()
        counts = (pool.image_sequence, pool.label_sequence, pool.unlabelled, pool.labelled, pool.val, pool.bytes)
        assert (*counts, pool.unlabelled_bytes) == (4, 2, 2, 1, 1, 400, 200)
        runs = session.scalars(select(Run).order_by(Run.number)).all()
        assert [(r.id, r.number, r.image_sequence) for r in runs] == [("r2", 1, 3), ("r1", 2, None)]
        # The labels that a past run knew are not new.
        assert [(r.label_sequence, r.deletion_sequence, r.from_encoder) for r in runs] == [
            (2, 0, False),
            (None, None, False),
        ]
        labels = session.scalars(select(RunLabel).order_by(RunLabel.image_id)).all()
        assert [(label.image_id, label.split, label.mask_sha256) for label in labels] == [
            ("b", "labelled", None),
            ("c", "val", None),
        ]
    migrated.close()


def test_migration_gives_labels_the_classes_of_the_active_model(tmp_path: Path) -> None:
    """The list itself is in the bundle, which the service reads when it starts."""
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    image = (
        "INSERT INTO images (id, media_type, width, height, bytes, created_at, mask_sha256, split, sequence) "
        "VALUES (:id, 'image/png', 4, 3, 100, '2026-01-01', :mask, :split, :sequence)"
    )
    model = "INSERT INTO models (version, name, path, state, created_at) VALUES (:version, 'm', 'p', :state, '2026')"
    with migrated.engine.begin() as connection:
        upgrade(connection, "0010")
        for version, state in (("first", "ready"), ("second", "ready"), ("third", "failed")):
            connection.execute(text(model), {"version": version, "state": state})
            activation = "INSERT INTO activations (version, at, reason) VALUES (:version, '2026-01-01', 'test')"
            connection.execute(text(activation), {"version": version})
        for sequence, (mask, split) in enumerate([("m1", "labelled"), (None, None)], 1):
            values = {"id": str(sequence), "mask": mask, "split": split, "sequence": sequence}
            connection.execute(text(image), values)
        upgrade(connection)
    with migrated.read() as session:
        first = session.scalars(select(ClassListRow)).one()
        assert (first.version, first.model, first.classes, first.changes) == (1, "second", None, {})
        rows = session.scalars(select(Image).order_by(Image.sequence))
        assert [(row.classes_version, row.class_pixels) for row in rows] == [(1, None), (None, None)]
        assert count_uncounted(session) == 1
    lists = ClassStore(migrated)
    assert (lists.history(), lists.newest(), lists.waiting_model()) == (None, None, "second")
    lists.define(["a", "b", "a"], [(1, 1, 1)] * 3, 255, "second")
    history = lists.history()
    assert history is not None
    assert history.present.names == ["a", "b", "a 2"]
    migrated.close()


def test_migration_ends_runs_judged(tmp_path: Path) -> None:
    migrated = Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    statuses = ["succeeded", "rejected", "failed", "cancelled"]
    run = "INSERT INTO runs (id, number, status, reason, created_at) VALUES (:id, :id, :status, 'auto', '2026-03-01')"
    with migrated.engine.begin() as connection:
        upgrade(connection, "0005")
        for number, status in enumerate(statuses):
            connection.execute(text(run), {"id": number, "status": status})
        upgrade(connection)
    with migrated.read() as session:
        found = session.scalars(select(Run.status).order_by(Run.number)).all()
    assert found == ["judged", "judged", "failed", "cancelled"]
    migrated.close()


def test_partial_indexes_arepartial_on_postgresql() -> None:
    """Without a server: the statements that it would get are compared."""
    statements: list[str] = []
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
    engine = create_mock_engine(
        "postgresql://", lambda sql, *_, **__: statements.append(str(sql.compile(dialect=dialect)))
    )
    metadata = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    event.listen(metadata, "before_create", partial_on_postgresql)
    metadata.create_all(engine, checkfirst=False)
    wheres = {
        sql.split()[3]: sql.partition(" WHERE ")[2] for sql in statements if sql.startswith("CREATE UNIQUE INDEX")
    }
    assert {name for name, where in wheres.items() if where} == {"one_active_run", "one_valid_key_a_name"}
    assert (wheres["one_active_run"], wheres["one_valid_key_a_name"]) == (ACTIVE_RUN, VALID_KEY)
    assert sum(sql.endswith(f" WHERE {UNLABELLED}") for sql in statements) == 1


def test_newest_revision_is_the_head_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST_REVISION]


def test_migrating_twice_changes_nothing(database: Database, tmp_path: Path) -> None:
    migrate(database.engine, tmp_path / "lock")
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_concurrent_processes_migrate_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib;"
        "from service.storage.database import Database; from service.storage.migrate import migrate;"
        "folder = pathlib.Path(sys.argv[1]); migrate(Database(f'sqlite:///{folder}/new.db').engine, folder / 'lock')"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4


def test_sqlite_pragmas(database: Database) -> None:
    with database.read() as session:
        pragmas = {p: session.scalar(text(f"PRAGMA {p}")) for p in ("journal_mode", "foreign_keys", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}


def test_error_rolls_back(database: Database) -> None:
    def failing() -> None:
        with database.write() as session:
            session.add(Model(version="v", name="n", path="p", state="ready"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 0


def test_times_are_read_in_utc(database: Database) -> None:
    created_at = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with database.write() as session:
        session.add(Model(version="v", name="n", path="p", state="ready", created_at=created_at))
    with database.read() as session:
        stored = session.get_one(Model, "v").created_at
    assert stored == created_at
    assert stored.tzinfo is UTC


def run(number: int, status: RunStatus) -> Run:
    return Run(id=f"run{number}", number=number, status=status, reason="auto")


def test_at_most_one_run_is_active(database: Database) -> None:
    with database.write() as session:
        session.add_all([run(1, "judged"), run(2, "failed"), run(3, "running")])
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(run(4, "queued"))
    with database.write() as session:
        session.get_one(Run, "run3").status = "judged"
    with database.write() as session:
        session.add(run(4, "queued"))


def test_concurrent_write_transactions_are_serialized(database: Database) -> None:
    """Threads count and then insert. If the lock were taken at the first write, some would get equal counts."""

    def count_and_insert() -> None:
        for _ in range(10):
            with database.write() as session:
                count = session.scalar(select(func.count()).select_from(Model))
                session.add(Model(version=f"v{count}", name="n", path="p", state="ready"))

    threads = [threading.Thread(target=count_and_insert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 40


def test_write_transaction_locks_before_its_first_statement(database: Database) -> None:
    """Changes of files before the first statement are under the lock as well."""
    other = sqlite3.connect(str(database.engine.url.database), timeout=0)
    with database.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
