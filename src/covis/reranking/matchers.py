"""What a matcher is: it prepares each image once, and says which points of two prepared images are the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.files import file_digest
from covis.lookup import resolve, suggest

Prepared: TypeAlias = Mapping[str, NDArray[Any]]
"""What a matcher keeps of an image: names and arrays of numbers, which a file can hold."""


MOST = 100_000
"""Features of an image that a matcher may keep."""


class Matcher(Protocol):
    """Finds corresponding points of two images: by local features, or without a detector.

    The two steps are apart so that an image that stands in many rankings is prepared once, and may be stored. What is
    prepared belongs to one image and never depends on the other. Both are called from several threads.

    A matcher may also have `libraries`, a mapping of names and versions: they enter the history, and the keys of a cache.
    """

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """What is needed of an image (height, width, 3), RGB: points and their vectors, or the maps of a network."""

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.floating[Any]]:
        """(m, 4): x and y in the first image, x and y in the second; pixels."""


def open_matcher(name: str, table: Mapping[str, Callable[..., Matcher]], options: Mapping[str, Any], *, shared: tuple[str, ...]) -> Matcher:
    """The matcher of that name, in the table or as `module:function`, made with its options.

    Args:
        name: an entry of the table, or the path of a function that returns a matcher.
        table: name -> function.
        options: the function's keyword arguments.
        shared: options that are taken out before, for the message alone.

    Raises:
        UnknownNameError: there is none of that name.
        InvalidInputError: it has no such option, lacks one that it must have, or is no matcher.
        MissingExtraError: its library is not installed.
    """
    function = resolve(name, table, what="matcher")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The matcher {name!r} must be a function of keyword options that returns a matcher; it is {function!r}."
        ) from error
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [one.name for one in parameters.values() if one.kind in kinds]
    free = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for option in options:
        if option not in known and not free:
            raise InvalidInputError(f"The matcher {name!r} has no option {option!r}. {suggest(option, [*known, *shared])}")
    missing = [one for one in known if parameters[one].default is inspect.Parameter.empty and one not in options]
    if missing:
        raise InvalidInputError(
            f"The matcher {name!r} must be given the option {' and '.join(missing)}; of a learned one it is a local file."
        )
    matcher = function(**options)
    if not callable(getattr(matcher, "prepare", None)) or not callable(getattr(matcher, "correspondences", None)):
        raise InvalidInputError(
            f"The matcher {name!r} must have the methods prepare and correspondences; it gives {type(matcher).__name__}."
        )
    return matcher


def identity(name: str, matcher: Matcher, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what a matcher says: its name, options and libraries, and the bytes of the files that its options name.

    A file's folder is left out, so that weights may be moved.
    """
    files = {key: Path(value) for key, value in options.items() if isinstance(value, (str, Path)) and Path(value).is_file()}
    plain = {key: files[key].name if key in files else value for key, value in options.items()}
    digests = {key: file_digest(path) for key, path in files.items()}
    return {"matcher": name, "options": plain, "files": digests, "libraries": dict(getattr(matcher, "libraries", {}))}


def checked_prepared(prepared: object, *, matcher: str, path: Path) -> Prepared:
    """What a matcher prepared, after a look that it is names and arrays of numbers."""
    if not isinstance(prepared, Mapping) or not all(
        isinstance(name, str) and isinstance(array, np.ndarray) and array.dtype.kind in "biuf" for name, array in prepared.items()
    ):
        raise InvalidInputError(
            f"The matcher {matcher!r} must prepare a mapping of names and arrays of numbers; of {path} it gave {prepared!r:.200}."
        )
    if "header" in prepared:
        raise InvalidInputError(f"The matcher {matcher!r} must call no array 'header': a stored file has one of its own.")
    return prepared


def checked_correspondences(found: object, *, matcher: str) -> NDArray[np.float32]:
    """(m, 4) float32, after a look that a matcher gave that, and finite."""
    pairs = np.asarray(found)
    if pairs.ndim != 2 or pairs.shape[1] != 4 or pairs.dtype.kind not in "iuf" or not np.isfinite(pairs).all():
        raise InvalidInputError(
            f"The matcher {matcher!r} must give correspondences as finite numbers (m, 4), x y x y in pixels; got "
            f"{pairs.dtype} {pairs.shape}."
        )
    return pairs.astype(np.float32)


def counted(features: int) -> int:
    """A number of features, after a look that it is one.

    >>> counted(1000)
    1000
    """
    if isinstance(features, bool) or not isinstance(features, int) or not 1 <= features <= MOST:
        raise InvalidInputError(f"A matcher must keep 1 to {MOST:,} features of an image; got {features!r}.")
    return features


def share(value: float, name: str) -> float:
    """An option in [0, 1], after a look that it is.

    >>> share(1, "ratio")
    1.0
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInputError(f"The option {name} must be a number in [0, 1]; got {value!r}.")
    return float(value)
