"""Claims: what the literature says, as data (`claims.toml`)."""

from __future__ import annotations

import tomllib
from pathlib import Path

from covis.config import from_table
from covis.errors import DamagedFileError, InvalidInputError
from covis.files import read_text
from evidence.verdicts import Claim

CLAIMS = Path(__file__).parent / "claims.toml"


def load_claims(path: Path = CLAIMS) -> tuple[Claim, ...]:
    """The claims of a file, in its order.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no TOML.
        InvalidInputError: a key is unknown or missing, a value has the wrong type, a name stands twice, a claim has nothing that its
            verdict could rest on, or a smallest difference is not above 0.

    >>> [claim.name for claim in load_claims()][:3]
    ['G1', 'G2', 'G3']
    """
    try:
        listed = tomllib.loads(read_text(path)).get("claims")
    except tomllib.TOMLDecodeError as error:
        raise DamagedFileError(f"{path} must be TOML; {error}.") from error
    if not isinstance(listed, list) or not listed:
        raise InvalidInputError(f"{path} must hold [[claims]]; it has none.")
    claims = tuple(from_table(Claim, one, where=f"{path}: claim {at + 1}") for at, one in enumerate(listed))
    for at, claim in enumerate(claims):
        _check(claim, where=f"{path}: {claim.name}")
        if claim.name in [one.name for one in claims[:at]]:
            raise InvalidInputError(f"{path}: a claim's name must stand once; {claim.name!r} stands twice.")
    return claims


def _check(claim: Claim, *, where: str) -> None:
    if bool(claim.fact) == any(test.main for test in claim.tests):
        raise InvalidInputError(f"{where} must have either main tests or a fact that decides it.")
    for test in claim.tests:
        if not test.least > 0:
            raise InvalidInputError(f"{where}: least must be above 0; got {test.least} for {test.arm!r}.")
        if not test.against and (test.against_scored or test.scored) == test.scored and not test.beyond:
            raise InvalidInputError(f"{where}: {test.arm!r} must be compared with another arm, or scored otherwise; got itself.")
