"""Recipes: TOML files that fill the settings, checked against the code before anything starts.

A recipe says all that changes a number: which scenes teach and which are asked, the label rule, the network, the
training, the whitening, the protocol.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import suggest
from covis.settings import Recipe

C = TypeVar("C")


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

    >>> expected_numbers("town")["protocol"]
    'graded/0.5'
    """
    file = resources.files("covis") / "recipes" / f"{name}.expected.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by its name, or a TOML file by its path.

    `base = "NAME"` at the top of a recipe takes all that it does not say from another one, a shipped one or a file beside it.

    Raises:
        MissingFileError: the path ends in .toml and there is no such file.
        UnknownNameError: no shipped recipe has that name; the nearest is suggested.
        DamagedFileError: the file is no TOML.
        InvalidInputError: a key is unknown or a value has the wrong type; the message names it.

    >>> load_recipe("gcl-7scenes").model.backbone
    'mobilenetv2_100'
    """
    table = _based(name_or_path, seen=())
    return from_table(Recipe, {"name": Path(name_or_path).stem, **table}, where=str(name_or_path))


def _based(name_or_path: str | Path, *, seen: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's table, laid over that of the recipe its `base` names; a base of a file is looked for beside it, then among the shipped."""
    table = dict(_recipe_table(name_or_path))
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise InvalidInputError(f"{name_or_path}: base must be the name or the path of a recipe; got {base!r}.")
    beside = Path(name_or_path).parent / base
    found = str(beside) if base.endswith(".toml") and beside.exists() else base
    if found in (*seen, str(name_or_path)):
        raise InvalidInputError(
            f"{name_or_path} must not be based on itself; its bases are {', '.join([*seen, str(name_or_path), found])}."
        )
    return overlaid(_based(found, seen=(*seen, str(name_or_path))), table)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One nested mapping laid over another: tables are joined, other values replaced.

    A table of options belongs to the name beside it (`loss_options` to `loss`): where the name changes, the options
    below it are gone.

    >>> overlaid({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    >>> overlaid({"loss": "gcl", "loss_options": {"margin": 0.5}}, {"loss": "triplet"})
    {'loss': 'triplet'}
    """
    merged = dict(below)
    for key, value in above.items():
        owner = {"rule": "options", "layout": "options"}.get(key, f"{key}_options")
        if owner in merged and merged.get(key) != value:
            del merged[owner]
    for key, value in above.items():
        before = merged.get(key)
        merged[key] = overlaid(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _recipe_table(name_or_path: str | Path) -> dict[str, Any]:
    """What the recipe's own file says."""
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
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DamagedFileError(f"The recipe {name_or_path} must be TOML; {error}.") from error


def from_table(kind: type[C], table: Mapping[str, Any], *, where: str) -> C:
    """Fill a settings dataclass from a mapping, nested tables included.

    Raises:
        InvalidInputError: a key is unknown, missing, or its value has the wrong type.

    >>> from covis.settings import WhitenSettings
    >>> from_table(WhitenSettings, {"dim": 64}, where="here")
    WhitenSettings(dim=64, power=1.0, kind='pca', shrinkage=0.0)
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

    >>> from covis.settings import WhitenSettings
    >>> to_table(WhitenSettings(dim=64))
    {'dim': 64, 'power': 1.0, 'kind': 'pca', 'shrinkage': 0.0}
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
    raise InvalidInputError(f"{where} must be {_said(hint)}; got {value!r}.")


def _said(hint: Any) -> str:
    """A type in words."""
    words = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false"}
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        of = f" of {'' if kinds[-1] is ... else f'{len(kinds)} '}{words.get(kinds[0], _said(kinds[0]))}"
        return f"a list{of if len(set(kinds) - {...}) == 1 else ''}"
    return "a table" if origin is dict else str(getattr(hint, "__name__", hint))


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
