"""What covis audit does: each audit that the data allows, the reasons of those that it does not, and the pairs that leak."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covis.cli.shell import say
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from covis.audits import Duplicates, Fingerprints
    from covis.images import Images, Scene

ALONE = "no other set was given (--against, --against-split)"
ON_SHEET = 24
"""Pairs that are drawn."""


@dataclass(frozen=True)
class Side:
    """One table of one scene, as it is called."""

    scene: Scene
    side: str
    images: Images

    def __str__(self) -> str:
        return f"{_said(self.scene)} {self.side}"


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
        tell: is called with the sections that belong together, as soon as they are found.
        sections: what was found, a section an audit and scene.
        leaks: pairs that leak, and models that depend on their batch.
        suspects: the worst so far: how suspect, and a pair of files with a caption.
        suspected: how many pairs could be drawn.
    """

    scenes: Sequence[Scene]
    other: Sequence[Scene] | None
    settings: dict[str, Any]
    files: dict[str, Path | None]
    model: str | None
    opening: dict[str, Any]
    tell: Callable[[Sequence[dict[str, Any]]], None] = lambda _: None
    sections: list[dict[str, Any]] = field(default_factory=list)
    leaks: int = 0
    suspects: list[tuple[tuple[int, float], tuple[Path, Path, str]]] = field(default_factory=list)
    suspected: int = 0
    _told: int = 0
    _ready: dict[str, Any] = field(default_factory=dict)
    _compared: dict[tuple[str, frozenset[Any]], str] = field(default_factory=dict)

    def prepare(self, wanted: Sequence[str]) -> None:
        """Open and check all that is given, before any image is read."""
        from covis.audits.duplicates import check_bits
        from covis.audits.facing import check_rule
        from covis.audits.places import check_within
        from covis.audits.resemblance import check_distance
        from covis.audits.sanity import check_reference
        from covis.protocols import protocol

        given = self.settings
        check_bits(given["hamming"], given["fine"])
        check_within(given["within"])
        check_reference(given["reference"])
        if given["alike"] is not None:
            check_distance(given["alike"], given["measure"])
        if given["sample"] < 2:
            raise InvalidInputError(f"--sample must be at least 2 images, which are compared; got {given['sample']}.")
        self._ready["rule"] = protocol(given["protocol"])
        check_rule(self._ready["rule"], given["heading"])
        if {"facing", "labels"} & set(wanted):
            self._graded()
        compared = "descriptors" in wanted and given["alike"] is not None
        if self.model is not None and (compared or "batches" in wanted):
            self._opened()
        if self.model is None and compared:
            for name, scenes in (("descriptors", self.scenes), ("against", self.other)):
                if self.files[name] is not None:
                    self._described(scenes or (), name)

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
            self._tell()

    def draw(self, sheet: Path | None) -> Path | None:
        """The sheet of suspect pairs, if it is asked for and there are any."""
        from covis.reports.suspects import suspect_sheet

        if sheet is None:
            return None
        if not self.suspects:
            say(f"{sheet} is not drawn: no pair of images is suspect")
            return None
        worst = [pair for _, pair in self.suspects]
        return suspect_sheet(worst, sheet, title=f"Suspected copies: {len(worst)} of {self.suspected:,} pairs")

    def _tell(self) -> None:
        """Hand on what was found since the last time."""
        new, self._told = self.sections[self._told :], len(self.sections)
        if new:
            self.tell(new)

    def _add(self, audit: str, of: str, found: Any, **more: Any) -> None:
        self.sections.append({"audit": audit, "of": of, **more, "found": found.as_dict()})

    def _skip(self, audit: str, of: str, reason: str) -> None:
        self.sections.append({"audit": audit, "of": of, "skipped": reason})

    def _add_pairs(self, audit: str, of: str, found: Duplicates, sides: tuple[Side, Side], *, leak: bool = True) -> None:
        from covis.audits.duplicates import KINDS
        from covis.audits.words import apart

        self._add(audit, of, found, sides=[str(side) for side in sides])
        self.leaks += sum(found.total.values()) if leak else 0
        roots = [side.images.root for side in sides]
        for one in found.pairs():
            if one["kind"] != "file":  # nothing is to be seen in one picture twice
                order = list(KINDS).index(one["kind"]), one["distance"]
                self.suspects.append((order, (roots[0] / one["a"], roots[1] / one["b"], _caption(one["kind"], apart(one)))))
                self.suspected += 1
        self.suspects = sorted(self.suspects, key=lambda one: one[0])[:ON_SHEET]

    def _compare(self, audit: str, of: str, sides: tuple[Side, Side], compare: Callable[..., Duplicates], *, own: bool = False) -> None:
        """Hold two tables against each other; the same files on both sides are one set, and nothing is compared twice."""
        a, b = sides
        files = audit, frozenset((_files(a.images), _files(b.images)))
        if files in self._compared:
            return self._skip(audit, of, f"the same files as {self._compared[files]}")
        self._compared[files] = of
        if len(files[1]) == 1:
            return self._add_pairs(audit, of, compare(a, None), (a, a), leak=False)
        found = compare(a, b)
        return self._add_pairs(audit, of, found.without("file") if own else found, sides)

    def _copies(self) -> None:
        from covis.audits import fingerprints, near_duplicates

        known: dict[Any, Fingerprints] = {}
        how = {key: self.settings[key] for key in ("hamming", "fine", "mirrored")}

        def prints(images: Images) -> Fingerprints:
            key = images.root, images.names
            if key not in known:
                known[key] = fingerprints(images, cache=self.files["cache"], progress=True)
            return known[key]

        def compare(a: Side, b: Side | None) -> Duplicates:
            return near_duplicates(prints(a.images), None if b is None else prints(b.images), **how)

        for scene in self.scenes:
            self._compare("copies", *_within(scene), compare, own=True)
            self._tell()
        if self.other is None:
            self._skip("copies", "training against test", ALONE)
        for of, sides in self._facing_sides():
            self._compare("copies", of, sides, compare)

    def _facing_sides(self) -> Iterator[tuple[str, tuple[Side, Side]]]:
        """Each side of each scene with each of the other set's; what is found is told a pair of scenes at once."""
        for scene in self.scenes:
            for beside in self.other or ():
                for here in _sides(scene):
                    for there in _sides(beside):
                        yield f"{here} against {there}", (here, there)
                self._tell()

    def _descriptors(self) -> None:
        from covis.audits import near_descriptors

        if self.model is None and self.files["descriptors"] is None:
            return self._skip("descriptors", "all scenes", "neither --model nor --descriptors was given")
        if self.settings["alike"] is None:
            said = "--alike was not given: the distance of copies differs from model to model (docs/audit.md)"
            return self._skip("descriptors", "all scenes", said)
        if reason := self._unread(self.scenes):
            return self._skip("descriptors", "all scenes", reason)
        vectors = dict(self._described(self.scenes, "descriptors"))

        def compare(a: Side, b: Side | None) -> Duplicates:
            there = None if b is None else vectors[id(b.images)]
            return near_descriptors(vectors[id(a.images)], there, within=self.settings["alike"], measure=self.settings["measure"])

        for scene in self.scenes:
            of, sides = _within(scene)
            if not scene.training and (scene.queries.same_files(scene.database) >= 0).any():
                self._skip("descriptors", _said(scene), "queries stand in the database too, and are nearest to themselves")
            else:
                self._compare("descriptors", of, sides, compare)
            self._tell()
        if self.other is not None and self.model is None and self.files["against"] is None:
            return self._skip("descriptors", "training against test", "--against-descriptors was not given")
        if reason := self._unread(self.other or ()):
            return self._skip("descriptors", "training against test", reason)
        vectors |= self._described(self.other or (), "against")
        for of, two in self._facing_sides():
            self._compare("descriptors", of, two, compare)
        return None

    def _described(self, scenes: Sequence[Scene], name: str) -> dict[int, Any]:
        """Descriptors by the table whose images they are of."""
        if not scenes:
            return {}
        if name not in self._ready:
            if self.model is None:
                from covis.vector_files import read_vectors

                described = list(read_vectors(self.files[name] or "", scenes))
            else:
                from covis.searching import describe_scenes

                work = self.files["work"] or "audit.work"
                described = describe_scenes(self._opened(), scenes, work=work, damaged="skip", say=say, progress=True)
            pairs = zip(scenes, described, strict=True)
            self._ready[name] = {
                id(images): one for scene, two in pairs for images, one in zip((scene.queries, scene.database), two, strict=True)
            }
        found: dict[int, Any] = self._ready[name]
        return found

    def _opened(self) -> Any:
        if "model" not in self._ready:
            from covis.cli.describing import opened

            self._ready["model"] = opened(self.model or "", count=sum(len(scene.database) for scene in self.scenes), **self.opening)
        return self._ready["model"]

    def _unread(self, scenes: Sequence[Scene], *, databases: bool = False) -> str:
        """Why the model cannot describe these scenes, or their databases: it reads label maps and there are not enough; else empty."""
        if self.model is None or self._opened().resize != "labels":
            return ""
        sides = [side for scene in scenes for side in _sides(scene) if side.side == "database" or not databases]
        lacking = [side for side in sides if side.images.segmentation is None or not all(side.images.segmentation)]
        return f"the model reads label maps, and not every image of {lacking[0]} has one (the column segmentation)" if lacking else ""

    def _places(self) -> None:
        from covis.audits import shared_places

        if self.other is None:
            return self._skip("places", "training against test", ALONE)
        for of, (here, there) in self._facing_sides():
            if reason := _no_common_frame(here, there):
                self._skip("places", of, reason)
            else:
                self._add("places", of, shared_places(here.images, there.images, within=self.settings["within"]))
        return None

    def _facing(self) -> None:
        from covis.audits import facing_away
        from covis.audits.views import Pairing

        rule = self._ready["rule"]
        for scene, label in zip(self.scenes, self._graded(), strict=True):
            if not Pairing.of(scene.queries, scene.database).turned:
                self._skip("facing", _said(scene), "the images have neither headings nor poses")
            elif rule.positive == "distance" and (scene.queries.xy is None or scene.database.xy is None):
                self._skip("facing", _said(scene), f"the protocol {rule.name} needs positions (xy), and the layout gives none")
            elif rule.positive == "similarity" and label is None:
                self._skip("facing", _said(scene), f"the protocol {rule.name} needs --labels")
            else:
                self._add("facing", _said(scene), facing_away(scene, rule, heading=self.settings["heading"], labels=label))
            self._tell()

    def _graded(self) -> Sequence[Any]:
        from covis.datasets.label_files import load_labels

        if "labels" not in self._ready:
            given = self.files["labels"]
            self._ready["labels"] = [None] * len(self.scenes) if given is None else load_labels(given, self.scenes)
        found: Sequence[Any] = self._ready["labels"]
        return found

    def _labels(self) -> None:
        from covis.audits import label_sanity

        if self.files["labels"] is None:
            return self._skip("labels", "all scenes", "--labels was not given (covis label makes them)")
        for scene, label in zip(self.scenes, self._graded(), strict=True):
            self._add("labels", _said(scene), label_sanity(label, scene, reference=self.settings["reference"]))
            self._tell()
        return None

    def _batches(self) -> None:
        from covis.audits import batch_dependence

        if self.model is None:
            return self._skip("batches", "all models", "--model was not given")
        if reason := self._unread(self.scenes, databases=True):
            return self._skip("batches", self.model, reason)
        found = batch_dependence(self._opened(), self._some_pictures())
        self.leaks += found.depends
        self._add("batches", self.model, found)
        return None

    def _some_pictures(self) -> list[Image.Image | NDArray[np.uint8]]:
        """What the model reads of all databases, photographs or label maps, evenly; those that do not decode are passed over."""
        from covis.images import files_of
        from covis.rasters import read_label_map, read_picture

        resize = self._opened().resize
        files = [files_of(scene.database, resize) for scene in self.scenes]
        paths = [one.path(row) for one in files for row in range(len(one))]
        count = min(self.settings["sample"], len(paths))
        read: Callable[[Path], Any] = read_label_map if resize == "labels" else read_picture
        pictures = []
        for path in [paths[round(place * (len(paths) - 1) / max(1, count - 1))] for place in range(count)]:
            with suppress(DamagedFileError, MissingFileError):
                pictures.append(read(path))
        return pictures


