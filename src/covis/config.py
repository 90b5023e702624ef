"""Recipes: frozen dataclasses that a TOML file fills, checked against the code before anything starts.

A recipe says all that changes a number: which scenes teach and which are asked, the label rule, the network, the
training, the whitening, the protocol. The defaults here are the defaults everywhere: in Python, on the command line,
in the file.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import suggest

C = TypeVar("C")


@dataclass(frozen=True)
class DataSettings:
    """Where the images come from.

    Attributes:
        layout: a name of `READERS`, or `module:function`.
        train: a shell pattern of the names of the scenes that teach.
        test: of those that are asked; empty where nothing is asked.
        options: the reader's keyword arguments.
    """

    layout: str = "7scenes"
    train: str = "*"
    test: str = "*"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelSettings:
    """The label rule and its options (the rule's keyword arguments)."""

    rule: str = "surface"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSettings:
    """A network and the pixels it expects.

    Attributes:
        backbone: a timm model name.
        backbone_options: keyword arguments of `timm.create_model`.
        pretrained: take the hub's weights (a local file given with `--weights` goes first).
        aggregator: a name of `AGGREGATORS`, or `module:function`.
        aggregator_options: its keyword arguments.
        normalize: divide each descriptor by its L2 norm.
        height: pixels of the network's input.
        width: pixels of the network's input.
        resize: how images get there; "pil" is Pillow's antialiased bilinear filter, the aspect ratio is not kept.
        mean: subtracted per channel, of values in [0, 1].
        std: divided by per channel.
    """

    backbone: str = "mobilenetv2_100"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    aggregator: str = "gem"
    aggregator_options: dict[str, Any] = field(default_factory=dict)
    normalize: bool = True
    height: int = 480
    width: int = 640
    resize: Literal["pil"] = "pil"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TrainSettings:
    """How the network learns.

    Attributes:
        loss: a name of `LOSSES`, or `module:function`.
        loss_options: its keyword arguments (`margin`).
        sampler: a name of `SAMPLERS`, or `module:class`.
        sampler_options: its keyword arguments (`composition`, `on_empty`).
        steps: optimiser steps.
        batch: pairs a step.
        optimizer: "sgd", "adam" or "adamw".
        learning_rate: its peak.
        weight_decay: of the optimiser.
        schedule: "constant", or "cosine" down to zero at the last step.
        batch_norm: "train": batch statistics while training, running ones afterwards; "eval": running statistics
            throughout (for weights whose BatchNorm is folded into the convolutions).
        mirror: mirror both images of a pair, in one pair of two: the similarity is the same, the place another.
        gradient_clip: largest gradient norm; 0 does not clip.
        checkpoint_every: steps between two checkpoints that a killed run resumes from.
        logger: "csv", or "tensorboard" (extra `logs`).
        seed: of the initial weights and of the pairs.
    """

    loss: str = "gcl"
    loss_options: dict[str, Any] = field(default_factory=dict)
    sampler: str = "graded"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    steps: int = 1000
    batch: int = 32
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    batch_norm: Literal["train", "eval"] = "train"
    mirror: bool = False
    gradient_clip: float = 0.0
    checkpoint_every: int = 200
    logger: Literal["csv", "tensorboard"] = "csv"
    seed: int = 0


@dataclass(frozen=True)
class WhitenSettings:
    """PCA whitening: how many dimensions, and the exponent of the scaling (1: unit variance; 0.5: its square root; 0: rotation alone)."""

    dim: int = 0
    power: float = 1.0


@dataclass(frozen=True)
class EvaluateSettings:
    """The protocols (the first is the table's, all are in the scores), the search depth and the interval."""

    protocols: tuple[str, ...] = ("graded/0.5",)
    k: int = 25
    samples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """A whole chain, from photographs to a measured descriptor."""

    name: str
    description: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    whiten: WhitenSettings = field(default_factory=WhitenSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)


def recipe_names() -> list[str]:
    """The recipes that covis ships."""
    folder = resources.files("covis") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml") and not entry.name.endswith(".expected.toml")
    )


