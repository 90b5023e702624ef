"""Networks of the transformers library as segmenters. The only file that imports transformers.

Weights are read from safetensors alone, and no code of a model's repository is ever run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError, MissingFileError
from covis.files import digest as hash_of
from covis.models.place import weights_digest
from covis.segmentation.frames import best_numbers, nearest_numbers
from covis.segmentation.segmenters import Classes, numbering

_LARGEST = 1 << 20  # pixels at which scores of masks are laid out by the library: those of 150 classes take 600 MB
_KEPT = (
    *("size", "crop_size", "size_divisor", "size_divisibility", "resample", "do_resize", "do_center_crop", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_pad", "pad_size", "do_reduce_labels"),
)
"""What of an image processor's settings says how pixels become a network's input."""


def transformers() -> ModuleType:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise MissingExtraError(
            "These networks need the library transformers, which is not installed: pip install covis[segment]"
        ) from error
    module: ModuleType = library
    return module


class TransformersSegmenter:
    """A segmenter over a network of transformers and its image processor. `load_transformers` makes one.

    Networks that give scores a class and pixel (SegFormer, DPT, UperNet, ...): the scores are resized bilinearly to the photograph,
    and the largest is taken. Networks that give masks ("universal": MaskFormer, Mask2Former, OneFormer): the library's
    `post_process_semantic_segmentation`, at the photograph's size or, for photographs of more than 1,048,576 pixels, at that many, and
    from there by the nearest.

    Attributes:
        name: the folder or the name on the hub.
    """

    engine = "transformers"

    def __init__(self, network: Any, processor: Any, *, name: str, classes: Classes, device: torch.device) -> None:
        self._network, self._processor, self._device = network.eval().to(device), processor, device
        self.name, self.classes = name, classes
        self.settings = _settings(processor)
        self.digest = hash_of([weights_digest(network), type(network).__name__, self.settings])

    def segment(self, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Photographs (h, w, 3) uint8 to maps (h, w) uint8; those of one size go through the network together.

        Raises:
            InvalidInputError: the network gives neither scores nor masks, or does not take such photographs.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for position, photograph in enumerate(photographs):
            by_size.setdefault(photograph.shape, []).append(position)
        found: dict[int, NDArray[np.uint8]] = {}
        for positions in by_size.values():
            found.update(zip(positions, self._maps([photographs[one] for one in positions]), strict=True))
        return [found[position] for position in range(len(photographs))]

    def _maps(self, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        height, width = photographs[0].shape[:2]
        try:
            # The form of the arrays is said: the library would take a photograph of 3 pixels' height for one of channels first.
            taken = self._taken({"images": list(photographs), "input_data_format": "channels_last", "return_tensors": "pt"})
            with torch.inference_mode():
                given = self._network(**taken)
        except (ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InvalidInputError(f"{self.name} must take a photograph of {height} x {width} pixels; it fails with {reason}.") from error
        scores = getattr(given, "logits", None)
        if isinstance(scores, torch.Tensor) and scores.ndim == 4:
            return [best_numbers(one, height, width) for one in scores]
        if getattr(given, "class_queries_logits", None) is None or not hasattr(self._processor, "post_process_semantic_segmentation"):
            raise InvalidInputError(f"{self.name} must give scores or masks of classes; {type(self._network).__name__} gives neither.")
        shrunk = min(1.0, (_LARGEST / (height * width)) ** 0.5)
        sizes = [(max(1, round(height * shrunk)), max(1, round(width * shrunk)))] * len(photographs)
        maps = self._processor.post_process_semantic_segmentation(given, target_sizes=sizes)
        return [nearest_numbers(one.cpu().numpy(), height, width) for one in maps]

    def _taken(self, given: Mapping[str, Any]) -> dict[str, Any]:
        task = {"task_inputs": ["semantic"] * len(given["images"])} if hasattr(self._processor, "task_seq_length") else {}
        found = self._processor(**given, **task)
        names = ("pixel_values", "pixel_mask", "task_inputs")
        return {name: found[name].to(self._device) for name in names if name in found}


def load_transformers(spec: str | Path, *, classes: str | None = None, device: str = "auto") -> TransformersSegmenter:
    """Open a network that tells classes apart, with its image processor.

    Args:
        spec: a folder that `save_pretrained` wrote (config.json, preprocessor_config.json, *.safetensors), or a name on the hub,
            owner/name, which the library fetches and keeps.
        classes: the name of a numbering; absent: by the network's own class names (`id2label`).
        device: "cpu", "cuda", or "auto": CUDA where there is a device.

    Raises:
        MissingExtraError: transformers is not installed.
        MissingFileError: the folder lacks a file, or the hub cannot be reached.
        DamagedFileError: a file is truncated or foreign.
        InvalidInputError: it is no such network, its numbering is missing, or there is no such device.
    """
    library, name, at = transformers(), str(spec), _device(device)
    if isinstance(spec, Path):
        _check_folder(spec)
    safe = {"trust_remote_code": False, "local_files_only": isinstance(spec, Path)}
    try:
        with _without_retries():
            config = library.AutoConfig.from_pretrained(name, **safe)
            maker = _maker(library, config, name)
            network, said = maker.from_pretrained(name, use_safetensors=True, output_loading_info=True, **safe)
            reader = library.OneFormerProcessor if config.model_type == "oneformer" else library.AutoImageProcessor
            processor = reader.from_pretrained(name, **safe)
    except InvalidInputError:
        raise
    except OSError as error:
        kind = DamagedFileError if isinstance(spec, Path) else MissingFileError
        raise kind(f"{name} must be a network that transformers opens from safetensors; it does not: {_line(error)}") from error
    except Exception as error:  # the library and safetensors raise anything where a file is damaged
        raise DamagedFileError(f"{name} must be a network that transformers opens from safetensors; it does not: {_line(error)}") from error
    if lacking := sorted(said["missing_keys"]) + sorted(str(one[0]) for one in said.get("mismatched_keys", ())):
        raise DamagedFileError(
            f"{name} must hold all weights of {type(network).__name__}; {len(lacking)} are missing or of another shape, the first "
            f"{lacking[0]}."
        )
    named = {int(number): str(text) for number, text in config.id2label.items()}
    if set(named) != set(range(len(named))):
        raise InvalidInputError(f"{name} must number its classes from 0 on; its config's id2label has {sorted(named)[:5]} and so on.")
    names = [named[number] for number in range(len(named))]
    own = (
        [] if all(text == f"LABEL_{number}" for number, text in enumerate(names)) else names
    )  # what the library writes where nobody named them
    meant = numbering(own, asked=classes, count=len(names), where=name)
    return TransformersSegmenter(network, processor, name=name, classes=meant, device=at)


@contextmanager
def _without_retries() -> Iterator[None]:
    """The hub's client tells of each try again on stderr; what came of them all is the error's to say."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_folder(folder: Path) -> None:
    for file in ("config.json", "preprocessor_config.json"):
        other = folder / "processor_config.json"  # of processors with several parts
        if not (folder / file).is_file() and not (file != "config.json" and other.is_file()):
            raise MissingFileError(
                f"{folder} must be a folder that transformers' save_pretrained wrote, of network and image processor; it has no {file}."
            )
    if not any(folder.glob("*.safetensors")):
        raise MissingFileError(
            f"{folder} must hold its weights as *.safetensors; it has none, and weights that are pickles are never loaded."
        )


def _maker(library: ModuleType, config: Any, name: str) -> Any:
    kinds = (library.AutoModelForSemanticSegmentation, library.AutoModelForUniversalSegmentation)
    for kind in kinds:
        if type(config) in kind._model_mapping:
            return kind
    raise InvalidInputError(f"{name} must be a network for semantic segmentation; transformers knows {config.model_type} for none.")


def _settings(processor: Any) -> dict[str, Any]:
    """The image processor's own, as plain values, for the record and the digest."""
    inner = getattr(processor, "image_processor", processor)
    found = inner.to_dict()
    return {"processor": type(inner).__name__} | {key: _plain(found[key]) for key in _KEPT if found.get(key) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, str)) else int(value)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InvalidInputError(f"The device must be auto, cpu or cuda; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("The device cuda must be there; torch sees none. Use device=cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
