"""Names become segmenters here: a .tflite or .onnx file, a folder of transformers, `hf:owner/name`, `module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from covis.errors import CovisError, InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import resolve
from covis.segmentation.segmenters import Segmenter, class_names

FORMS = "a .tflite or .onnx file, a folder of the transformers library, hf:owner/name, or module:function"


def open_segmenter(spec: str | Path, *, classes: str | None = None, options: Mapping[str, Any] | None = None) -> Segmenter:
    """Open anything that segments photographs.

    A spec is one of:

    - a .tflite file (extra `segment`);
    - an .onnx file (extra `onnx`);
    - a folder that transformers' `save_pretrained` wrote, or `hf:owner/name`, which transformers fetches from its hub
      (extra `segment`): safetensors alone, and never code of the repository;
    - `module:function`: the function is called with the options, and returns a `Segmenter`. **It runs the code that it names.**

    Args:
        spec: see above.
        classes: the name of a numbering of `covis.semantics.numberings`; absent: found by the network's class names, which files
            of .tflite and .onnx do not say.
        options: of files: `height`, `width`, `fit`, `mean` and `std` (`outputs.OPTIONS`); of transformers: `device`; of a function: its
            keywords.

    Raises:
        MissingFileError: there is no such file or folder.
        DamagedFileError: a file is truncated or foreign.
        UnknownNameError: there is no such numbering, module or function.
        InvalidInputError: an option does not fit, the numbering is missing, or the function returns no segmenter.
        MissingExtraError: the library that runs it is not installed.
    """
    text, path, options = str(spec), Path(spec).expanduser(), dict(options or {})
    if classes is not None:
        class_names(classes)  # an error where there is no such numbering, before a network is fetched and opened
    if path.suffix in (".tflite", ".onnx"):
        from covis.segmentation.outputs import check_options

        check_options(options, where=text)
    if text.startswith("hf:"):
        if text.removeprefix("hf:").count("/") != 1 or not all(text.removeprefix("hf:").split("/")):
            raise InvalidInputError(f"A network on the hub is hf:owner/name; got {text}. Say whose it is.")
        from covis.segmentation.transformers_models import load_transformers

        return load_transformers(text.removeprefix("hf:"), classes=classes, **_device(options, text))
    if path.suffix == ".tflite":
        from covis.segmentation.tflite_models import load_tflite

        return load_tflite(path, classes=classes, options=options)
    if path.suffix == ".onnx":
        from covis.segmentation.onnx_maps import load_onnx_segmenter

        return load_onnx_segmenter(path, classes=classes, options=options)
    if path.is_dir():
        from covis.segmentation.transformers_models import load_transformers

        return load_transformers(path, classes=classes, **_device(options, text))
    if path.exists() or ":" not in text:
        raise MissingFileError(f"A segmentation model must be {FORMS}; {text} is {'another file' if path.exists() else 'not there'}.")
    return _from_function(text, classes, options)


def _device(options: Mapping[str, Any], where: str) -> dict[str, str]:
    if unknown := [key for key in options if key != "device"]:
        raise InvalidInputError(f"{where} says itself which pixels it takes, and takes the option device alone; got {', '.join(unknown)}.")
    return {key: str(value) for key, value in options.items()}


def _from_function(spec: str, classes: str | None, options: Mapping[str, Any]) -> Segmenter:
    try:
        function: Any = resolve(spec, {}, what="segmenter")
        inspect.signature(function).bind(**options)
        found: Any = function(**options)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error} A segmentation model is {FORMS}; a module of yours must be installed, or on PYTHONPATH."
        ) from error
    except CovisError:
        raise
    except Exception as error:  # it runs the user's code
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InvalidInputError(
            f"{spec} was called with {dict(options)} and failed with {reason}. The code that it names says why."
        ) from error
    lacking = [name for name in ("classes", "digest", "engine", "segment") if not hasattr(found, name)]
    if lacking:
        raise InvalidInputError(
            f"{spec} must return a segmenter, which has classes, digest, engine and segment; it lacks {', '.join(lacking)}."
        )
    if classes is not None and classes != found.classes:
        raise InvalidInputError(f"{spec} says itself that its classes are {found.classes!r}; got --classes {classes}. Leave it out.")
    class_names(found.classes)  # an error where there is no such numbering
    segmenter: Segmenter = found
    return segmenter
