"""Descriptors in the making: a writer that goes on where it was killed, whatever was being written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covis import files, unfinished
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, OutputExistsError, OutputFailedError, SettingsDifferError
from covis.unfinished import DescriptorWriter

SETTINGS = {"size": (480, 640), "mean": (0.5, 0.25)}


def made(n: int = 7, dim: int = 3, dtype: str = "float32") -> Descriptors:
    vectors = np.random.default_rng(n).normal(size=(n, dim)).astype(dtype)
    return Descriptors(vectors, tuple(f"{i}.png" for i in range(n)), "m")


def writer(path: Path, d: Descriptors, **changed: Any) -> DescriptorWriter:
    options = {"dim": d.dim, "model": d.model, "dtype": str(d.vectors.dtype), "settings": SETTINGS, "engine": "torch"} | changed
    return DescriptorWriter(path, options.pop("names", d.names), **options)


def done_of(path: Path, d: Descriptors, **changed: Any) -> int:
    """How far a writer there would be."""
    with writer(path, d, **changed) as one:
        return one.done


def write(path: Path, d: Descriptors, *, rows: int, step: int, finish: bool = False, stop: BaseException | None = None) -> None:
    """Go on up to so many rows."""
    with writer(path, d) as one:
        for start in range(one.done, rows, step):
            one.append(d.vectors[start : min(start + step, rows)])
        if finish:
            one.finish()
        if stop is not None:
            raise stop


def bytes_of(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is recorded after every block."""
    monkeypatch.setattr(unfinished, "_RECORD_EVERY", 0.0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("killed", range(5))
def test_a_killed_writer_goes_on(tmp_path: Path, killed: int, dtype: str) -> None:
    """Abandoned after each block, and once after half a block's bytes: the resumed folder has the same bytes."""
    d = made(11, dtype=dtype)
    blocks = list(d.blocks(3))
    whole = writer(tmp_path / "whole", d)
    for block in blocks:
        whole.append(block)
    found = whole.finish()
    np.testing.assert_array_equal(found.vectors, d.vectors)
    assert (found.names, found.model) == (d.names, "m")
    begun = writer(tmp_path / "killed", d)
    for block in blocks[:killed]:
        begun.append(block)
    with (tmp_path / ".killed.unfinished/whole/vectors.npy").open("r+b") as stream:
        stream.seek(begun._end(begun.rows))
        stream.write(bytes(5))  # bytes that never counted
    assert not (tmp_path / "killed").exists()
    resumed = writer(tmp_path / "killed", d)
    assert resumed.done == resumed.rows == min(3 * killed, 11)
    for block in blocks[killed:]:
        resumed.append(block)
    resumed.finish()
    begun.close()
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert names_in(tmp_path) == ["killed", "whole"]


def test_what_is_written_is_what_numpy_would_save(tmp_path: Path) -> None:
    d = made(11)
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors)
        one.finish()
    np.save(tmp_path / "plain.npy", d.vectors)
    assert (tmp_path / "d/vectors.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


class Killed(BaseException):
    """What no code catches: it stands for a kill."""


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_between_any_two_steps_leaves_the_old_or_the_new_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    """Every call that changes the disk is the last one once; the next run ends with the bytes of an undisturbed one."""
    d, old = made(8), made(4, dim=2)
    blocks = [(d.vectors[:3], []), (d.vectors[3:4], [{"name": "4.png", "reason": "r"}]), (d.vectors[5:], [])]

    def attempt(path: Path) -> Descriptors:
        with writer(path, d, overwrite=overwrite) as one:
            start = one.done
            for at, (block, skipped) in zip((0, 3, 5), blocks, strict=True):
                if at >= start:
                    one.append(block, skipped=skipped)
            return one.finish()

    attempt(tmp_path / "expected")
    left = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return function(*arguments, **keywords)

        return call

    for moment in range(200):
        path = tmp_path / f"run{moment}" / "d"
        path.parent.mkdir()
        if overwrite:
            old.save(path)
        left = moment
        with monkeypatch.context() as patch:
            for module, name in ((os, "fsync"), (os, "ftruncate"), (os, "pwrite"), (Path, "replace"), (Path, "mkdir"), (shutil, "rmtree")):
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                attempt(path)
                killed = False
            except Killed:
                killed = True
        if path.exists():
            assert len(Descriptors.load(path)) in ((4, 7) if overwrite else (7,))
        attempt(path) if killed and not (path.exists() and len(Descriptors.load(path)) == 7) else unfinished.clear_traces(path)
        assert bytes_of(path) == bytes_of(tmp_path / "expected"), moment
        assert names_in(path.parent) == ["d"], moment
        if not killed:
            break
    assert 20 < moment < 199


def test_skipped_images_have_no_row(tmp_path: Path) -> None:
    d = made(5)
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors[:2], skipped=[{"name": "2.png", "reason": "gone"}])
    with writer(tmp_path / "d", d, engine="onnx") as one:
        assert (one.done, one.rows, one.skipped) == (3, 2, [{"name": "2.png", "reason": "gone"}])
        one.append(d.vectors[3:])
        found = one.finish()
    for again in (found, Descriptors.load(tmp_path / "d")):
        np.testing.assert_array_equal(again.vectors, d.vectors[[0, 1, 3, 4]])
        assert again.names == ("0.png", "1.png", "3.png", "4.png")
        assert again.history["extracted"]["skipped"] == [{"name": "2.png", "reason": "gone"}]
        assert again.history["extracted"]["engine"] == ["torch", "onnx"]
    assert (tmp_path / "d/vectors.npy").stat().st_size == 128 + 4 * 3 * 4


