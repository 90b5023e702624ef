"""covis whiten: what it fits on, several numbers of dimensions, and its options."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from covis.cli import app
from covis.descriptors import Descriptors
from covis.whitening import Whitening, fit_whitening


def described(seed: int, count: int = 60, dim: int = 6) -> Descriptors:
    random = np.random.default_rng(seed)
    vectors = (random.normal(size=(count, dim)) * np.arange(1, dim + 1)).astype(np.float32)
    return Descriptors(vectors, tuple(f"{seed}-{i}.jpg" for i in range(count)), "m")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for number, scene in enumerate(("a", "b")):
        for side_number, side in enumerate(("database", "queries")):
            described(2 * number + side_number).save(tmp_path / "asked" / scene / side)
    described(9).save(tmp_path / "taught" / "t" / "database")
    return tmp_path


def whiten(folders: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["whiten", str(folders / "asked"), "--out", str(folders / "out"), *options])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stderr


def test_it_fits_on_the_databases_together(folders: Path) -> None:
    assert "fitted on the database: 120 descriptors, 6 dimensions" in whiten(folders)
    expected = fit_whitening([described(0), described(2)])(described(3))
    np.testing.assert_array_equal(Descriptors.load(folders / "out" / "b" / "queries").vectors, expected.vectors)


def test_several_dimensions_go_to_folders_of_their_own(folders: Path) -> None:
    whiten(folders, "--dim", "4", "--dim", "2")
    for dim in (4, 2):
        expected = fit_whitening([described(0), described(2)], dim=dim)(described(1))
        found = Descriptors.load(folders / "out" / str(dim) / "a" / "queries")
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
        assert found.history == expected.history
    assert Whitening.load(folders / "out" / "whitening.npz").dim == 4


def test_it_fits_on_training_descriptors_and_says_so(folders: Path) -> None:
    assert f"fitted on the database of {folders / 'taught'}: 60" in whiten(folders, "--fit", str(folders / "taught"))
    expected = fit_whitening(described(9))(described(1))
    found = Descriptors.load(folders / "out" / "a" / "queries")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.history["whitened"]["fitted_on"] == f"database of {folders / 'taught'}"


def test_it_fits_on_the_scenes_that_are_chosen(folders: Path) -> None:
    assert "fitted on the database of b: 60 descriptors" in whiten(folders, "--scenes", "*,!a")
    found = Descriptors.load(folders / "out" / "a" / "queries")
    expected = fit_whitening(described(2), fitted_on="database of b")(described(1))
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.history == expected.history, "all scenes are whitened, and say by which"
    taught = folders / "taught"
    assert f"fitted on the database of t of {taught}: 60" in whiten(folders, "--overwrite", "--scenes", "t", "--fit", str(taught))


def test_no_scene_to_fit_on_is_one_sentence(folders: Path) -> None:
    result = CliRunner().invoke(app, ["whiten", str(folders / "asked"), "--out", str(folders / "out"), "--scenes", "c*"])
    assert "A scene must fit --scenes 'c*'" in str(result.exception)
    assert str(result.exception).endswith("holds a, b.")
    assert not (folders / "out").exists()


def test_its_options_are_those_of_the_function(folders: Path) -> None:
    whiten(folders, "--kind", "zca", "--shrinkage", "ledoit-wolf", "--power", "0.5", "--emulate-float16")
    expected = fit_whitening([described(0), described(2)], kind="zca", shrinkage="ledoit-wolf", power=0.5, emulate_float16=True)
    assert Whitening.load(folders / "out" / "whitening.npz").digest == expected.digest


def test_a_fit_in_half_precision_is_an_option_of_its_own(folders: Path) -> None:
    described(0, count=200).save(folders / "asked" / "a" / "database", overwrite=True)
    for option, emulate in (("--emulate-float16", True), ("--emulate-float16-fit", "fit")):
        whiten(folders, "--overwrite", option)
        expected = fit_whitening([described(0, count=200), described(2)], emulate_float16=emulate)  # type: ignore[arg-type] # one of the two
        assert Whitening.load(folders / "out" / "whitening.npz").digest == expected.digest


@pytest.mark.parametrize("shrinkage", ["2", "much", "[1]"])
def test_a_bad_shrinkage_is_one_sentence(folders: Path, shrinkage: str) -> None:
    result = CliRunner().invoke(app, ["whiten", str(folders / "asked"), "--out", str(folders / "out"), "--shrinkage", shrinkage])
    assert "shrinkage must be a share in [0, 1]" in str(result.exception)
    assert not (folders / "out").exists()


def test_several_dimensions_are_looked_at_before_anything_is_written(folders: Path) -> None:
    for dims, said in ((["4", "1000"], "carry 6 dimensions; asked for 1000"), (["0", "4"], "Several --dim must each be at least 1")):
        options = [part for dim in dims for part in ("--dim", dim)]
        result = CliRunner().invoke(app, ["whiten", str(folders / "asked"), "--out", str(folders / "out"), *options])
        assert said in str(result.exception)
        assert not (folders / "out").exists()
    whiten(folders, "--dim", "4", "--dim", "4")
    assert Descriptors.load(folders / "out" / "a" / "queries").dim == 4
