"""Files: whole or not there, same content same bytes, and nothing foreign gets in."""

import errno
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis import files
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError
from covis.files import atomic_path, check_absent, decode_names, encode_names, load_arrays, read_json, save_arrays, write_json, write_text

KIND = {"kind": "thing", "version": 2, "names": ("a",)}
HEADER = {"format": "thing", "version": 2, "note": "ü"}
ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False])}


def test_arrays_come_back_and_give_the_same_bytes(tmp_path):
    first, second = save_arrays(tmp_path / "a.npz", HEADER, ARRAYS), save_arrays(tmp_path / "b.npz", dict(reversed(HEADER.items())), ARRAYS)
    assert first.read_bytes() == second.read_bytes()
    header, arrays = load_arrays(first, **KIND)
    assert header == HEADER
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])


def test_every_cut_and_flip_of_an_npz_is_refused(tmp_path, refuses_every_cut, never_wrong):
    path = save_arrays(tmp_path / "a.npz", HEADER, ARRAYS)
    refuses_every_cut(path, lambda: load_arrays(path, **KIND), cuts=80)
    never_wrong(
        path, lambda: load_arrays(path, **KIND), lambda found: found[0] == HEADER and (found[1]["a"] == ARRAYS["a"]).all(), flips=250
    )


@pytest.mark.parametrize(("header", "said"), [
    ({"format": "other", "version": 1}, "other"),
    ({"format": "thing", "version": 3}, "version 3"),
    ({"format": "thing", "version": 0}, "version 0"),
    ({"format": "thing", "version": "2"}, "version '2'"),
    ({"format": "thing"}, "version None"),
])  # fmt: skip
def test_other_kinds_and_newer_versions_are_refused(tmp_path, header, said):
    path = save_arrays(tmp_path / "a.npz", header, ARRAYS)
    with pytest.raises(DamagedFileError, match=said):
        load_arrays(path, **KIND)
    path = write_json(tmp_path / "a.json", header)
    with pytest.raises(DamagedFileError, match=said):
        read_json(path, kind="thing", version=2)


def test_an_array_that_is_missing_is_named(tmp_path):
    path = save_arrays(tmp_path / "a.npz", HEADER, {"b": ARRAYS["b"]})
    with pytest.raises(DamagedFileError, match="a is missing"):
        load_arrays(path, **KIND)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("inside", ["npz", "npy", "plain"])
def test_a_pickle_is_never_opened(tmp_path, inside):
    path = tmp_path / "a.npz"
    objects = np.array([Bomb()], dtype=object)
    if inside == "npz":
        np.savez(path, header=np.frombuffer(b'{"format": "thing", "version": 2}', dtype=np.uint8), a=objects)
    elif inside == "npy":
        with path.open("wb") as stream:
            np.save(stream, objects)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DamagedFileError, match="Write it again"):
        load_arrays(path, **KIND)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=ARRAYS["a"])
    with pytest.raises(DamagedFileError, match="foreign"):
        load_arrays(path, **KIND)
    np.savez(path, header=np.frombuffer(b"[1, 2]", dtype=np.uint8), a=ARRAYS["a"])
    with pytest.raises(DamagedFileError, match=r"header says \[1, 2\]"):
        load_arrays(path, **KIND)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(DamagedFileError):
        load_arrays(path, **KIND)
    with pytest.raises(MissingFileError, match=r"none\.npz"):
        load_arrays(tmp_path / "none.npz", **KIND)
    with pytest.raises(DamagedFileError):
        load_arrays(tmp_path, **KIND)


def test_what_cannot_be_stored_is_said_before_a_file_is_made(tmp_path):
    with pytest.raises(InvalidInputError, match="objects"):
        save_arrays(tmp_path / "a.npz", HEADER, {"a": np.array([None])})
    with pytest.raises(InvalidInputError, match=r"\.npz"):
        save_arrays(tmp_path / "a.bin", HEADER, ARRAYS)
    for wrong in (float("nan"), np.float64(1).reshape(1), object()):
        with pytest.raises(InvalidInputError, match=r"a\.npz"):
            save_arrays(tmp_path / "a.npz", HEADER | {"x": wrong}, ARRAYS)
        with pytest.raises(InvalidInputError, match=r"a\.json"):
            write_json(tmp_path / "a.json", {"x": wrong})
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)))
def test_names_come_back(names):
    assert decode_names(encode_names(tuple(names))) == tuple(names)