def test_progress_waits_for_a_second_and_for_the_end(tmp_path: Path) -> None:
    d = made(7)
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors[:3])
        one.append(d.vectors[3:5])
        assert json.loads((tmp_path / ".d.unfinished/progress.json").read_text())["images"] == 0
        one._recorded -= 1.01
        one.append(d.vectors[5:6])
        assert json.loads((tmp_path / ".d.unfinished/progress.json").read_text())["images"] == 6
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "d", d, rows=7, step=1, stop=KeyboardInterrupt())
    assert done_of(tmp_path / "d", d) == 7


@pytest.mark.parametrize(("changed", "said"), [
    ({"model": "other"}, "model: 'm' there, 'other' now"),
    ({"dtype": "float16"}, "dtype: 'float32' there, 'float16' now"),
    ({"dim": 4}, "dim: 3 there, 4 now"),
    ({"settings": {"size": (240, 320)}}, r"settings: \{'size': \[480, 640\]"),
    ({"names": tuple("abcdefg")}, "names"),
    ({"names": tuple("abc")}, "images: 7 there, 3 now"),
    ({"sizes": np.arange(7)}, "files: the sizes of those that are described already"),
])  # fmt: skip
def test_other_settings_are_refused_and_harm_nothing(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    d = made()
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors[:3])
    with pytest.raises(SettingsDifferError, match=rf"begun with other settings \(.*{said}.*--overwrite"):
        writer(tmp_path / "d", d, **changed)
    assert done_of(tmp_path / "d", d) == 3
    assert done_of(tmp_path / "d", d, overwrite=True) == 3
    assert done_of(tmp_path / "d", d, **changed, overwrite=True) == 0


def test_images_that_are_not_described_yet_may_change(tmp_path: Path) -> None:
    d, sizes = made(), np.arange(7)
    with writer(tmp_path / "d", d, sizes=sizes, settings={"files": "before"}) as one:
        one.append(d.vectors[:3])
    assert done_of(tmp_path / "d", d, sizes=np.where(sizes == 3, 99, sizes), settings={"files": "after"}) == 3
    with pytest.raises(SettingsDifferError, match="files"):
        writer(tmp_path / "d", d, sizes=np.where(sizes == 2, 99, sizes), settings={"files": "after"})


