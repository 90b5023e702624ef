"""Time stamps of `dbStruct` files: what kind of date they are is told by the values, and each kind becomes seconds since 1970.

Those of Tokyo Time Machine are months, as whole numbers YYYYMM (200907 to 201507 in tokyoTM_train.mat and tokyoTM_val.mat). NetVLAD only
asks whether two are equal; every conversion here keeps equal stamps equal and different ones different.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.datasets.dbstruct.files import Stamps
from covis.errors import InvalidInputError

Times: TypeAlias = Literal["auto", "seconds", "datenum", "month", "day", "text", "none"]
KINDS = ("auto", "seconds", "datenum", "month", "day", "text", "none")

_EPOCH = 719529.0
"""MATLAB's datenum of 1970-01-01."""
_MONTH = re.compile(r"(\d{4})(?:[-/]?(\d\d))?", re.ASCII)


def seconds(stamps: Sequence[Stamps], *, kind: Times, where: str) -> tuple[list[NDArray[np.float64]], str | None]:
    """Seconds since 1970 of the stamps of all sides, and a remark where they are no date that is known.

    Told by all values together, in this order: "month" (YYYYMM, its first moment), "datenum" (MATLAB's days, of 1900 to 2100),
    "day" (YYYYMMDD), "seconds" (since 1970, of 1973 to 2286); text is YYYY, YYYY-MM or ISO 8601, in UTC where it says no zone.
    Numbers of no kind are taken as seconds as they are. NaN and empty text are unknown times.

    Args:
        stamps: one side each: numbers, or texts.
        kind: "auto", or one of the kinds to be read as that.
        where: the file, for messages.

    Raises:
        InvalidInputError: a stamp is not of the kind, or text is no date; or there is no such kind.

    >>> seconds([np.array([197001.0, 197002.0])], kind="auto", where="x.mat")
    ([array([      0., 2678400.])], None)
    """
    if kind not in KINDS:
        raise InvalidInputError(f"times must be one of {', '.join(KINDS)}; got {kind!r}.")
    if any(isinstance(side, tuple) for side in stamps):
        if kind not in ("auto", "text") or not all(isinstance(side, tuple) for side in stamps):
            raise InvalidInputError(f"{where}: the time stamps are text; they must be so on both sides, and be read with times='text'.")
        return [np.array([_of_text(text, where) for text in side]) for side in stamps], None
    numbers = [np.asarray(side, dtype=np.float64) for side in stamps]
    known = np.concatenate([side[~np.isnan(side)] for side in numbers])
    if np.isinf(known).any():
        raise InvalidInputError(f"{where}: a time stamp must be a finite number, or NaN where unknown; found {_example(known)}.")
    fits = [name for name, (holds, _) in _NUMBERS.items() if known.size and holds(known)]
    if kind == "auto":
        chosen = fits[0] if fits else "seconds"
    elif kind == "text" or (kind not in fits and kind != "seconds"):
        raise InvalidInputError(
            f"{where}: the time stamps are read with times={kind!r}, and {_example(known)} is none. Say another of {', '.join(KINDS)}."
        )
    else:
        chosen = kind
    remark = None
    if kind == "auto" and not fits and known.size:
        remark = (
            f"{where}: the time stamps, {_example(known)} and so on, are no date that is known; they are taken as seconds as they are. "
            "Equal ones are equal, which is all that protocols ask. Say what they are with times=."
        )
    return [_NUMBERS[chosen][1](side) for side in numbers], remark


def _example(values: NDArray[np.float64]) -> str:
    odd = values[~np.isfinite(values)]
    return f"{odd[0] if odd.size else values[0]:.17g}" if values.size else "nothing"


def _whole(values: NDArray[np.float64]) -> bool:
    return bool((values == np.floor(values)).all())


def _are_months(values: NDArray[np.float64]) -> bool:
    return _whole(values) and bool(((values >= 190001) & (values <= 210012) & (values % 100 >= 1) & (values % 100 <= 12)).all())


def _are_datenums(values: NDArray[np.float64]) -> bool:
    return bool(((values >= 693962) & (values < 767376)).all())


def _are_days(values: NDArray[np.float64]) -> bool:
    if not _whole(values) or not ((values >= 19000101) & (values <= 21001231)).all():
        return False
    try:
        _of_days(np.unique(values))
    except ValueError:
        return False
    return True


def _are_seconds(values: NDArray[np.float64]) -> bool:
    return bool(((values >= 1e8) & (values < 1e10)).all())


def _of_months(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _each(values, lambda value: datetime(value // 100, value % 100, 1, tzinfo=UTC))


def _of_days(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _each(values, lambda value: datetime(value // 10000, value // 100 % 100, value % 100, tzinfo=UTC))


def _each(values: NDArray[np.float64], moment: Callable[[int], datetime]) -> NDArray[np.float64]:
    different, place = np.unique(values, return_inverse=True)
    found = np.array([np.nan if np.isnan(value) else moment(int(value)).timestamp() for value in different.tolist()])
    return found[place.reshape(-1)] if len(values) else np.zeros(0)


_NUMBERS: dict[str, tuple[Callable[[NDArray[np.float64]], bool], Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "month": (_are_months, _of_months),
    "datenum": (_are_datenums, lambda values: (values - _EPOCH) * 86400.0),
    "day": (_are_days, _of_days),
    "seconds": (_are_seconds, lambda values: values),
}
"""Kind -> (whether numbers are of it, seconds since 1970), in the order tried; their ranges do not meet."""


def _of_text(text: str, where: str) -> float:
    if not text:
        return float("nan")
    found = _MONTH.fullmatch(text)
    try:
        moment = datetime(int(found[1]), int(found[2] or 1), 1) if found else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{where}: a time stamp in text must be YYYY, YYYY-MM or ISO 8601 (2013-05-31T12:00:00); found {text!r}. Leave them out with "
            "times='none'."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
