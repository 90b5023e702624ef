"""Matchers and RANSAC: exact truth from a known warp, oracles, and learned ones with weights from a file."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.reranking import MATCHERS, Ransac
from covis.reranking.matchers import checked_correspondences, identity, open_matcher
from covis.reranking.nearest import mutual_nearest, squared_distances
from covis.reranking.opencv import rooted

cv2 = pytest.importorskip("cv2", reason="the extra local is not installed")
WARP = np.array([[0.9, 0.08, 12.0], [-0.06, 0.95, 15.0], [1e-4, -5e-5, 1.0]])


def photograph(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A textured picture: noise of several scales, and rectangles with corners."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for step in (4, 10, 24):
        noise = random.integers(0, 256, (height // step + 1, width // step + 1, 3), dtype=np.uint8)
        picture += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) / 3
    for _ in range(25):
        x, y = random.integers(0, width - 40), random.integers(0, height - 40)
        picture[y : y + random.integers(8, 40), x : x + random.integers(8, 40)] = random.integers(0, 256, 3)
    return picture.clip(0, 255).astype(np.uint8)


def warped(image: np.ndarray) -> np.ndarray:
    return cv2.warpPerspective(image, WARP, (image.shape[1], image.shape[0]))


def moved(points: np.ndarray) -> np.ndarray:
    """Where WARP puts them."""
    there = np.hstack([points, np.ones((len(points), 1))]) @ WARP.T
    return there[:, :2] / there[:, 2:]


@pytest.mark.parametrize(("name", "options"), [("rootsift", {}), ("rootsift", {"upright": True}), ("orb", {})])
def test_a_known_warp_is_found_and_another_picture_is_not(name: str, options: dict[str, object]) -> None:
    matcher = open_matcher(name, MATCHERS, options, shared=())
    image = photograph(0)
    a, b, other = (matcher.prepare(one) for one in (image, warped(image), photograph(1)))
    same, apart = matcher.correspondences(a, b), matcher.correspondences(a, other)
    error = np.linalg.norm(moved(same[:, :2]) - same[:, 2:], axis=1)
    assert len(same) > 60
    assert np.mean(error < 3) > 0.9  # the truth is exact: points land where the warp puts them
    for ransac in (Ransac(), Ransac("homography")):
        assert ransac.inliers(same) >= 0.9 * np.count_nonzero(error < 2)
        assert ransac.inliers(apart) < 15
    assert abs(Ransac("homography", threshold=2).inliers(same) - np.count_nonzero(error < 2)) <= 0.05 * len(same)


def test_rootsift_matches_as_a_plain_loop_does() -> None:
    matcher = MATCHERS["rootsift"](features=60)
    a, b = matcher.prepare(photograph(0)), matcher.prepare(warped(photograph(0)))
    assert len(a["points"]) <= 60
    assert a["vectors"].dtype == np.uint8
    first, second = (np.sqrt(one["vectors"] / one["vectors"].sum(axis=1, keepdims=True, dtype=float)) for one in (a, b))
    distances = np.linalg.norm(first[:, None] - second[None], axis=2)
    expected = []
    for row, line in enumerate(distances):
        nearest, next_one = np.argsort(line, kind="stable")[:2]
        if distances[:, nearest].argmin() == row and line[nearest] < 0.8 * line[next_one]:
            expected.append([*a["points"][row], *b["points"][nearest]])
    assert len(expected) > 10
    np.testing.assert_array_equal(matcher.correspondences(a, b), np.array(expected, dtype=np.float32))


def test_orb_counts_bits() -> None:
    """Through the signs' product, what a count of unequal bits gives."""
    matcher = MATCHERS["orb"](features=50)
    a, b = (matcher.prepare(photograph(seed)) for seed in (0, 1))
    unequal = np.unpackbits(a["vectors"][:, None] ^ b["vectors"][None], axis=2).sum(axis=2)
    pairs = mutual_nearest(unequal.astype(float), ratio=0.8)
    expected = np.hstack([a["points"][pairs[:, 0]], b["points"][pairs[:, 1]]])
    np.testing.assert_array_equal(matcher.correspondences(a, b), expected)


def test_rooted_vectors_have_length_one_and_survive_zeros() -> None:
    vectors = np.random.default_rng(0).integers(0, 256, (20, 128), dtype=np.uint8)
    vectors[3] = 0
    lengths = np.linalg.norm(rooted(vectors), axis=1)
    np.testing.assert_allclose(np.delete(lengths, 3), 1, atol=1e-6)
    assert lengths[3] == 0