def expected_numbers(name: str) -> dict[str, Any]:
    """What a shipped recipe gave when it was measured: `protocol`, and for each arm metric -> [value, low, high]; empty if it was not.

    >>> expected_numbers("street")["protocol"]
    'graded/0.5'
    """
    file = resources.files("covis") / "recipes" / f"{name}.expected.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by its name, or a TOML file by its path.

    Raises:
        MissingFileError: the path ends in .toml and there is no such file.
        UnknownNameError: no shipped recipe has that name; the nearest is suggested.
        DamagedFileError: the file is no TOML.
        InvalidInputError: a key is unknown or a value has the wrong type; the message names it.

    >>> load_recipe("gcl-7scenes").model.backbone
    'mobilenetv2_100'
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise MissingFileError(
                f"The recipe {path} must exist; there is no such file. Shipped recipes: {', '.join(recipe_names())}."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedFileError(f"The recipe {path} must be a readable UTF-8 text file; {error}.") from error
    else:
        if str(name_or_path) not in recipe_names():
            raise UnknownNameError(
                f"There is no recipe called {str(name_or_path)!r} (a path must end in .toml). {suggest(str(name_or_path), recipe_names())}"
            )
        text = (resources.files("covis") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DamagedFileError(f"The recipe {name_or_path} must be TOML; {error}.") from error
    return from_table(Recipe, {"name": path.stem, **table}, where=str(name_or_path))


def from_table(kind: type[C], table: Mapping[str, Any], *, where: str) -> C:
    """Fill a settings dataclass from a mapping, nested tables included.

    Raises:
        InvalidInputError: a key is unknown, missing, or its value has the wrong type.

    >>> from_table(WhitenSettings, {"dim": 64}, where="here")
    WhitenSettings(dim=64, power=1.0)
    """
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            raise InvalidInputError(f"{where} has no setting {key!r}. {suggest(key, names)}")
    values = {key: _converted(value, hints[key], f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidInputError(f"{where}: {error}.") from error


def to_table(settings: Any) -> dict[str, Any]:
    """The inverse of `from_table`: plain values that TOML and JSON can hold.

    >>> to_table(WhitenSettings(dim=64))
    {'dim': 64, 'power': 1.0}
    """
    return {key: list(value) if isinstance(value, tuple) else value for key, value in _nested(dataclasses.asdict(settings)).items()}


def to_toml(settings: Any) -> str:
    """A settings dataclass as TOML text, every field written out."""
    return tomli_w.dumps(to_table(settings))


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nested(item) for key, item in value.items()}
    return [_nested(item) for item in value] if isinstance(value, tuple) else value


def _converted(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return from_table(hint, value, where=where)
    elif origin is Literal:
        if value in arguments:
            return value
        raise InvalidInputError(f"{where} must be one of {', '.join(map(repr, arguments))}; got {value!r}.")
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
            if len(kinds) == len(value):
                return tuple(_converted(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    elif origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InvalidInputError(f"{where} must be {getattr(hint, '__name__', hint)}; got {value!r}.")


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options from `KEY=VALUE` texts: the value is TOML where it reads as TOML, else plain text; dots in the key make tables.

    Raises:
        InvalidInputError: a text has no `=`, or a key stands twice.

    >>> parse_options(["missing=skip", "scale=1e-6", "columns.lat=latitude", "header=false"])
    {'missing': 'skip', 'scale': 1e-06, 'columns': {'lat': 'latitude'}, 'header': False}
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        *tables, last = key.strip().split(".")
        into = options
        for table in tables:
            into = into.setdefault(table, {})
        if not equals or not last or not isinstance(into, dict) or last in into:
            raise InvalidInputError(f"An option must read KEY=VALUE, each key once, as in missing=skip; got {text!r}.")
        try:
            into[last] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            into[last] = value
    return options
