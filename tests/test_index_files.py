"""Indexes on disk: opened as they were saved, changed in place without a moment at which a kill would lose them, never misread."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from made_descriptors import CHEAP, places

from covis.descriptors import Descriptors
from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, OutputFailedError, SettingsDifferError
from covis.files import write_json
from covis.indexes import INDEXES, StoredIndex, index, load_index, shards, storage

QUERIES = places(12, seed=1, side="q")
FULL = Callable[[int], AbstractContextManager[None]]


def same(a: StoredIndex, b: StoredIndex) -> bool:
    """The names, and all that a search gives."""
    one, other = a.search(QUERIES, k=7), b.search(QUERIES, k=7)
    return (
        a.names == b.names
        and one.rows.tolist() == other.rows.tolist()
        and one.distances.tolist() == other.distances.tolist()
        and one.history == other.history
    )


@pytest.fixture(params=list(INDEXES))
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A saved index of each kind, of two shards with some deleted."""
    made = index([places(400), places(50, seed=2, side="e")], kind=request.param, options=CHEAP.get(request.param))
    made.delete(["d3", "e7"])
    return made.save(tmp_path / "index")


def test_an_index_comes_back_and_is_changed_in_place(stored: Path, tmp_path: Path) -> None:
    opened = load_index(stored)
    assert len(opened) == 448
    assert all(isinstance(one.vectors, np.memmap) for one in opened.shards.sets)
    assert same(opened, load_index(stored))
    assert same(opened, INDEXES[opened.kind].load(stored))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in stored.rglob("*") if file.is_file()}
    opened.add(places(30, seed=3, side="f"))
    opened.delete(["d0", "f2"])
    opened.add(places(1, seed=9))  # d0 anew
    assert opened.update() == stored
    assert same(opened, load_index(stored))
    kept = [file for file in before if file.parent != stored or file.suffix == ".npy"]
    assert len(kept) >= 4
    assert all((file.stat().st_mtime_ns, file.read_bytes()) == before[file] for file in kept)
    opened.delete(["e1"])  # and once more, from the same object
    opened.update()
    assert same(opened, load_index(stored))
    assert same(load_index(load_index(stored).save(tmp_path / "copy")), opened)
    assert not [file.name for file in stored.iterdir() if file.name.startswith(".")]


def test_nothing_to_write_is_a_change_of_the_manifest_alone(stored: Path) -> None:
    before = {file.name for file in stored.iterdir()}
    load_index(stored).update()
    assert {file.name for file in stored.iterdir()} == before


