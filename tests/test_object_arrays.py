"""Arrays of objects without unpickling: what is read, what is refused, and that nothing ever runs."""

import pickle
import pickletools
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import covis
from covis.datasets import object_arrays
from covis.datasets.object_arrays import read_array
from covis.errors import CovisError, DamagedFileError, MissingFileError

HEADER = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


def objects(*entries):
    """A one-dimensional array of these objects."""
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def npy(path, body, header=HEADER, *, version=1):
    """A .npy file of this header and what stands behind it."""
    text = header.encode("latin-1")
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body)
    return path


def same(a, b):
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (a.dtype.newbyteorder("="), a.shape) == (b.dtype.newbyteorder("="), b.shape) and all(
            same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


MADE = {
    "arrays": objects(np.array([3, 1], dtype=np.int64), np.array([], dtype=np.int64), np.array([7], dtype=np.uint16)),
    "lists": objects([1, 2], [], [[3], 4]),
    "texts": objects("ref/0.jpg", "query/ü.jpg", ""),
    "scalars": objects(1, 2**40, -5, "x"),
    "pairs": np.array([[0, [4, 5]], [1, [6]]], dtype=object),
    "arrays of text": objects(np.array(["a", "bcd"]), np.array([b"xy"])),
    "in columns": np.asfortranarray(np.array([[1, "a", 3], [4, "b", 6]], dtype=object)),
    "one twice": objects(*[np.arange(3)] * 4),
    "big": objects(np.arange(300), np.arange(70000, dtype=np.int32)),
    "other end first": objects(np.array([1, 2], dtype=">i4"), np.array([[1, 2], [3, 4]], order="F")),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", MADE)
def test_objects_are_read_as_numpy_reads_them(tmp_path, name, protocol):
    array = MADE[name]
    header = HEADER.replace("(2,)", str(array.shape))
    file = npy(tmp_path / "a.npy", pickle.dumps(array, protocol=protocol), header)
    assert same(read_array(file), np.load(file, allow_pickle=True))


@pytest.mark.parametrize("name", MADE)
def test_files_that_numpy_writes(tmp_path, name):
    np.save(tmp_path / "a.npy", MADE[name])
    assert same(read_array(tmp_path / "a.npy"), MADE[name])


def test_scalars_of_numpy_are_plain(tmp_path):
    np.save(tmp_path / "a.npy", objects(np.int64(4), np.str_("q.jpg"), np.uint8(3)))
    assert read_array(tmp_path / "a.npy").tolist() == [4, "q.jpg", 3]
    assert [type(one) for one in read_array(tmp_path / "a.npy")] == [int, str, int]


@pytest.mark.parametrize("array", [
    np.array([[1], [2]]), np.arange(6, dtype=np.uint8).reshape(2, 3), np.array(["a", "bé"]), np.array([True, False]), np.array(3),
    np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 4), dtype=np.int32), np.array([1.5, np.nan]), np.array([b"ab"]),
])  # fmt: skip
def test_plain_arrays(tmp_path, array):
    for version in (1, 2, 3):
        with (tmp_path / "a.npy").open("wb") as stream:
            np.lib.format.write_array(stream, array, version=(version, 0), allow_pickle=False)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
        assert read_array(tmp_path / "a.npy").dtype == array.dtype


def test_python_2_wrote_long_numbers(tmp_path):
    file = npy(tmp_path / "a.npy", np.arange(2).tobytes(), "{'descr': '<i8', 'fortran_order': False, 'shape': (2L,), }  \n")
    assert read_array(file).tolist() == [0, 1]
    # what Python 2 pickles of [0, [4]]: the bytes of arrays as text, and no text of its own
    body = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K\x02\x85cnumpy\ndtype\n"
        b"q\x04U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89](K\x00]K\x04aetb."
    )
    assert read_array(npy(tmp_path / "b.npy", body)).tolist() == [0, [4]]


