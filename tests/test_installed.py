"""The wheel, built and installed beside nothing of the checkout: does it run on its own?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOWN = """
import covis
from covis.town import Outing, Survey, TownSettings
outings = {"database": (Outing("day", 6),), "queries": (Outing("dusk", 4),)}
covis.write_town("town", layout="7scenes", preset=Survey(TownSettings(blocks=(1, 1)), size=(48, 64), val=1, **outings))
"""


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_runs(tmp_path: Path) -> None:
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path / "wheels"))
    (wheel,) = (tmp_path / "wheels").glob("covis-*.whl")
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *arguments], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = Path(run("-c", "import covis; print(covis.__file__)").strip())
    assert where.is_relative_to(site), "the checkout must not be what was imported"
    recipes = run("-m", "covis", "ls", "recipes")
    assert "town" in recipes
    assert "gcl-7scenes" in recipes
    assert (site / "bin" / "covis").exists()
    assert (site / "covis" / "py.typed").exists()
    run("-c", TOWN)
    assert "cph.npz" in run("-m", "covis", "label", "town", "--out", "labels", "--reach", "60", "--step", "4")
