"""The wheel, built and installed beside nothing of the checkout: does it run on its own?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
    assert "street" in recipes
    assert "gcl-7scenes" in recipes
    assert (site / "bin" / "covis").exists()
    assert (site / "covis" / "py.typed").exists()
    run("-m", "covis", "world", "streets", "--layout", "streets", "--preset", "tiny", "--seed", "1")
    assert "test-00.npz" in run("-m", "covis", "label", "streets", "--out", "labels", "--reach", "30", "--step", "8")