def test_vectors_are_not_read_when_an_index_is_opened(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the vectors were read")

    monkeypatch.setattr(shards, "squared_norms", read)
    monkeypatch.setattr(Descriptors, "check_finite", read)
    assert len(load_index(stored)) == 448


def test_indexes_of_the_first_version_are_read_and_grow(tmp_path: Path) -> None:
    parts = [places(20), places(30, seed=2, side="e")]
    for number, one in enumerate(parts):
        one.save(tmp_path / "old" / f"shard-{number:04d}")
    write_json(tmp_path / "old" / "index.json", {"format": "covis-index", "version": 1, "kind": "exact", "shards": 2})
    opened = load_index(tmp_path / "old")
    assert same(opened, index(parts))  # type: ignore[arg-type]
    opened.delete(["d1"])
    opened.add(places(5, seed=3, side="f"))
    opened.update()
    assert same(opened, load_index(tmp_path / "old"))
    assert json.loads((tmp_path / "old" / "index.json").read_text())["version"] == 2


def test_empty_sets_are_stored(tmp_path: Path) -> None:
    made = index([places(0), places(9)])
    assert same(load_index(made.save(tmp_path / "i")), made)  # type: ignore[arg-type]
    empty = load_index(index(places(0)).save(tmp_path / "empty"))
    assert len(empty) == 0
    empty.add(places(9))
    empty.update()
    assert same(load_index(tmp_path / "empty"), made)  # type: ignore[arg-type]


def test_an_index_may_replace_itself(stored: Path) -> None:
    opened = load_index(stored)
    opened.add(places(5, seed=3, side="f"))
    opened.save(stored, overwrite=True)
    assert same(load_index(stored), opened)


# Damage


def test_cut_files_are_refused(stored: Path, refuses_every_cut: Callable[..., None]) -> None:
    def load() -> None:
        load_index(stored)

    refuses_every_cut(stored / "index.json", load, harmless=1, cuts=30)
    refuses_every_cut(stored / "shard-0001" / "vectors.npy", load, cuts=6)
    refuses_every_cut(stored / "deleted-0000.npz", load, cuts=12)
    for file in stored.glob("part-*"):
        refuses_every_cut(file, load, cuts=8)


def test_missing_files_are_named(stored: Path) -> None:
    for file in [*stored.glob("part-*"), stored / "deleted-0000.npz", stored / "shard-0001" / "vectors.npy", stored / "index.json"]:
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(MissingFileError, match=file.name):
            load_index(stored)
        file.write_bytes(whole)
    load_index(stored)


def test_a_structure_that_was_changed_never_reaches_faiss(tmp_path: Path, never_wrong: Callable[..., None]) -> None:
    path = index(places(300), kind="hnsw", options=CHEAP["hnsw"]).save(tmp_path / "i")
    (file,) = path.glob("*.faiss")
    whole = load_index(path)
    never_wrong(file, lambda: load_index(path), lambda found: same(found, whole), flips=60)


def test_headers_that_do_not_fit_are_refused(stored: Path) -> None:
    header = json.loads((stored / "index.json").read_text())
    changes: list[dict[str, object]] = [
        {"shards": None}, {"shards": 2}, {"shards": [400]}, {"shards": [400, 51]}, {"shards": ["400", 50]},
        {"version": 3}, {"format": "covis-descriptors"}, {"kind": "exactt"}, {"kind": None}, {"kind": ["exact"]}, {"kind": "os:system"},
        {"options": {"no": 1}}, {"options": None}, {"options": {"rescore": -1}}, {"deleted": {"number": 0, "count": 3}},
        {"deleted": {"number": 0}}, {"deleted": 0}, {"parts": None}, {"parts": {"files": ["../../x.npy"]}}, {"parts": {"files": 3}},
        {"report": 3}, {"report": {"k": 20}}, {"change": "1"}, {"trials": 5}, {"trials": [3]}, {"id": 3},
    ]  # fmt: skip
    for change in changes:
        (stored / "index.json").write_text(json.dumps(header | change))
        with pytest.raises((DamagedFileError, MissingFileError), match=r"index|shard"):
            load_index(stored)
    for key in header:
        (stored / "index.json").write_text(json.dumps({name: value for name, value in header.items() if name != key}))
        with pytest.raises(DamagedFileError):
            load_index(stored)


def test_deleted_rows_must_be_rows(tmp_path: Path) -> None:
    path = index(places(30)).save(tmp_path / "i")
    opened = load_index(path)
    opened.delete(["d1"])
    opened.update()
    for rows in ([30], [-1], [0.5], [[1]]):
        header = {"format": "covis-index-deleted", "version": 1}
        storage.save_arrays(path / "deleted-0001.npz", header, {"rows": np.array(rows)})
        with pytest.raises(DamagedFileError, match="deleted rows must be in"):
            load_index(path)


# Changes that fail


def test_a_full_disk_leaves_the_index_as_it_was(stored: Path, full_disk: FULL, tmp_path: Path) -> None:
    before, files = load_index(stored), sorted(file.name for file in stored.iterdir())
    opened = load_index(stored)
    opened.add(places(300, seed=3, side="f"))
    opened.ready()
    for limit in (0, 100, 5_000, 20_000):
        with full_disk(limit), pytest.raises(OutputFailedError):
            opened.update()
        assert sorted(file.name for file in stored.iterdir()) == files
        assert same(load_index(stored), before)
        with full_disk(limit), pytest.raises(OutputFailedError):
            opened.save(tmp_path / "other")
        assert [file.name for file in tmp_path.iterdir()] == ["index"]
    opened.update()  # the disk is free again
    assert same(load_index(stored), opened)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_is_an_error_in_words(stored: Path) -> None:
    opened = load_index(stored)
    opened.delete(["d1"])
    stored.chmod(0o500)
    with pytest.raises(OutputFailedError):
        opened.update()
    stored.chmod(0o700)
    assert len(load_index(stored)) == 448


def test_an_index_that_another_changed_is_not_overwritten(stored: Path) -> None:
    first, second = load_index(stored), load_index(stored)
    first.delete(["d1"])
    first.update()
    second.delete(["d2"])
    with pytest.raises(SettingsDifferError, match="was changed by another process"):
        second.update()
    third = load_index(stored)
    with storage._alone(stored), pytest.raises(SettingsDifferError, match="is being changed"):
        third.update()
    third.delete(["d2"])
    third.update()
    assert len(load_index(stored)) == 446


@pytest.mark.parametrize("kind", ["exact", "pq"])
@pytest.mark.parametrize("what", ["other names", "other vectors"])
def test_an_index_that_took_its_place_is_not_changed(kind: str, what: str, tmp_path: Path) -> None:
    """One of as many shards, rows and changes: only what is in it tells them apart."""
    path = index(places(100), kind=kind).save(tmp_path / "i")
    opened = load_index(path)
    opened.delete(["d3", "d7"])
    index(places(100, side="b") if what == "other names" else places(100, seed=5), kind=kind).save(path, overwrite=True)
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(SettingsDifferError, match="was changed by another process"):
        opened.update()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == files


def test_the_same_changes_give_the_same_files(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        opened = load_index(index(places(100)).save(tmp_path / name))
        opened.delete(["d3"])
        opened.add(places(9, seed=2, side="e"))
        opened.update()
        found.append({file.relative_to(tmp_path / name): file.read_bytes() for file in sorted((tmp_path / name).rglob("*.json"))})
    assert found[0] == found[1]


def test_an_index_is_not_replaced_while_another_changes_it(tmp_path: Path) -> None:
    path = index(places(30)).save(tmp_path / "i")
    with storage._alone(path), pytest.raises(SettingsDifferError, match="is being changed"):
        index(places(40)).save(path, overwrite=True)
    assert len(load_index(path)) == 30


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_change_while_an_index_is_opened_is_no_damage(
    stored: Path,
    moment: str,
    replaced: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the manifest's reading and that of its files, and behind it, some times in a row."""
    real, left = storage._opened, [3]

    def opened(path: Path, manifest: dict[str, object], kinds: dict[str, type[StoredIndex]]) -> StoredIndex:
        found = real(path, manifest, kinds) if moment == "after" else None
        if left[0]:
            left[0] -= 1
            other = real(path, storage._manifest(path), kinds)
            other.delete([f"d{50 + left[0]}"])
            other.save(path, overwrite=True) if replaced else other.update()
        return found or real(path, manifest, kinds)

    monkeypatch.setattr(storage, "_opened", opened)
    found = load_index(stored)
    monkeypatch.undo()
    if replaced or moment == "before":
        assert len(found) == 445
    assert len(load_index(stored)) == (445 if replaced or moment == "before" else 447)


def test_only_what_was_opened_is_updated(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="save this one"):
        index(places(5)).update()  # type: ignore[attr-defined]
    opened = load_index(index(places(5)).save(tmp_path / "i"))
    shutil.rmtree(tmp_path / "i")
    with pytest.raises(MissingFileError):
        opened.update()


# Kills

CHANGE = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from made_descriptors import places
from covis.indexes import load_index

source, folder = Path({source!r}), Path({folder!r})
step = 0
while True:
    copy = folder / f"step-{{step:03d}}"
    shutil.copytree(source, copy)
    child = os.fork()
    if child == 0:
        opened = load_index(copy)
        opened.delete(["d9", "e9"])
        opened.add(places(20, seed=3, side="f"))
        opened.ready()
        left = step
        def counted(call):
            def instead(*given, **more):
                global left
                if left == 0:
                    os._exit(9)  # as a kill: nothing is tidied
                left -= 1
                return call(*given, **more)
            return instead
        for owner, name in ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "unlink"), (os, "mkdir"), (os, "rmdir")):
            setattr(owner, name, counted(getattr(owner, name)))
        opened.update()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == 9, status
    step += 1
print(step)
"""


@pytest.mark.parametrize("kind", ["exact", pytest.param("prefix", marks=pytest.mark.slow), pytest.param("pq", marks=pytest.mark.slow)])
def test_a_kill_at_any_step_leaves_the_index_before_or_after(kind: str, tmp_path: Path) -> None:
    """Before every call that renames, removes, makes or syncs a file or folder, in a process that ends there and then."""
    made = index([places(400), places(50, seed=2, side="e")], kind=kind, options=CHEAP.get(kind))
    made.delete(["d3"])
    source = made.save(tmp_path / "source")
    (tmp_path / "steps").mkdir()
    script = CHANGE.format(tests=str(Path(__file__).parent), source=str(source), folder=str(tmp_path / "steps"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps >= 12
    before, after = load_index(source), load_index(tmp_path / "steps" / f"step-{steps:03d}")
    assert (len(before), len(after)) == (449, 467)
    seen = []
    for step in range(steps):
        path = tmp_path / "steps" / f"step-{step:03d}"
        opened = load_index(path)
        seen.append(len(opened))
        assert same(opened, before if len(opened) == 449 else after)
        if len(opened) == 449:  # and it goes on from there, over what the kill left
            opened.delete(["d9", "e9"])
            opened.add(places(20, seed=3, side="f"))
            opened.update()
            assert same(load_index(path), after)
        else:
            opened.update()
        assert len([file for file in path.iterdir() if file.is_dir()]) == 3, "what the kill left is gone"
        assert not [file for file in path.iterdir() if file.name.startswith(".")]
    assert seen == sorted(seen)
    assert set(seen) == {449, 467}


ADDER = """
import sys
sys.path.insert(0, {tests!r})
from made_descriptors import places
from covis.indexes import load_index
opened = load_index({path!r})
number = len(opened.shards.sets)
while True:
    opened.add(places(40, seed=number, side=f"s{{number}}-"))
    opened.delete(["s%d-0" % number])
    opened.update()
    print(number, len(opened), flush=True)
    number += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "prefix", "pq"])
def test_a_real_kill_loses_nothing_that_was_acknowledged(kind: str, tmp_path: Path) -> None:
    path = index(places(400), kind=kind, options=CHEAP.get(kind)).save(tmp_path / "index")
    random = np.random.default_rng(0)
    for _ in range(4):
        script = ADDER.format(tests=str(Path(__file__).parent), path=str(path))
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as adder:
            assert adder.stdout is not None
            adder.stdout.readline()  # it is under way
            time.sleep(float(random.uniform(0.05, 0.4)))
            adder.send_signal(signal.SIGKILL)
            acknowledged = [line for line in adder.stdout.read().splitlines() if len(line.split()) == 2]
        opened = load_index(path)
        if acknowledged:
            assert len(opened) in (int(acknowledged[-1].split()[1]), int(acknowledged[-1].split()[1]) + 39)
        assert len(opened) == 400 + 39 * (len(opened.shards.sets) - 1)
        assert opened.search(QUERIES, k=5).k == 5


def test_errors_are_of_covis(stored: Path) -> None:
    """No folder of another kind gives a library's traceback."""
    for path in (stored / "shard-0000", stored.parent, stored / "index.json"):
        with pytest.raises(CovisError):
            load_index(path)
