"""The note in a label map's PNG: of which photograph it is, and by what it was made."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from covis.errors import DamagedFileError
from covis.rasters import NOTE


def read_note(path: str | Path) -> dict[str, object] | None:
    """The note in a PNG, without decoding its pixels; None where there is no such file, or it holds none.

    `covis segment` writes it: `photograph` (the name), `bytes` (of the photograph), `made` (a hash of what made the map) and
    `pixels` (number -> how many).

    Raises:
        DamagedFileError: what is there cannot be opened as an image.
    """
    try:
        with Path(path).open("rb") as stream, Image.open(stream) as image:
            # not image.text, which decodes the whole file first
            found = json.loads(image.info.get(NOTE, "null"))
    except FileNotFoundError:
        return None
    except Exception as error:  # decoders of damaged files raise anything
        raise DamagedFileError(f"{path} must be a label map; it does not open ({error}). Remove it.") from error
    return found if isinstance(found, dict) else None
