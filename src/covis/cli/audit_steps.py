"""What covis audit does: each audit that the data allows, the reasons of those that it does not, and the pairs that leak."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covis.cli.shell import say
from covis.errors import DamagedFileError, MissingFileError

if TYPE_CHECKING:
    from PIL import Image

    from covis.audits import Duplicates, Fingerprints
    from covis.images import Images, Scene

ALONE = "no other set was given (--against, --against-split)"
ON_SHEET = 24
"""Pairs that are drawn."""


@dataclass
class Audit:
    """What is audited, and what was found so far.

    Attributes:
        scenes: of the data.
        other: of another set, or split.
        settings: numbers and names of the command line.
        files: "cache", "labels", "descriptors", "against" (its descriptors) and "work".
        model: what `open_model` takes.
        opening: how it is opened.
        sections: what was found, a section an audit and scene.
        leaks: pairs that leak, and models that depend on their batch.
        suspects: how suspect, and a pair of files with a caption.
    """

    scenes: Sequence[Scene]
    other: Sequence[Scene] | None
    settings: dict[str, Any]
    files: dict[str, Path | None]
    model: str | None
    opening: dict[str, Any]
    sections: list[dict[str, Any]] = field(default_factory=list)
    leaks: int = 0
    suspects: list[tuple[tuple[int, float], tuple[Path, Path, str]]] = field(default_factory=list)
    _describer: Any = None

    def run(self, wanted: Sequence[str]) -> None:
        """Do the audits of these names."""
        audits: dict[str, Callable[[], None]] = {
            "copies": self._copies,
            "descriptors": self._descriptors,
            "places": self._places,
            "facing": self._facing,
            "labels": self._labels,
            "batches": self._batches,
        }
        for name in wanted:
            audits[name]()

    def draw(self, sheet: Path | None) -> Path | None:
        """The sheet of suspect pairs, if it is asked for and there are any."""
        from covis.reports.suspects import suspect_sheet

        if sheet is None:
            return None
        if not self.suspects:
            say(f"{sheet} is not drawn: no pair of images is suspect")
            return None
        worst = [pair for _, pair in sorted(self.suspects, key=lambda one: one[0])[:ON_SHEET]]
        return suspect_sheet(worst, sheet, title=f"Suspected copies: {len(worst)} of {len(self.suspects)} pairs")

    def _add(self, audit: str, of: str, found: Any) -> None:
        self.sections.append({"audit": audit, "of": of, "found": found.as_dict()})

    def _skip(self, audit: str, of: str, reason: str) -> None:
        self.sections.append({"audit": audit, "of": of, "skipped": reason})

    def _add_pairs(self, audit: str, of: str, found: Duplicates, sides: tuple[Images, Images], *, leak: bool = True) -> None:
        from covis.audits.duplicates import KINDS

        self._add(audit, of, found)
        self.leaks += sum(found.total.values()) if leak else 0
        roots = [side.root for side in sides]
        for one in found.pairs():
            if one["kind"] != "file":  # nothing is to be seen in one picture twice
                order = list(KINDS).index(one["kind"]), one["distance"]
                self.suspects.append((order, (roots[0] / one["a"], roots[1] / one["b"], f"{one['kind']}, {one['distance']:g}")))

    def _copies(self) -> None:
        from covis.audits import fingerprints, near_duplicates

        known: dict[tuple[Path, tuple[str, ...]], Fingerprints] = {}

        def prints(images: Images) -> Fingerprints:
            key = images.root, images.names
            if key not in known:
                known[key] = fingerprints(images, cache=self.files["cache"], progress=True)
            return known[key]

        how = {key: self.settings[key] for key in ("hamming", "fine", "mirrored")}
        for scene in self.scenes:
            if scene.training:
                found = near_duplicates(prints(scene.database), **how)
                self._add_pairs("copies", _said(scene), found, (scene.database, scene.database), leak=False)
            else:
                found = near_duplicates(prints(scene.queries), prints(scene.database), **how).without("file")
                self._add_pairs("copies", f"{_said(scene)}, queries against database", found, (scene.queries, scene.database))
        if self.other is None:
            self._skip("copies", "training against test", ALONE)
        for of, here, there in self._facing_sides():
            self._add_pairs("copies", of, near_duplicates(prints(here), prints(there), **how), (here, there))

    def _facing_sides(self) -> Iterator[tuple[str, Images, Images]]:
        """Each side of each scene with each of the other set's."""
        for scene in self.scenes:
            for beside in self.other or ():
                for side in _sides(scene):
                    for facing in _sides(beside):
                        yield f"{_said(scene)} {side} against {_said(beside)} {facing}", getattr(scene, side), getattr(beside, facing)

    def _descriptors(self) -> None:
        from covis.audits import near_descriptors

        if self.model is None and self.files["descriptors"] is None:
            return self._skip("descriptors", "all scenes", "neither --model nor --descriptors was given")
        if self.settings["alike"] is None:
            said = "--alike was not given: the distance of copies differs from model to model (docs/audit.md)"
            return self._skip("descriptors", "all scenes", said)
        how = {"within": self.settings["alike"], "measure": self.settings["measure"]}
        mine = self._described(self.scenes, self.files["descriptors"])
        for scene in self.scenes:
            queries, database = scene.queries, scene.database
            if scene.training:
                self._add_pairs("descriptors", _said(scene), near_descriptors(mine[id(database)], **how), (database, database), leak=False)
            elif (queries.same_files(database) >= 0).any():
                self._skip("descriptors", _said(scene), "queries stand in the database too, and are nearest to themselves")
            else:
                found = near_descriptors(mine[id(queries)], mine[id(database)], **how)
                self._add_pairs("descriptors", f"{_said(scene)}, queries against database", found, (queries, database))
        if self.other is not None and self.model is None and self.files["against"] is None:
            return self._skip("descriptors", "training against test", "--against-descriptors was not given")
        theirs = self._described(self.other or (), self.files["against"])
        for of, here, there in self._facing_sides():
            self._add_pairs("descriptors", of, near_descriptors(mine[id(here)], theirs[id(there)], **how), (here, there))
        return None

    def _described(self, scenes: Sequence[Scene], given: Path | None) -> dict[int, Any]:
        """Descriptors by the table whose images they are of."""
        if not scenes:
            return {}
        if self.model is None:
            from covis.vector_files import read_vectors

            described = list(read_vectors(given or "", scenes))
        else:
            from covis.searching import describe_scenes

            described = describe_scenes(
                self._opened(), scenes, work=self.files["work"] or "audit.work", damaged="skip", say=say, progress=True
            )
        pairs = zip(scenes, described, strict=True)
        return {id(images): one for scene, two in pairs for images, one in zip((scene.queries, scene.database), two, strict=True)}

    def _opened(self) -> Any:
        if self._describer is None:
            from covis.cli.describing import opened

            self._describer = opened(self.model or "", count=sum(len(scene.database) for scene in self.scenes), **self.opening)
        return self._describer

    def _places(self) -> None:
        from covis.audits import shared_places

        if self.other is None:
            return self._skip("places", "training against test", ALONE)
        for scene in self.scenes:
            for beside in self.other:
                of = f"{_said(scene)} against {_said(beside)}"
                if reason := _no_common_frame(scene, beside):
                    self._skip("places", of, reason)
                    continue
                for side in _sides(scene):
                    found = shared_places(getattr(scene, side), beside.database, within=self.settings["within"])
                    self._add("places", f"{_said(scene)} {side} against {_said(beside)} database", found)
        return None

    def _facing(self) -> None:
        from covis.audits import facing_away
        from covis.audits.views import Pairing
        from covis.protocols import protocol

        rule = protocol(self.settings["protocol"])
        for scene, label in zip(self.scenes, self._graded(), strict=True):
            if not Pairing.of(scene.queries, scene.database).turned:
                self._skip("facing", _said(scene), "the images have neither headings nor poses")
            elif rule.positive == "distance" and (scene.queries.xy is None or scene.database.xy is None):
                self._skip("facing", _said(scene), f"the protocol {rule.name} needs positions (xy), and the layout gives none")
            elif rule.positive == "similarity" and label is None:
                self._skip("facing", _said(scene), f"the protocol {rule.name} needs --labels")
            else:
                self._add("facing", _said(scene), facing_away(scene, rule, heading=self.settings["heading"], labels=label))

    def _graded(self) -> Sequence[Any]:
        from covis.datasets.label_files import load_labels

        given = self.files["labels"]
        return [None] * len(self.scenes) if given is None else load_labels(given, self.scenes)

    def _labels(self) -> None:
        from covis.audits import label_sanity

        if self.files["labels"] is None:
            return self._skip("labels", "all scenes", "--labels was not given (covis label makes them)")
        for scene, label in zip(self.scenes, self._graded(), strict=True):
            self._add("labels", _said(scene), label_sanity(label, scene, reference=self.settings["reference"]))
        return None

    def _batches(self) -> None:
        from covis.audits import batch_dependence

        if self.model is None:
            return self._skip("batches", "all models", "--model was not given")
        found = batch_dependence(self._opened(), self._some_pictures())
        self.leaks += found.depends
        self._add("batches", self.model, found)
        return None

    def _some_pictures(self) -> list[Image.Image]:
        """Photographs of all databases, evenly; those that do not decode are passed over."""
        from covis.rasters import read_picture

        paths = [scene.database.path(row) for scene in self.scenes for row in range(len(scene.database))]
        count = min(self.settings["sample"], len(paths))
        pictures = []
        for path in [paths[round(place * (len(paths) - 1) / max(1, count - 1))] for place in range(count)]:
            with suppress(DamagedFileError, MissingFileError):
                pictures.append(read_picture(path))
        return pictures


def _said(scene: Scene) -> str:
    return f"{scene.name} ({scene.split})"


def _sides(scene: Scene) -> tuple[str, ...]:
    return ("database",) if scene.training else ("queries", "database")


def _no_common_frame(scene: Scene, beside: Scene) -> str | None:
    """Why the positions of two scenes cannot be compared; None where they can."""
    tables = (scene.queries, scene.database, beside.database)
    if any(images.xy is None for images in tables) and any(images.pose is None for images in tables):
        return "positions are lacking"
    if not len(beside.database):
        return "the other set is empty"
    if scene.database.crs != beside.database.crs:
        return f"the frames differ: {scene.database.crs} and {beside.database.crs}"
    if scene.database.crs is None and scene.name != beside.name:
        return "the frames are not known (crs), and the scenes have different names"
    return None
