"""What the tests share: a small posed RGB-D scene on disk, the real data where it is, and damage done to files."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from covis.config import load_recipe
from covis.datasets.seven_scenes import write_frame, write_splits
from covis.errors import CovisError, DamagedFileError
from covis.images import Scene
from covis.settings import LabelSettings, Recipe

settings.register_profile("covis", deadline=None, database=None, max_examples=40, suppress_health_check=list(HealthCheck))
settings.load_profile("covis")


@pytest.fixture(scope="session")
def covis_data():
    """The folder of real data sets; tests that need it are skipped where $COVIS_DATA does not name one."""
    folder = os.environ.get("COVIS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real data: set COVIS_DATA to a folder that holds 7scenes/redkitchen")
    return Path(folder)


@pytest.fixture
def room(tmp_path):
    """A function that writes a scene in the 7-Scenes layout: a camera before a wall, stepping sideways; returns its folder."""

    def write(name="room", *, train=(1,), test=(2,), frames=3):
        random = np.random.default_rng(5)
        folder = tmp_path / name
        for sequence in {*train, *test}:
            (folder / f"seq-{sequence:02d}").mkdir(parents=True, exist_ok=True)
            for frame in range(frames):
                pose = np.eye(4)
                pose[:3, 3] = 0.3 * frame + 0.1 * sequence, 0, 0
                rgb = random.integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
                write_frame(folder / f"seq-{sequence:02d}", frame, rgb=rgb, depth=np.full((12, 16), 2.0, dtype=np.float32), pose=pose)
        write_splits(folder, train=train, test=test, intrinsics=(15.0, 15.0, 7.5, 5.5))
        return folder

    return write


@pytest.fixture
def refuses_every_cut():
    """A function: cut the file at many places; `load` must say that it is damaged, each time.

    `harmless` bytes at the end may be missing without loss (a closing line break).
    """

    def check(path, load, *, harmless=0, cuts=48):
        whole = path.read_bytes()
        last = len(whole) - 1 - harmless
        places = {*np.linspace(0, last, cuts).astype(int).tolist(), *range(max(0, last - 12), last + 1)}
        for place in sorted(places):
            path.write_bytes(whole[:place])
            with pytest.raises(DamagedFileError) as refused:
                load()
            assert path.name in str(refused.value) or path.parent.name in str(refused.value), f"cut at {place}"
        path.write_bytes(whole)
        load()

    return check


@pytest.fixture
def never_wrong():
    """A function: flip a byte at many places; `load` gives the same thing or one of our errors, never another thing."""

    def check(path, load, same, *, flips=160):
        whole = path.read_bytes()
        for place in np.unique(np.linspace(0, len(whole) - 1, flips).astype(int)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            try:
                loaded = load()
            except CovisError:
                continue
            assert same(loaded), f"another thing was read after a flip at byte {place}"
        path.write_bytes(whole)

    return check


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond so many bytes: the system refuses the write, as a full disk does."""

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def tiny_survey():
    """A function: towns of one small block, so many of each split, with 24 database images and 16 queries each."""
    from covis.town import Outing, Survey, TownSettings

    def survey(*, train=0, val=0, test=0):
        return Survey(
            TownSettings(blocks=(1, 1), block=(60.0, 66.0)),
            database=(Outing("day", 24, spacing=2.0),),
            queries=(Outing("dusk", 16, spacing=3.0, lateral=-0.4),),
            size=(48, 64),
            train=train,
            val=val,
            test=test,
        )

    return survey


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory, tiny_survey) -> Path:
    """Three small towns in the 7-Scenes layout: trondheim and london teach, cph is asked."""
    from covis.town import write_town

    folder = tmp_path_factory.mktemp("town")
    write_town(folder, layout="7scenes", preset=tiny_survey(train=2, val=1), seed=3)
    return folder


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory, tiny_survey) -> list[Scene]:
    """Two small towns as scenes, miami and athens, with all that images can have; 24 database images and 16 queries each."""
    from covis.datasets import read
    from covis.town import write_town

    folder = tmp_path_factory.mktemp("towns")
    return [scene for place in write_town(folder, layout="table", preset=tiny_survey(test=2), seed=3) for scene in read("table", place)]


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A chain of seconds: it learns next to nothing, and goes through every step."""
    recipe = load_recipe("town")
    return replace(
        recipe,
        name="tiny",
        label=LabelSettings("surface", {"reach": 60.0, "relative_tolerance": 0.05, "step": 2}),
        model=replace(recipe.model, height=24, width=32),
        train=replace(recipe.train, steps=12, batch=8, checkpoint_every=4),
        whiten=replace(recipe.whiten, dim=8),
        evaluate=replace(recipe.evaluate, samples=50, k=25, protocols=("graded/0.5", "7scenes/gcl")),
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_world: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That chain, run once."""
    from covis.chain import run

    out = tmp_path_factory.mktemp("run") / "out"
    run(tiny_recipe, tiny_world, out=out)
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and lose much where several test processes share a machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