def test_mutual_nearest_needs_a_second_and_leaves_ties_out() -> None:
    assert mutual_nearest(np.zeros((3, 1))).shape == (0, 2)
    assert mutual_nearest(np.zeros((0, 4))).shape == (0, 2)
    assert mutual_nearest(np.array([[0.5, 0.5, 0.9]])).shape == (0, 2)  # which of two equal ones?
    distances = np.array([[1.0, 5.0], [0.5, 5.0]])
    assert mutual_nearest(distances).tolist() == [[1, 0]]  # row 0 likes column 0 too, which prefers row 1
    kept = distances.copy()
    mutual_nearest(distances)
    np.testing.assert_array_equal(distances, kept)
    unit = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(squared_distances(unit, unit), ((unit[:, None] - unit[None]) ** 2).sum(-1), atol=1e-6)


def test_an_image_without_features_matches_nothing() -> None:
    for name in ("rootsift", "orb"):
        matcher = MATCHERS[name]()
        flat, full = matcher.prepare(np.full((50, 60, 3), 128, dtype=np.uint8)), matcher.prepare(photograph(0))
        assert flat["points"].shape == (0, 2)
        for pair in ((flat, full), (full, flat), (flat, flat)):
            assert matcher.correspondences(*pair).shape == (0, 4)


def correspondences(inside: int, outside: int, seed: int = 0) -> np.ndarray:
    """Pairs that follow WARP, and pairs that follow nothing."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 300, (inside + outside, 2))
    there = np.vstack([moved(points[:inside]), random.uniform(0, 300, (outside, 2))])
    return np.hstack([points, there]).astype(np.float32)


def test_ransac_counts_the_inliers_of_a_known_model() -> None:
    found = correspondences(80, 120)
    assert abs(Ransac("homography").inliers(found) - 80) <= 2  # a stray may fit by chance
    assert Ransac("fundamental").inliers(found) >= 80
    assert Ransac("homography").inliers(found[80:]) < 12


def test_ransac_is_the_same_on_every_call_and_in_every_thread() -> None:
    found = [correspondences(15, 60, seed) for seed in range(12)]
    for ransac in (Ransac(iterations=50), Ransac("homography", iterations=50)):
        alone = [ransac.inliers(one) for one in found]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                assert list(pool.map(ransac.inliers, found)) == alone
    seeds = {tuple(Ransac(iterations=20, seed=seed).inliers(one) for one in found) for seed in range(5)}
    assert len(seeds) > 1  # the seed is what decides, so it must be taken


@pytest.mark.parametrize("model", ["fundamental", "homography"])
def test_ransac_gives_none_where_there_is_nothing_to_fit(model: str) -> None:
    ransac = Ransac(model)  # type: ignore[arg-type]
    for count in range(ransac.least):
        assert ransac.inliers(correspondences(count, 0)) == 0
    same = np.tile(correspondences(1, 0), (30, 1))
    line = np.repeat(np.arange(30, dtype=np.float32)[:, None], 4, axis=1)
    assert Ransac("homography").inliers(same) == 0
    assert Ransac("homography").inliers(line) == 0
    assert Ransac(model, minimum=41).inliers(correspondences(40, 0)) == 0  # type: ignore[arg-type]
    assert Ransac(model, minimum=40).inliers(correspondences(40, 0)) == 40  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"model": "affine"},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"confidence": 1.0},
        {"iterations": 0},
        {"minimum": -1},
        {"seed": -1},
    ],
)
def test_ransac_refuses(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"must be"):
        Ransac(**options)  # type: ignore[arg-type]


class Thirds:
    """A user's own matcher: the points of a grid, moved by nothing."""

    def prepare(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"shape": np.array(image.shape)}

    def correspondences(self, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((0, 4))


def test_names_and_options_are_held_against_the_matcher() -> None:
    assert isinstance(open_matcher(f"{__name__}:Thirds", MATCHERS, {}, shared=()), Thirds)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'rootsift'"):
        open_matcher("root-sift", MATCHERS, {}, shared=())
    with pytest.raises(InvalidInputError, match=r"no option 'feature'\. Did you mean 'features'"):
        open_matcher("rootsift", MATCHERS, {"feature": 10}, shared=("size",))
    with pytest.raises(InvalidInputError, match=r"must be given the option weights and matcher_weights"):
        open_matcher("lightglue", MATCHERS, {}, shared=())
    with pytest.raises(InvalidInputError, match=r"must be a function of keyword options"):
        open_matcher("builtins:dict", MATCHERS, {}, shared=())
    with pytest.raises(InvalidInputError, match=r"must have the methods prepare and correspondences"):
        open_matcher("nothing", {"nothing": lambda: None}, {}, shared=())  # type: ignore[dict-item, return-value]
    for options in ({"ratio": 1.5}, {"features": 0}, {"features": 1.5}, {"contrast": -1.0}, {"edge": "high"}):
        with pytest.raises(InvalidInputError, match=r"got"):
            open_matcher("rootsift", MATCHERS, options, shared=())
    for wrong in (np.zeros((3, 3)), np.full((2, 4), np.nan), "points"):
        with pytest.raises(InvalidInputError, match=r"finite numbers \(m, 4\)"):
            checked_correspondences(wrong, matcher="mine")


def test_a_files_bytes_are_part_of_the_identity_and_its_folder_is_not(tmp_path: Path) -> None:
    made = []
    for place, content in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "w.pth").write_text(content)
        made.append(identity("disk", Thirds(), {"weights": str(tmp_path / place / "w.pth")}))
    assert made[0] == made[1] != made[2]
    assert made[0]["options"] == {"weights": "w.pth"}