def _said(scene: Scene) -> str:
    return f"{scene.name} ({scene.split})"


def _sides(scene: Scene) -> tuple[Side, ...]:
    return tuple(Side(scene, side, getattr(scene, side)) for side in (("database",) if scene.training else ("queries", "database")))


def _within(scene: Scene) -> tuple[str, tuple[Side, Side]]:
    """What a scene is called that is held against itself, and its two sides."""
    sides = _sides(scene)
    return (_said(scene), (sides[0], sides[0])) if scene.training else (f"{_said(scene)}, queries against database", (sides[0], sides[1]))


def _caption(kind: str, measure: str) -> str:
    return kind if measure == kind else f"{kind}: {measure}"


def _files(images: Images) -> tuple[str, frozenset[str]]:
    """What two tables have in common that are of the same files."""
    return images.root.absolute().as_posix(), frozenset(images.names)


def _no_common_frame(here: Side, there: Side) -> str | None:
    """Why the positions of two tables cannot be compared, or need not be; None where they can."""
    from covis.audits.places import common_positions

    if _files(here.images) == _files(there.images):
        return "the same files on both sides"
    if common_positions(here.images, there.images) is None:
        return "positions are lacking"
    if not len(there.images):
        return "the other set is empty"
    if here.images.crs != there.images.crs:
        return f"the frames differ: {here.images.crs} and {there.images.crs}"
    if here.images.crs is None and here.scene.name != there.scene.name:
        return "the frames are not known (crs), and the scenes have different names"
    return None