@pytest.mark.parametrize("names", [("",), ("a", ""), ("a\nb",)])
def test_names_that_a_line_cannot_hold_are_refused(names):
    with pytest.raises(InvalidInputError, match="one line"):
        encode_names(names)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", '{"a": 1', "[" * 100_000, "\x00", "not json"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DamagedFileError, match=r"a\.json"):
        read_json(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DamagedFileError, match="UTF-8"):
        read_json(path)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def killed(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        killed(temporary)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    path = save_arrays(tmp_path / "a.npz", HEADER, ARRAYS)
    before = path.read_bytes()
    with full_disk(2000), pytest.raises(OutputFailedError, match=r"a\.npz could not be written"):
        save_arrays(path, HEADER, {"a": np.zeros(100_000)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def refusing(monkeypatch, name, *, after=0):
    """Let the system refuse `Path.<name>` (read-only folder) from the `after`-th call on."""
    whole, calls = getattr(files.Path, name), []

    def refuse(self, *arguments, **options):
        calls.append(self)
        if len(calls) > after:
            raise OSError(errno.EROFS, "Read-only file system")
        return whole(self, *arguments, **options)

    monkeypatch.setattr(files.Path, name, refuse)


@pytest.mark.parametrize("name", ["replace", "mkdir", "write_text"])
def test_a_read_only_folder_is_one_sentence(tmp_path, monkeypatch, name):
    path = write_text(tmp_path / "a.txt", "old")
    refusing(monkeypatch, name)
    with pytest.raises(OutputFailedError, match="Read-only file system") as failed:
        write_text(path, "new")
    assert isinstance(failed.value, OSError)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_impossible_place_is_one_sentence(tmp_path):
    write_text(tmp_path / "file", "x")
    for path in (tmp_path / "file" / "a.txt", tmp_path / ("n" * 300)):
        with pytest.raises(OutputFailedError, match="could not be written"):
            write_text(path, "new")


def folder(path, text):
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "part").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path):
    folder(tmp_path / "out", "old")
    (tmp_path / "out" / "stale").write_text("x")
    folder(tmp_path / "out", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["part"]
    assert (tmp_path / "out" / "part").read_text() == "new"


@pytest.mark.parametrize("after", [0, 1])
def test_a_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, after):
    folder(tmp_path / "out", "old")
    whole, calls = files.Path.replace, []

    def once(self, target):
        calls.append(self)
        if len(calls) == after + 1:
            raise OSError(errno.EACCES, "Permission denied")
        return whole(self, target)

    monkeypatch.setattr(files.Path, "replace", once)
    with pytest.raises(OutputFailedError, match="Permission denied"):
        folder(tmp_path / "out", "new")
    assert (tmp_path / "out" / "part").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_does_not_matter(tmp_path):
    (tmp_path / ".a.txt.partial").mkdir()
    (tmp_path / ".a.txt.partial" / "x").write_text("stale")
    assert write_text(tmp_path / "a.txt", "new").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_our_own_errors_pass_through_a_write(tmp_path):
    with pytest.raises(MissingFileError, match="source"), atomic_path(tmp_path / "a"):
        raise MissingFileError("source")


def test_nothing_is_overwritten_unasked(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_absent(path)
    assert check_absent(path, overwrite=True) == path
    assert check_absent(tmp_path / "b.txt") == tmp_path / "b.txt"


def test_hashes_see_content_and_no_order(tmp_path):
    assert files.digest({"a": [1, 2]}) != files.digest({"a": [2, 1]})
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})
    one, two = write_text(tmp_path / "1", "x"), write_text(tmp_path / "2", "x")
    assert files.file_digest(one) == files.file_digest(two) != files.file_digest(write_text(tmp_path / "3", "y"))