def test_rootsift_loads_no_torch() -> None:
    code = (
        "import sys; import numpy as np; from covis.reranking import MATCHERS\n"
        "MATCHERS['rootsift']().prepare(np.zeros((32, 32, 3), dtype=np.uint8))\n"
        "assert not {'torch', 'kornia'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- learned matchers: the loading is real, the weights are random --


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Path]:
    """Random weights as the published files hold them: with their wrappers and older names."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("kornia.feature", reason="the extra matchers is not installed")
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        glue = library.LightGlue(features=None, input_dim=128).state_dict()
        old = {name: value for name, value in glue.items() if name != "confidence_thresholds"}
        for layer in range(9):
            old = {name.replace(f"transformers.{layer}.self_attn", f"self_attn.{layer}"): value for name, value in old.items()}
            old = {name.replace(f"transformers.{layer}.cross_attn", f"cross_attn.{layer}"): value for name, value in old.items()}
        stored = {
            "disk": {"extractor": library.DISK().state_dict()},
            "lightglue": old,
            "loftr": {"state_dict": {f"matcher.{name}": value for name, value in library.LoFTR(None).state_dict().items()}},
            "xfeat": library.XFeat().net.state_dict(),
        }
    for name, value in stored.items():
        torch.save(value, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in stored}


def options_of(name: str, files: dict[str, Path]) -> dict[str, object]:
    if name == "lightglue":
        return {"weights": files["disk"], "matcher_weights": files["lightglue"], "features": 60, "score": 0.0}
    return {
        "disk": {"weights": files["disk"], "features": 60, "ratio": 1.0},
        "loftr": {"weights": files["loftr"], "score": 0.0},
        "xfeat": {"weights": files["xfeat"], "features": 60, "detection": 0.0, "ratio": 1.0},
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disk", "lightglue", "loftr", "xfeat"])
def test_learned_matchers_load_a_local_file_and_match(name: str, files: dict[str, Path]) -> None:
    matcher = open_matcher(name, MATCHERS, options_of(name, files), shared=())
    assert {"kornia", "torch"} <= matcher.libraries.keys()
    image = photograph(0, 64, 96)
    a, b = matcher.prepare(image), matcher.prepare(image.copy())
    assert all(isinstance(array, np.ndarray) for array in a.values())
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    found = checked_correspondences(matcher.correspondences(a, b), matcher=name)
    np.testing.assert_array_equal(found, matcher.correspondences(a, b))
    if name in ("disk", "xfeat"):  # mutual nearest neighbours of an image with itself: each point with itself
        assert len(found) > 20
        np.testing.assert_array_equal(found[:, :2], found[:, 2:])
    assert (found >= -8).all()
    assert (found <= 104).all()


@pytest.mark.slow
def test_learned_matchers_give_what_the_library_gives(files: dict[str, Path]) -> None:
    """The parts of the seam, put together, against kornia's own call on two images."""
    import torch
    from kornia.feature import LoFTR

    matcher = MATCHERS["loftr"](**options_of("loftr", files))
    images = [photograph(seed, 64, 96) for seed in (0, 1)]
    ours = matcher.correspondences(*(matcher.prepare(one) for one in images))
    theirs = LoFTR(None)
    theirs.load_state_dict(torch.load(files["loftr"], weights_only=True)["state_dict"])
    theirs.eval().coarse_matching.thr = 0.0
    grey = [torch.tensor(one @ np.array([0.299, 0.587, 0.114]) / 255).float()[None, None] for one in images]
    with torch.inference_mode():
        found = theirs({"image0": grey[0], "image1": grey[1]})
    expected = np.hstack([found["keypoints0"].numpy(), found["keypoints1"].numpy()])
    assert len(expected) > 0
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=0.05)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_in_words(files: dict[str, Path], tmp_path: Path) -> None:
    import torch

    with pytest.raises(MissingFileError, match=r"nowhere\.pth must exist"):
        MATCHERS["disk"](weights=tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(DamagedFileError, match=r"text\.pth"):
        MATCHERS["disk"](weights=tmp_path / "text.pth")
    with pytest.raises(InvalidInputError, match=r"must fit DISK entry by entry"):
        MATCHERS["disk"](weights=files["xfeat"])
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(InvalidInputError, match=r"must be a state dict"):
        MATCHERS["xfeat"](weights=tmp_path / "none.pth")
    with pytest.raises(InvalidInputError, match=r"device must be one that torch knows"):
        MATCHERS["xfeat"](weights=files["xfeat"], device="abacus")
