"""Named functions: what a recipe names is looked up, and held to take what it will be given; messages say the recipe's name of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from covis.errors import InvalidInputError
from covis.lookup import resolve


def named(
    name: str,
    table: Mapping[str, Callable[..., Any]],
    options: Mapping[str, Any],
    *,
    what: str,
    given: Sequence[str],
    keywords: Sequence[str],
) -> Callable[..., Any]:
    """The function of that name, after a look that it takes its arguments and these options.

    Args:
        name: of the table, or `module:function`.
        table: name -> function.
        options: keyword arguments that a recipe gives.
        what: it is, for the message.
        given: what it is given by position.
        keywords: what it is given by keyword, beside the options.

    Raises:
        UnknownNameError: there is none of that name.
        InvalidInputError: it is no function of Python, or does not take what it will be given.

    >>> named("one", {"one": lambda x, *, a=1: x}, {"b": 2}, what="number", given=("x",), keywords=())
    Traceback (most recent call last):
    ...
    covis.errors.InvalidInputError: The number 'one' does not take the options {'b': 2}; b is none of a.
    """
    found = resolve(name, table, what=what)
    check_options(name, found, options, what=what, given=(*given, *keywords))
    try:
        inspect.signature(found).bind(*given, **dict.fromkeys(keywords), **options)
    except TypeError as error:
        raise InvalidInputError(
            f"The {what} {name!r} must be a function of ({', '.join([*given, '*', *keywords])}); it does not take them ({error})."
        ) from error
    return found


def check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any], *, what: str, given: Sequence[str]) -> None:
    """Hold that a function takes these keyword arguments, which are none of those that it is given anyway.

    Raises:
        InvalidInputError: it does not, or nobody can say what it takes.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # no callable, or one of C that does not say what it takes
        raise InvalidInputError(
            f"The {what} {name!r} must be a function that says which arguments it takes; got {function!r}. Write a function around it."
        ) from None
    try:
        signature.bind_partial(**options)
        if taken := [one for one in options if one in given]:
            raise TypeError(f"{', '.join(taken)} is not an option")
    except TypeError as error:
        known = [one for one, about in signature.parameters.items() if about.kind is about.KEYWORD_ONLY and one not in given]
        unknown = [one for one in options if one not in known]
        reason = f"{', '.join(unknown)} is none of {', '.join(known)}" if unknown and known else str(error)
        raise InvalidInputError(f"The {what} {name!r} does not take the options {dict(options)}; {reason}.") from error
