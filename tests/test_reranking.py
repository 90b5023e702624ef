"""Re-ranking: the order, exact truth in a made scene, names, caches, threads, and the command."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_matchers import photograph, warped
from typer.testing import CliRunner

from covis import cli
from covis.cli.reranking import _ranked_scenes
from covis.cli.shell import read_scenes
from covis.datasets import write
from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.rasters import write_image
from covis.reranking import MATCHERS, Ransac, reorder, rerank
from covis.reranking.gains import gain, judge
from covis.reranking.matchers import identity
from covis.reranking.stores import Store, bounded

pytest.importorskip("cv2", reason="the extra local is not installed")
PLACES = 6


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Six places 100 m apart: each query is a warped photograph of its place, the last one of nowhere."""
    root = tmp_path_factory.mktemp("places")
    for place in range(PLACES):
        write_image(root / f"db/{place}.png", photograph(place, 180, 240))
        write_image(root / f"q/{place}.png", warped(photograph(place, 180, 240)))
    write_image(root / "q/nowhere.png", photograph(99, 180, 240))
    xy = np.array([[100.0 * place, 0] for place in range(PLACES)])
    database = Images(root, [f"db/{place}.png" for place in range(PLACES)], xy=xy)
    queries = Images(root, [*(f"q/{place}.png" for place in range(PLACES)), "q/nowhere.png"], xy=np.vstack([xy, [[9000, 0]]]))
    return Scene("places", "test", database, queries)


@pytest.fixture(scope="module")
def found(scene: Scene) -> Rankings:
    """A first search that puts the right place of every query at rank 5."""
    others = [[row for row in range(PLACES) if row != place % PLACES] for place in range(PLACES + 1)]
    rows = [[*line[:4], place % PLACES, *line[4:]] for place, line in enumerate(others)]
    distances = np.tile(np.linspace(0.2, 0.7, PLACES), (len(rows), 1))
    return Rankings(rows, distances, scene.queries.names, scene.database.names, {"index": "made"})


@pytest.fixture(scope="module")
def better(scene: Scene, found: Rankings) -> Rankings:
    return rerank(found, scene, options={"minimum": 15}, workers=2)


def same(a: Rankings, b: Rankings) -> bool:
    return np.array_equal(a.rows, b.rows) and np.array_equal(a.distances, b.distances)


# -- the order --


def test_reorder_by_hand() -> None:
    rows, distances = reorder([[3, 1, 4, 0, 5]], [[0.1, 0.2, 0.3, 0.4, 0.5]], [[0, 9, 20, 9]])
    assert rows.tolist() == [[4, 1, 0, 3, 5]]  # equal ones as they stood, the unverified behind, what is beyond in its place
    np.testing.assert_allclose(distances, [[-20, -9, -9, 0.1, 0.5]], rtol=1e-6)


