"""A model on disk: a folder with `model.json` (settings, hash, history) and `weights.safetensors`. No pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes

from covis.config import from_table
from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import atomic_path, check_absent, read_json, write_json
from covis.models.place import PlaceModel, model_card
from covis.models.weights import read_weights
from covis.settings import ModelSettings

FORMAT, VERSION = "covis-model", 1


def save(model: PlaceModel, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model's folder, atomically; returns the path.

    Raises:
        OutputExistsError: the folder is there and `overwrite` is false.
        OutputFailedError: the system refused the write.
    """
    path = check_absent(path, overwrite=overwrite)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "settings": model_card(model.settings),
        "digest": model.digest,
        "dim": model.dim,
        "history": dict(model.history),
    }
    with atomic_path(path) as folder:
        folder.mkdir()
        # Not safetensors' own save_file, which leaves a file that nobody else may read.
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        (folder / "weights.safetensors").write_bytes(to_bytes(state))
        write_json(folder / "model.json", header)
    return path


def load(path: str | Path) -> PlaceModel:
    """Open a model that `save` wrote, on the CPU, in eval mode.

    Raises:
        MissingFileError: the folder or a file of it is not there.
        DamagedFileError: a file is truncated, foreign or of another kind, or the weights are not those that
            `model.json` speaks of. Fetch the folder again, or train again.
    """
    path = Path(path)
    header = read_json(path / "model.json", kind=FORMAT, version=VERSION)
    model = _built(header, path / "model.json")
    stored = read_weights(path / "weights.safetensors")
    own = model.state_dict()
    if stored.keys() != own.keys() or any(stored[name].shape != own[name].shape for name in own):
        raise DamagedFileError(
            f"{path / 'weights.safetensors'} must hold the weights of the network in model.json; "
            "names or shapes differ. Fetch the folder again."
        )
    model.load_state_dict(stored)
    if model.digest != header.get("digest"):
        raise DamagedFileError(
            f"{path}: model.json speaks of the model {header.get('digest')}, weights.safetensors gives {model.digest}. "
            "One of the two was changed; fetch the folder again."
        )
    model.history = header.get("history") or {}
    return model.eval()


def _built(header: dict[str, Any], source: Path) -> PlaceModel:
    table = header.get("settings")
    if not isinstance(table, dict):
        raise DamagedFileError(f"{source} must hold the model's settings; found a {type(table).__name__}. Fetch the folder again.")
    try:
        settings = from_table(ModelSettings, table | {"pretrained": False}, where=str(source))
        model = PlaceModel(settings)
    except (InvalidInputError, UnknownNameError) as error:
        raise DamagedFileError(f"{source} must describe a network that this covis and this timm can build; {error}") from error
    model.settings = from_table(ModelSettings, table, where=str(source))
    return model
