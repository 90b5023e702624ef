"""Names become objects here, at the edge: a table's entry, or the user's own `package.module:function`."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from covis.errors import InvalidInputError, UnknownNameError

T = TypeVar("T")


def resolve(name: str, table: Mapping[str, T], *, what: str) -> T:
    """The table's entry of that name, or the object that `package.module:attribute` names.

    Raises:
        UnknownNameError: neither; the message suggests the nearest name, or says why the import failed.

    >>> resolve("one", {"one": 1}, what="number")
    1
    >>> resolve("math:pi", {}, what="number")
    3.141592653589793
    """
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found: T = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UnknownNameError(f"The {what} {name!r} must name an importable module and something in it; {error}.") from error
        return found
    raise UnknownNameError(f"There is no {what} called {name!r}. {suggest(name, table)}")


def with_options(function: Callable[..., Any], options: Mapping[str, Any], *, what: str, given: Sequence[str] = ()) -> Callable[..., Any]:
    """The function, after a look that it takes these keyword arguments.

    Args:
        function: what the options are of.
        options: keyword arguments.
        what: it is, for the message.
        given: arguments that are passed by the caller, and so are no options.

    Raises:
        InvalidInputError: it does not, is no function, or does not say what it takes; the message names it and the options.

    >>> with_options(sorted, {"reverse": True}, what="order") is sorted
    True
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The {what} must be a function that says what it takes; got {function!r} ({error}).") from error
    try:
        signature.bind_partial(**options)
        if taken := [name for name in options if name in given]:
            raise TypeError(f"{', '.join(taken)} is not an option")
    except (TypeError, ValueError) as error:
        known = [name for name, one in signature.parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY]
        known = [name for name in known if name not in given]
        unknown = [name for name in options if name not in known]
        reason = f"{', '.join(unknown)} is none of {', '.join(known)}" if unknown and known else str(error)
        raise InvalidInputError(
            f"The {what} {getattr(function, '__name__', function)} does not take the options {dict(options)}; {reason}."
        ) from error
    return function


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known name, then all of them.

    >>> suggest("gclx", ["gcl", "triplet"])
    "Did you mean 'gcl'? Known: gcl, triplet."
    """
    names = sorted(known)
    by_case = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.5)
    hint = f"Did you mean {by_case[near[0]]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def chosen(name: str, pattern: str) -> bool:
    """Whether a scene's name fits one of the shell patterns, separated by commas, and none that begins with `!`.

    >>> [chosen(name, "*,!sf") for name in ("cph", "sf")]
    [True, False]
    """
    patterns = [one.strip() for one in pattern.split(",")]
    fits = [fnmatchcase(name, one) for one in patterns if not one.startswith("!")]
    return any(fits) and not any(fnmatchcase(name, one[1:]) for one in patterns if one.startswith("!"))


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "Path": ((str, Path), "a path"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
}
"""What an argument is declared as -> the types that it takes, and what they are called."""


def typed_options(function: Callable[..., Any], options: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """The options as the function declares them: a whole number given for a text becomes the text, anything else is refused.

    `--read database=10` reads as a number, and is the name of a sequence. Only arguments that are declared as text, path, number or
    truth (or None) are looked at.

    Raises:
        InvalidInputError: a value is of another type; the message names the option.

    >>> def reader(root, *, database: str | None = None, camera: int | None = None): ...
    >>> typed_options(reader, {"database": 10, "camera": 2}, what="reader")
    {'database': '10', 'camera': 2}
    """
    arguments = inspect.signature(function).parameters
    return {
        name: _typed(value, str(arguments[name].annotation).split(" | "), f"{name} of the {what} {getattr(function, '__name__', function)}")
        if name in arguments
        else value
        for name, value in options.items()
    }


def _typed(value: Any, declared: Sequence[str], where: str) -> Any:
    kinds = [kind for kind in declared if kind != "None"]
    if not kinds or (value is None and "None" in declared) or any(kind not in _KINDS for kind in kinds):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and kinds[0] in ("str", "Path") and "int" not in kinds:
        return str(value)
    taken = {kind for name in kinds for kind in _KINDS[name][0]}
    if not isinstance(value, tuple(taken)) or (isinstance(value, bool) and bool not in taken):
        raise InvalidInputError(f"The option {where} must be {' or '.join(_KINDS[kind][1] for kind in kinds)}; got {value!r}.")
    return value