class Bomb:
    """An object whose unpickling writes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("place", ["alone", "in an array", "in a list"])
def test_a_malicious_pickle_runs_nothing(tmp_path, place):
    target = tmp_path / "ran"
    bomb = Bomb(target)
    made = {"alone": bomb, "in an array": objects(bomb, 1), "in a list": objects([1, [bomb]], 2)}[place]
    file = npy(tmp_path / "bomb.npy", pickle.dumps(made, protocol=3))
    with pytest.raises(
        DamagedFileError, match=r"bomb\.npy must hold an array of numbers, text, or lists of them; its pickle names 'builtins\.getattr'"
    ):
        read_array(file)
    assert not target.exists()
    pickle.loads(pickle.dumps(made, protocol=3))
    assert target.exists()  # which it would have


def call(module, name, *arguments):
    """A pickle that calls something."""
    return b"\x80\x03c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(pickle.dumps(a, 2)[2:-1] for a in arguments) + b"tR."


@pytest.mark.parametrize(("body", "words"), [
    (call("os", "system", "true"), r"its pickle names 'os\.system'"),
    (call("posix", "system", "true"), r"names 'posix\.system'"),
    (call("builtins", "eval", "1"), r"names 'builtins\.eval'"),
    (call("builtins", "getattr", "a", "b"), r"names 'builtins\.getattr'"),
    (call("numpy", "load", "x.npy"), r"names 'numpy\.load'"),
    (call("numpy.f2py.diagnose", "run_command", "true"), r"names 'numpy\.f2py"),
    (call("numpy", "ndarray", 3), "in a way that numpy does not"),
    (call("numpy", "dtype", "V4"), "one of its entries is of the type _type"),
    (call("_codecs", "encode", "a", "rot13"), "encodes text in another way"),
    (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"names 'os\.system'"),
    (b"\x80\x02(S'true'\nios\nsystem\n.", "the instruction STRING"),
    (b"\x80\x02(U\x04trueios\nsystem\n.", "the instruction INST"),
    (b"\x80\x02cnumpy\nndarray\n(o.", "the instruction OBJ"),
    (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
    (b"\x80\x02}.", "the instruction EMPTY_DICT"),
    (b"\x80\x04\x8f.", "the instruction EMPTY_SET"),
    (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    (b"\x80\x02Pname\n.", "the instruction PERSID"),
    (b"\x80\x05\x97.", "the instruction NEXT_BUFFER"),
    (b"\x80\x02G?\xf0\x00\x00\x00\x00\x00\x00.", "the instruction BINFLOAT"),
    (b"\x80\x02U\x02os(K\x01tb.", "sets the state of something that is no array"),
    (b"\x80\x02]K\x01)R.", "calls what is no function"),
    (b"\x80\x02N.", "one of its entries is nothing"),
    (b"\x80\x02]q\x00h\x00a.", "lists stand in lists"),
])  # fmt: skip
def test_everything_else_is_refused(tmp_path, body, words):
    with pytest.raises(DamagedFileError, match=words) as refused:
        read_array(npy(tmp_path / "a.npy", body))
    assert "Nothing of it was run" in str(refused.value) or "truncated or foreign" in str(refused.value)


def test_instructions_that_make_things_of_python_are_not_known():
    risky = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "SETITEMS", "DICT"}
    known = {opcode.name for opcode in pickletools.opcodes}
    assert risky <= known
    assert object_arrays._STEPS.keys() < known - risky


def test_nothing_in_covis_loads_a_pickle():
    sources = [*Path(covis.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    for source in sources:
        assert not re.search(r"allow_pickle=True|pickle\.(loads?|Unpickler)\b|weights_only=False", source.read_text()), source


def test_few_bytes_that_stand_for_many_entries(tmp_path, monkeypatch):
    """Lists that hold one list 250 times, by reference: 250 to the fourth entries in 2.5 kB."""
    monkeypatch.setattr(object_arrays, "MOST", 200_000)
    body = b"\x80\x02(]q\x00(" + b"K\x01" * 250 + b"e"
    for level in range(1, 4):
        body += b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 250 + b"e"
    whole = npy(tmp_path / "a.npy", body + b"t.")
    assert whole.stat().st_size < 3000
    with pytest.raises(DamagedFileError, match=r"lists stand in lists more than 4 deep, or hold more than 200,000 entries"):
        read_array(whole)


def nested(levels):
    """Instructions for a tuple that holds one tuple twice, and so on down: 2 to the power of `levels` in 5 bytes a level."""
    return b")" + b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(levels))


LETTER = b"X\x01\x00\x00\x00C"
INTEGER = b"cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(("body", "words"), [
    (b"cnumpy\ndtype\n%s\x85R.", "names something by what is no text"),
    (LETTER + b"%s\x93.", "names something by what is no text"),
    (b"%s" + LETTER + b"\x93.", "names something by what is no text"),
    (b"cnumpy.core.numeric\n_frombuffer\n(" + LETTER + INTEGER + b"%s" + LETTER + b"tR.", "a shape must be at most 32 whole numbers"),
    (b"cnumpy.core.numeric\n_frombuffer\n(" + LETTER + b"%s)" + LETTER + b"tR.", "an array of what is no type"),
    (b"cnumpy.core.numeric\n_frombuffer\n(%s" + INTEGER + b")" + LETTER + b"tR.", "the bytes of an array are no bytes"),
    (b"cnumpy.core.multiarray\nscalar\n%s" + LETTER + b"\x86R.", "a number of what is no type"),
    (b"cnumpy.core.multiarray\nscalar\n" + INTEGER + b"%s\x86R.", "the bytes of an array are no bytes"),
    (b"cnumpy.core.multiarray\n_reconstruct\n%s\x85R.", "an array of a special class"),
    (b"c_codecs\nencode\n" + LETTER + b"%s\x86R.", "encodes text in another way"),
    (b"cnumpy\nndarray\n%s\x85R.", "in a way that numpy does not"),
    (b"%s" + LETTER + b"\x85R.", "calls what is no function"),
    (INTEGER + b"%sb.", "a compound type"),
    (b"%s.", "stand in lists more than 4 deep"),
])  # fmt: skip
def test_tuples_in_tuples_are_never_printed(tmp_path, body, words):
    """2^16 of them are printed in a megabyte, 2^60 for ever."""
    for levels in (16, 60):
        file = npy(tmp_path / "a.npy", b"\x80\x02" + body.replace(b"%s", nested(levels)), HEADER.replace("(2,)", "(1,)"))
        assert file.stat().st_size < 1000
        with pytest.raises(DamagedFileError, match=words) as refused:
            read_array(file)
        assert len(str(refused.value)) < 600


def test_arrays_in_arrays_are_counted_each_time(tmp_path, monkeypatch):
    """An array of objects that holds the one before twice, all of them beside one another: no reference is free."""
    monkeypatch.setattr(object_arrays, "MOST", 200_000)
    one = np.array([1, "x"], dtype=object)
    made = [one]
    for _ in range(30):
        two = np.empty(2, dtype=object)
        two[:] = [made[-1], made[-1]]
        made.append(two)
    file = npy(tmp_path / "a.npy", pickle.dumps(objects(*made), protocol=3), HEADER.replace("(2,)", "(31,)"))
    with pytest.raises(DamagedFileError, match=r"more than 4 deep"):
        read_array(file)


def test_few_bytes_that_stand_for_a_large_array_many_times(tmp_path, monkeypatch):
    monkeypatch.setattr(object_arrays, "SPARE", 1 << 20)
    array = np.zeros(1 << 18, dtype=np.uint8)
    for many, fits in ((4, True), (6, False)):
        file = npy(tmp_path / "a.npy", pickle.dumps(objects(*[array] * many), protocol=4), HEADER.replace("(2,)", f"({many},)"))
        if fits:
            assert len(read_array(file)) == many
            continue
        with pytest.raises(DamagedFileError, match=r"takes more than 1 MiB beyond its own size"):
            read_array(file)
    content = b"X" + struct.pack("<I", 1 << 18) + b"a" * (1 << 18) + b"q\x01"
    encoded = b"\x80\x02(" + content + b"c_codecs\nencode\nq\x02" + b"h\x02h\x01X\x06\x00\x00\x00latin1\x86R" * 6
    with pytest.raises(DamagedFileError, match=r"takes more than 1 MiB beyond its own size"):
        read_array(npy(tmp_path / "a.npy", encoded + b"t."))


def test_entries_are_limited(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", objects([1, 2, 3], [4]))
    assert len(read_array(tmp_path / "a.npy")) == 2
    monkeypatch.setattr(object_arrays, "MOST", 5)
    with pytest.raises(DamagedFileError, match=r"hold more than 5 entries together"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(("content", "words"), [
    (b"", "does not begin as a .npy file"),
    (b"\x93NUMPY\x01\x00", "does not begin as a .npy file"),
    (b"name,x\n1,2\n" * 9, "does not begin as a .npy file"),
    (b"PK\x03\x04" + b"0" * 99, "does not begin as a .npy file"),
    (b"\x93NUMPY\x04\x00" + b"0" * 99, "does not begin as a .npy file"),
    (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "its header is cut off"),
    ("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,), }", "its header does not say"),
    ("{'descr': '<i8', 'fortran_order': __import__('os'), 'shape': (1,), }", "its header does not say"),
    ("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }", "its header does not say"),
    ("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", "3 values of 8 bytes must follow; 16 bytes do"),
    ("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", "1 values of 8 bytes must follow; 16 bytes do"),
    ("{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999999999,), }", "9,999,999,999,999,999 values of 8 bytes must follow"),
    ("{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,), }", "must be at most 32 whole numbers .* below 2\\^63"),
    ("{'descr': '" + "x" * 5000 + "', 'fortran_order': False, 'shape': (2,), }", "has a name of 5,000 characters"),
    ("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2,), }", "values of the type '<M8"),
    ("{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", "values of the type '<c8'"),
    ("{'descr': '|V8', 'fortran_order': False, 'shape': (2,), }", r"values of the type '\|V8'"),
    ("{'descr': '<U0', 'fortran_order': False, 'shape': (2,), }", "values of the type '<U0'"),
])  # fmt: skip
def test_damaged_headers(tmp_path, content, words):
    file = tmp_path / "bad.npy"
    file.write_bytes(content) if isinstance(content, bytes) else npy(file, bytes(16), content)
    with pytest.raises(DamagedFileError, match=words) as refused:
        read_array(file)
    assert "bad.npy" in str(refused.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(MissingFileError, match=r"a\.npy must exist"):
        read_array(tmp_path / "a.npy")
    with pytest.raises(DamagedFileError, match=r"must be a \.npy file that can be read"):
        read_array(tmp_path)


def test_another_shape_than_the_header_says(tmp_path):
    file = npy(tmp_path / "a.npy", pickle.dumps(objects(1, 2, 3)))
    with pytest.raises(DamagedFileError, match=r"of the shape \(2,\), as its header says"):
        read_array(file)
    with pytest.raises(DamagedFileError, match="as its header says"):
        read_array(npy(file, pickle.dumps([1, 2])))
    with pytest.raises(DamagedFileError, match="more stands behind the array"):
        read_array(npy(file, pickle.dumps(objects(1, 2)) + b"x"))


def test_every_cut_is_refused(tmp_path, refuses_every_cut):
    for name in ("arrays", "pairs", "texts"):
        file = tmp_path / f"{name}.npy"
        np.save(file, MADE[name])
        refuses_every_cut(file, lambda file=file: read_array(file))


def test_no_flipped_bit_gives_a_traceback(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, objects(np.arange(3), [1, 2], "ab", np.int64(3)))
    whole = file.read_bytes()
    read = 0
    for place in range(len(whole)):
        for bit in (1, 0x55):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                read_array(file)
                read += 1
            except CovisError:
                continue
    assert read > 0


@given(st.binary(max_size=60))
def test_no_bytes_give_a_traceback(tmp_path_factory, body):
    file = npy(tmp_path_factory.getbasetemp() / "any.npy", b"\x80\x03" + body)
    with pytest.raises(CovisError):
        read_array(file)


def test_the_positives_of_msls_val(covis_data):
    file = covis_data / "metadata" / "msls_lists" / "msls_val_pIdx.npy"
    found = read_array(file)
    assert found.shape == (740,)
    assert same(found, np.load(file, allow_pickle=True))  # a public file, and the only one that a test loads so