def test_reorder_keeps_what_has_nothing_and_does_not_write_into_its_arguments() -> None:
    rows, distances = np.array([[2, 0], [1, 0]]), np.array([[0.5, 0.5], [np.nan, np.nan]])
    kept = rows.copy(), distances.copy()
    new_rows, new_distances = reorder(rows, distances, [[0, 0], [0, 8]])
    assert new_rows.tolist() == [[2, 0], [0, 1]]
    np.testing.assert_array_equal(new_distances, np.array([[0.5, 0.5], [-8, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(rows, kept[0])
    np.testing.assert_array_equal(distances, kept[1])


def test_rows_of_no_image_keep_their_rank() -> None:
    rows, distances = reorder([[3, -1, 5, -1, 6]], [[0.1, 0.2, 0.3, 0.4, 0.5]], [[0, 0, 12, 0]])
    assert rows.tolist() == [[5, -1, 3, -1, 6]]
    np.testing.assert_allclose(distances, [[-12, np.nan, 0.1, 0.4, 0.5]], rtol=1e-6)
    rows, distances = reorder([[3, -1]], [[0.1, 0.2]], [[0, 0]])
    np.testing.assert_allclose(distances, [[0.1, 0.2]], rtol=1e-6)


def test_reorder_makes_valid_rankings_that_hold_the_same_images() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        k, top = int(random.integers(1, 9)), int(random.integers(1, 9))
        rows = np.array([random.permutation(12)[:k] for _ in range(4)])
        rows[random.random(rows.shape) < 0.2] = -1
        distances = np.sort(random.random(rows.shape).astype(np.float32), axis=1)
        counts = random.integers(0, 4, (4, min(top, k))) * random.integers(0, 9, (4, min(top, k)))
        counts[rows[:, : counts.shape[1]] < 0] = 0
        again = Rankings(*reorder(rows, distances, counts), tuple("abcd"), tuple("0123456789ab"))  # it refuses what is no ranking
        np.testing.assert_array_equal(np.sort(again.rows, axis=1), np.sort(rows, axis=1))
        for query in range(4):
            by_row = dict(zip(rows[query].tolist(), counts[query].tolist(), strict=False))
            inliers = [by_row.get(row, 0) for row in again.rows[query].tolist() if row >= 0 and row in by_row]
            assert inliers == sorted(inliers, reverse=True)


# -- a made scene with a known answer --


def test_the_right_place_comes_from_rank_5_to_rank_1(scene: Scene, found: Rankings, better: Rankings) -> None:
    assert (found.rows[:PLACES, 0] != np.arange(PLACES)).all()
    assert better.rows[:PLACES, 0].tolist() == list(range(PLACES))
    assert (better.distances[:PLACES, 0] < -30).all()
    for place in range(PLACES):  # the others stay in the order they had
        assert [row for row in better.rows[place] if row != place] == [row for row in found.rows[place] if row != place]


def test_a_query_of_nowhere_keeps_its_ranking(found: Rankings, better: Rankings) -> None:
    np.testing.assert_array_equal(better.rows[-1], found.rows[-1])
    np.testing.assert_array_equal(better.distances[-1], found.distances[-1])


def test_history_says_everything(better: Rankings) -> None:
    story = better.history["reranked"]
    assert better.history["index"] == "made"
    assert story["matcher"] == "rootsift"
    assert story["ransac"] == {
        "model": "fundamental", "threshold": 3.0, "confidence": 0.999, "iterations": 1000, "minimum": 15, "seed": 0,
    }  # fmt: skip
    assert (story["size"], story["top"], story["pairs"]) == (640, PLACES, PLACES * (PLACES + 1))
    assert story["libraries"].keys() == {"opencv"}
    assert story["seconds"].keys() == {"features", "matching", "verification"}
    assert all(value > 0 for value in story["seconds"].values())
    assert story["images"]["prepared"] == 2 * PLACES + 1
    json.dumps(story)


def test_top_looks_no_farther(scene: Scene, found: Rankings) -> None:
    four = rerank(found, scene, top=4, options={"minimum": 15})
    assert same(four, found)  # the right one stands at rank 5
    five = rerank(found, scene, top=5, options={"minimum": 15})
    assert five.rows[:, 5].tolist() == found.rows[:, 5].tolist()
    assert five.rows[:PLACES, 0].tolist() == list(range(PLACES))
    assert five.history["reranked"]["top"] == 5


def test_the_result_does_not_depend_on_threads_or_memory(scene: Scene, found: Rankings) -> None:
    few = {"features": 300}
    plain = rerank(found, scene, workers=1, options=few)
    assert same(plain, rerank(found, scene, workers=4, options=few))
    assert same(plain, rerank(found, scene, workers=3, memory=1, options=few))


def test_a_cache_changes_nothing_and_is_used(scene: Scene, found: Rankings, better: Rankings, tmp_path: Path) -> None:
    chosen = {"minimum": 15}
    first = rerank(found, scene, workers=2, cache=tmp_path, options=chosen)
    assert same(better, first)
    again = rerank(found, scene, cache=tmp_path, options=chosen)
    assert same(better, again)
    assert again.history["reranked"]["images"] == {"prepared": 0, "read": 0}  # the queries themselves were done
    assert again.history["reranked"]["seconds"] == first.history["reranked"]["seconds"]
    other = rerank(found, scene, cache=tmp_path, options={"model": "homography"})
    assert other.history["reranked"]["images"] == {"prepared": 0, "read": 2 * PLACES + 1}  # the features serve another geometry
    assert rerank(found, scene, top=1, cache=tmp_path, options={"features": 200}).history["reranked"]["images"]["read"] == 0


def test_rows_of_a_part_in_another_order_by_key(scene: Scene, found: Rankings, better: Rankings) -> None:
    """As predictions give them: the queries that were asked, named by key; the answer is that of the whole."""
    part = [3, 0]
    keys = tuple(f"{place}" for place in part)
    few = Rankings(found.rows[part], found.distances[part], keys, found.database_names)
    again = rerank(few, scene, options={"minimum": 15})
    np.testing.assert_array_equal(again.rows, better.rows[part])
    assert again.query_names == keys


def test_no_query_and_no_result_are_allowed(scene: Scene, found: Rankings) -> None:
    none = Rankings(np.zeros((0, 3)), np.zeros((0, 3)), (), found.database_names)
    assert len(rerank(none, scene)) == 0
    empty = Rankings(np.zeros((1, 0)), np.zeros((1, 0)), ("q/0.png",), found.database_names)
    assert rerank(empty, scene).rows.shape == (1, 0)
    missing = Rankings([[-1, 0]], [[0.1, 0.2]], ("q/0.png",), found.database_names)
    assert rerank(missing, scene).rows.tolist() == [[-1, 0]]


# -- what is refused --


def test_windows_and_unknown_names_are_refused_in_words(scene: Scene, found: Rankings) -> None:
    windows = dataclasses.replace(found, query_names=("q/0.png,q/1.png", *found.query_names[1:]))
    with pytest.raises(InvalidInputError, match=r"names a window of frames"):
        rerank(windows, scene)
    other = dataclasses.replace(found, database_names=("db/elsewhere.png", *found.database_names[1:]))
    with pytest.raises(InvalidInputError, match=r"'db/elsewhere\.png' is none of its 6 database"):
        rerank(other, scene)


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"workers": 0}, {"memory": 0}, {"top": 2.5}, {"options": {"size": 3}}, {"options": {"model": "affine"}}]
)
def test_options_out_of_range_are_refused(scene: Scene, found: Rankings, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"must be"):
        rerank(found, scene, **wrong)  # type: ignore[arg-type]


def test_a_damaged_image_is_named_and_a_missing_one_before_anything_is_done(scene: Scene, found: Rankings, tmp_path: Path) -> None:
    (tmp_path / "db").symlink_to(scene.database.root / "db")
    (tmp_path / "q").mkdir()
    for name in scene.queries.names:
        (tmp_path / name).write_bytes((scene.queries.root / name).read_bytes())
    moved = Scene("m", "test", dataclasses.replace(scene.database, root=tmp_path), dataclasses.replace(scene.queries, root=tmp_path))
    whole = (tmp_path / "q/2.png").read_bytes()
    (tmp_path / "q/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match=r"q/2\.png must decode"):
        rerank(found, moved)
    (tmp_path / "q/2.png").unlink()
    with pytest.raises(MissingFileError, match=r"q/2\.png must exist"):
        rerank(found, moved, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


class Broken:
    """A matcher of a user's that gives no arrays."""

    def prepare(self, image: np.ndarray) -> object:
        return {"points": [1, 2]}

    def correspondences(self, a: object, b: object) -> object:
        return None


class Corners:
    """A matcher of a user's own, which stops after so many pairs: a process that is killed."""

    left = 10**9
    lock = threading.Lock()
    calls = 0

    def prepare(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": image.mean(axis=(0, 1))}

    def correspondences(self, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> np.ndarray:
        with Corners.lock:
            Corners.calls += 1
            if Corners.calls > Corners.left:
                raise KeyboardInterrupt
        grid = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2) * 30.0
        return np.hstack([grid, grid])[: 20 - int(np.abs(a["mean"] - b["mean"]).sum()) % 12]


def test_a_users_matcher_is_checked(scene: Scene, found: Rankings) -> None:
    with pytest.raises(InvalidInputError, match=r"must prepare a mapping of names and arrays"):
        rerank(found, scene, matcher=f"{__name__}:Broken")


def test_a_killed_run_goes_on_and_ends_with_the_same_result(scene: Scene, found: Rankings, tmp_path: Path) -> None:
    many = [row % len(found) for row in range(40)]
    names = [found.query_names[row] for row in many]
    queries = scene.queries.select(range(len(scene.queries)))
    long = Rankings(found.rows[many], found.distances[many], tuple(names), found.database_names)
    whole = Scene("long", "test", scene.database, queries)
    plain = rerank(long, whole, matcher=f"{__name__}:Corners")
    Corners.calls, Corners.left = 0, 20 * PLACES  # a block is 16 queries: one is done, the second is not
    with pytest.raises(KeyboardInterrupt):
        rerank(long, whole, matcher=f"{__name__}:Corners", cache=tmp_path, workers=1)
    Corners.calls, Corners.left = 0, 10**9
    again = rerank(long, whole, matcher=f"{__name__}:Corners", cache=tmp_path)
    assert Corners.calls == 24 * PLACES
    assert same(plain, again)


# -- images once, in memory and on the disk --


def test_a_store_prepares_once_and_forgets_the_oldest(scene: Scene, tmp_path: Path) -> None:
    matcher = Corners()
    made = Store(matcher, identity("mine", matcher, {}), size=64, folder=None, memory=60)  # two of 24 bytes
    paths = [scene.database.path(row) for row in range(3)]
    for row in (0, 1, 0, 2, 0):  # 1 is the one not asked for lately
        made.prepared(paths[row])
    assert made.computed == 3
    made.prepared(paths[1])
    assert made.computed == 4


def test_another_image_under_the_same_name_and_size_is_noticed(tmp_path: Path) -> None:
    """The key is the bytes: a name, a size and a time can all be the same."""
    matcher, path = Corners(), tmp_path / "one.bmp"
    means = []
    for value in (10, 200):
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)
        os.utime(path, (1, 1))
        made = Store(matcher, identity("mine", matcher, {}), size=64, folder=tmp_path / "cache", memory=1000)
        means.append(made.prepared(path)["mean"].tolist())
    assert means == [[10.0] * 3, [200.0] * 3]


def test_a_damaged_stored_file_is_made_again(scene: Scene, tmp_path: Path) -> None:
    matcher, path = Corners(), scene.database.path(0)
    for expected in (1, 0, 1):
        made = Store(matcher, identity("mine", matcher, {}), size=64, folder=tmp_path, memory=1000)
        first = made.prepared(path)["mean"]
        assert made.computed == expected
        if expected == 0:
            (file,) = tmp_path.glob("*.npz")
            file.write_bytes(file.read_bytes()[:50])
    np.testing.assert_array_equal(first, made.prepared(path)["mean"])
    assert [one.suffix for one in tmp_path.iterdir()] == [".npz"]  # and nothing beside it is left


def test_images_are_made_smaller_and_never_larger() -> None:
    image = photograph(0, 90, 160)
    assert bounded(image, 160) is image
    small = bounded(image, 80)
    assert small.shape == (45, 80, 3)
    np.testing.assert_array_equal(small, np.asarray(Image.fromarray(image).resize((80, 45), Image.Resampling.BILINEAR)))
    assert bounded(np.zeros((1, 500, 3), dtype=np.uint8), 100).shape == (1, 100, 3)


# -- the gain beside the cost --


def test_the_gain_is_that_of_the_scores(scene: Scene, found: Rankings, better: Rankings) -> None:
    before, rule = judge([found], [scene], protocol=protocol("radius/25"))
    assert rule.ks == (1, 5, 10)
    measured = gain(before, [better], [scene], protocol=rule)
    assert [measured.before.metrics[f"recall@{k}"].value for k in (1, 5)] == [0.0, 1.0]
    assert measured.after.metrics["recall@1"].value == 1.0
    assert measured.difference.differences["recall@1"].wins == PLACES
    assert measured.cost == pytest.approx(sum(better.history["reranked"]["seconds"].values()))
    assert "re-ranked, top 6" in str(measured)
    short = dataclasses.replace(found, rows=found.rows[:, :3], distances=found.distances[:, :3])
    assert judge([short], [scene], protocol=protocol("radius/25"))[1].ks == (1,)


# -- the command --


def covis(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(one) for one in arguments])
    if isinstance(result.exception, CovisError):
        return 1, result.stdout, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def data(scene: Scene, found: Rankings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write("table", scene, folder / "places", files="none")
    found.save(folder / "found.npz")
    return folder


def test_the_command_writes_what_the_function_gives_and_says_the_gain(data: Path, better: Rankings, tmp_path: Path) -> None:
    given = (data / "places/places", "--layout", "table", "--rankings", data / "found.npz")
    code, said, talk = covis("rerank", *given, "--out", tmp_path / "again.npz", "--option", "minimum=15", "--protocol", "radius/25")
    assert (code, said.split()) == (0, [str(tmp_path / "again.npz")])
    assert same(Rankings.load(tmp_path / "again.npz"), better)
    assert "recall@1" in talk
    assert "global alone" in talk
    code, _, talk = covis("rerank", *given, "--out", tmp_path / "again.npz")
    assert (code, "already there" in talk) == (1, True)
    code, _, talk = covis("rerank", *given, "--out", tmp_path / "new", "--top", "2")
    assert (code, "written to a file" in talk) == (1, True)
    code, said, _ = covis("rerank", *given, "--out", tmp_path / "two.npz", "--top", "2", "--json")
    assert json.loads(said)["reranked"][0]["top"] == 2


def test_a_file_of_one_scene_of_several(data: Path, scene: Scene, found: Rankings, tmp_path: Path) -> None:
    other = Scene("other", "test", scene.queries.select([0]), scene.database.select([0]))
    assert [one.name for one in _ranked_scenes(found, [other, scene], tmp_path)] == [scene.name]
    assert len(_ranked_scenes(found, [other, other], tmp_path)) == 2  # neither: a joint ranking
    with pytest.raises(InvalidInputError, match=r"must rank one scene; its names are those of"):
        _ranked_scenes(found, [scene, scene], tmp_path)
    code, _, talk = covis("rerank", data / "places/places", "--layout", "table", "--rankings", tmp_path / "none", "--out", tmp_path / "o")
    assert (code, "there is no" in talk) == (1, True)


def test_a_folder_of_rankings_gives_a_folder(data: Path, scene: Scene, found: Rankings, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = read_scenes(data / "places/places", "table", "test", None)[0].name
    found.save(tmp_path / f"in/{name}.npz")
    given = (data / "places/places", "--layout", "table", "--rankings", tmp_path / "in")
    code, said, _ = covis("rerank", *given, "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    assert (code, said.split()) == (0, [str(tmp_path / "out")])
    assert [one.name for one in (tmp_path / "out").iterdir()] == [f"{name}.npz"]
    assert same(Rankings.load(tmp_path / f"out/{name}.npz"), rerank(found, scene))


def test_the_page_names_every_matcher_and_option() -> None:
    page = (Path(__file__).parents[1] / "docs/reranking.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    for name, function in MATCHERS.items():
        for option, parameter in inspect.signature(function).parameters.items():
            default = parameter.default
            says = f"`{option}`" if default is inspect.Parameter.empty or option == "device" else f"`{option}` {str(default).lower()}"
            assert says.removesuffix(".0") in lines[f"`{name}`"], (name, option)
    for field in dataclasses.fields(Ransac):
        assert f"| {field.default} |" in lines[f"`{field.name}`"].replace("`", ""), field.name


# -- real photographs --


@pytest.mark.slow
def test_real_photographs_of_a_corridor_gain() -> None:
    """The search is the tiny grey image; RootSIFT must lift recall@1 on this set, where light and camera stay."""
    from covis.extraction import tiny_images
    from covis.indexes import index

    root = Path(os.environ.get("COVIS_DATA", "/nowhere")) / "corridor"
    if not root.is_dir():
        pytest.skip("real data: $COVIS_DATA/corridor is not there")
    sides = {side: sorted(path.relative_to(root).as_posix() for path in (root / side).glob("*.jpg")) for side in ("query", "ref")}
    queries, database = (
        Images(root, names, frame=[int(Path(name).stem) for name in names], sequence=[side] * len(names)) for side, names in sides.items()
    )
    corridor = Scene("corridor", "test", database, queries.select(range(0, len(queries), 3)))
    first = index(tiny_images(corridor.database)).search(tiny_images(corridor.queries), k=25)
    rule = dataclasses.replace(protocol("nordland/gmberton"), name="corridor/3", threshold=3.0)
    before, rule = judge([first], [corridor], protocol=rule)
    measured = gain(before, [rerank(first, corridor, top=25)], [corridor], protocol=rule)
    assert measured.difference.differences["recall@1"].difference > 0.1
