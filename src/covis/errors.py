"""What can go wrong, in words: every error of covis, each also a builtin exception.

A message says what must hold, what was found, where, and what to do about it.
"""

from __future__ import annotations


class CovisError(Exception):
    """The root of every error that covis raises on purpose."""


class InvalidInputError(CovisError, ValueError):
    """A value breaks a rule that the function states (shape, unit, range, type)."""


class MissingFileError(CovisError, FileNotFoundError):
    """A file or folder that must be there is not."""


class DamagedFileError(CovisError, ValueError):
    """A file is truncated, does not decode, or is of another kind or version than was asked for."""


class OutputExistsError(CovisError, FileExistsError):
    """The output is already there and nothing is overwritten unasked."""


class OutputFailedError(CovisError, OSError):
    """The output could not be written (a full disk, a read-only folder); nothing half-written is left."""


class SettingsDifferError(CovisError, ValueError):
    """A step's stored settings are not those of this call; the message shows the difference."""


class UnknownNameError(CovisError, LookupError):
    """A name is in no table of covis; the message suggests the nearest."""


class MissingExtraError(CovisError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class LeakError(CovisError, ValueError):
    """An evaluated query would enter training, whitening or the choice of a model."""


class TrainingDivergedError(CovisError, ArithmeticError):
    """A loss or a descriptor is no longer a finite number; the message names the batch."""


class CovisWarning(UserWarning):
    """Something is allowed and probably not what was meant."""