def test_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    d = made()
    one = writer(tmp_path / "d", d)
    for block in (np.zeros((2, 1), dtype=np.float32), np.zeros(3, dtype=np.float32), np.zeros((8, 3), dtype=np.float32)):
        with pytest.raises(InvalidInputError, match=r"must be \(n, 3\) with n <= 7"):
            one.append(block)
    assert one.done == 0
    with pytest.raises(InvalidInputError, match=r"7 descriptors were announced.*0 were written"):
        one.finish()
    with pytest.raises(InvalidInputError, match=r"must be Unicode"):
        writer(tmp_path / "e", d, names=("\udcff", *d.names[1:]))
    one.close()


@pytest.mark.parametrize("lost", ["progress.json", "begun.json", "whole/vectors.npy"])
def test_an_unfinished_folder_that_lacks_a_part_is_begun_anew(tmp_path: Path, lost: str) -> None:
    d = made()
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors[:3])
    (tmp_path / ".d.unfinished" / lost).unlink()
    assert done_of(tmp_path / "d", d) == 0


@pytest.mark.parametrize("part", ["progress.json", "begun.json", "whole/vectors.npy"])
def test_a_cut_file_of_an_unfinished_folder_is_never_taken_for_whole(tmp_path: Path, part: str) -> None:
    d = made()
    with writer(tmp_path / "d", d) as one:
        one.append(d.vectors[:6])
    file = tmp_path / ".d.unfinished" / part
    whole = file.read_bytes()
    for share in (0, 0.5, 0.7):
        file.write_bytes(whole[: int(share * len(whole))])
        again = writer(tmp_path / "d", d)
        assert again.done == 0
        again.close()


def test_a_full_disk_is_one_error_at_the_start_and_leaves_nothing(tmp_path: Path, full_disk: Any) -> None:
    d = made(5000)
    with full_disk(4000), pytest.raises(OutputFailedError, match=r"d could not be written: .*It takes 0\.1 MB"):
        writer(tmp_path / "d", d)
    assert names_in(tmp_path) == []


def test_a_disk_that_fills_later_keeps_what_was_recorded(tmp_path: Path, full_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot reserve."""
    monkeypatch.delattr(os, "posix_fallocate")
    d = made(5000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", lambda *_: None)
        assert done_of(tmp_path / "d", d) == 0
    with full_disk(30_000), pytest.raises(OutputFailedError, match=r"what was described is kept"):
        write(tmp_path / "d", d, rows=5000, step=1000)
    assert done_of(tmp_path / "d", d) == 2000
    write(tmp_path / "d", d, rows=5000, step=1000, finish=True)
    np.testing.assert_array_equal(Descriptors.load(tmp_path / "d").vectors, d.vectors)
    assert names_in(tmp_path) == ["d"]


def test_a_disk_that_fills_at_the_end_leaves_what_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = made(50)

    def fails(path: Path, value: Any) -> Path:
        if path.name == "header.json":
            raise OSError(28, "No space left on device")
        return files.write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "write_json", fails)
        with pytest.raises(OutputFailedError, match="No space left"):
            write(tmp_path / "d", d, rows=50, step=50, finish=True)
    assert not (tmp_path / "d").exists()
    write(tmp_path / "d", d, rows=50, step=50, finish=True)
    np.testing.assert_array_equal(Descriptors.load(tmp_path / "d").vectors, d.vectors)


def test_what_is_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    d = made()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        writer(tmp_path / "file", d, overwrite=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds 'a\.jpg', too"):
        writer(tmp_path / "photos", d, overwrite=True)
    with pytest.raises(OutputFailedError, match="could not be written"):
        writer(tmp_path / "file" / "d", d)
    assert names_in(tmp_path) == ["file", "photos"]


def test_nothing_to_describe(tmp_path: Path) -> None:
    assert len(writer(tmp_path / "d", made(0)).finish()) == 0
