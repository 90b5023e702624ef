"""Names become describers here: a folder of ours, `module:function`, a torch.hub folder, an .onnx file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from covis.errors import (
    CovisError,
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingFileError,
    UnknownNameError,
)
from covis.files import digest, file_digest
from covis.lookup import resolve
from covis.models import onnx_models
from covis.models.checkpoints import load
from covis.models.describers import Describer
from covis.models.export import PARITY, Network, check_exportable, export_model, parity
from covis.models.foreign import PIXELS, ForeignModel, pixel_settings

Engine = Literal["auto", "torch", "onnx"]

EXPORT_PAYS = 500
"""Images from which "auto" exports a network that is not in the cache. An export takes about 20 s; on two cores ONNX Runtime
saves 0.2 s an image of a ResNet-50 at 480 x 640, which pays from 100 on, and 0.03 s of a MobileNetV3, which pays from 600 on."""

EXTRA = ("onnx", "onnxruntime", "onnxscript")

FORMS = "a folder that covis wrote, an .onnx file, module:function, or hub:/path/to/folder:entry"
NETWORKS = "a folder that covis wrote, module:function, or hub:/path/to/folder:entry"


def open_model(
    spec: str | Path, *, engine: Engine = "auto", count: int | None = None, options: Mapping[str, Any] | None = None
) -> Describer:
    """Open anything that describes images.

    A spec is one of:

    - a folder that `covis train`, `covis run` or `covis.save` wrote;
    - an .onnx file that `covis export` wrote, or one of others with one image in and one descriptor out;
    - `module:function`: the function is called with the options that are no pixels, and returns a torch module;
    - `hub:/path/to/folder:entry`: the same of an entry of the folder's hubconf.py (torch.hub, from this disk).

    **The last two run the code that they name.** Name none that you would not run.

    Args:
        spec: see above.
        engine: "torch"; "onnx": ONNX Runtime, to which the network is exported once and kept by its hash; "auto": ONNX Runtime
            where it is installed, no CUDA device is there, the network reads photographs, and it is kept already or `count` is
            at least `EXPORT_PAYS`, else torch.
        count: images that will be described; absent: few.
        options: `height`, `width`, `resize`, `mean`, `std` and `normalize` say which pixels a module expects; the others are
            keyword arguments of the function or the entry.

    Returns:
        A describer on the processor, in eval mode. Its digest does not depend on the engine.

    Raises:
        UnknownNameError: there is no such module, function or entry.
        InvalidInputError: an option does not fit, what the function returns is no torch module, or gives no descriptors.
        MissingFileError: there is no such folder or file.
        DamagedFileError: a file is truncated or foreign.
        MissingExtraError: engine "onnx", or an .onnx file, without onnxruntime.

    Warns:
        CovisWarning: "auto" exported the network without success; or what is kept by hash cannot be kept.
    """
    if engine not in get_args(Engine):
        raise InvalidInputError(f"The engine must be one of {', '.join(get_args(Engine))}; got {engine!r}.")
    path = Path(spec).expanduser()
    if path.suffix == ".onnx" and not str(spec).startswith("hub:"):
        if engine == "torch":
            raise InvalidInputError(
                f"{spec} is run by ONNX Runtime, not by torch. Leave the engine out, or open the network it was made of."
            )
        return onnx_models.load_onnx(path, options=options)
    return _with_engine(open_network(spec, options=options), engine, count)


def open_network(spec: str | Path, *, options: Mapping[str, Any] | None = None) -> Network:
    """What `open_model` opens, as a torch module: every spec but an .onnx file.

    Raises:
        CovisError: as of `open_model`.
    """
    options, path = dict(options or {}), Path(spec).expanduser()
    if str(spec).startswith("hub:"):
        return _from_hub(str(spec), options)
    if path.suffix == ".onnx" and path.is_file():
        raise InvalidInputError(f"A network must be {NETWORKS}; {spec} is one that was exported already. {_made_of(path)}")
    if path.is_file():
        raise InvalidInputError(
            f"A model must be {FORMS}; {spec} is another file. Is it weights? Those go with --weights, or to covis convert."
        )
    if path.exists():
        if options:
            raise InvalidInputError(
                f"{spec} says itself what it expects; got the options {', '.join(options)}, which are for code of others."
            )
        return load(path)
    if ":" in str(spec):
        return _from_function(str(spec), options)
    raise MissingFileError(f"A model must be {FORMS}; there is no folder or file {spec}.")


def cache_folder() -> Path:
    """Where exported networks are kept: $COVIS_CACHE, else the system's folder for such files. They may be removed at any time."""
    if given := os.environ.get("COVIS_CACHE"):
        return Path(given) / "engines"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "covis" / "engines"


def to_onnx(model: Network) -> onnx_models.OnnxModel:
    """The network on ONNX Runtime: exported once, kept by its hash and the libraries' versions, and held against torch when opened.

    Raises:
        InvalidInputError: it cannot be exported (a network that reads label maps is not), or differs from torch.
        MissingExtraError: a library is not installed.

    Warns:
        CovisWarning: the folder that keeps it cannot be written; it is exported anew next time.
    """
    check_exportable(model)
    onnx_models.onnxruntime()
    kept = _kept(model)
    if kept.exists():
        try:
            found = onnx_models.load_onnx(kept)
            # Weights alone do not say what a network of others computes: its code may have changed.
            if found.digest == model.digest and parity(found, model.describe_pixels, batches=(1,)) <= PARITY:
                return found
        except (DamagedFileError, InvalidInputError):
            pass  # it is made again
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own: several processes may export the same network at once.
        with tempfile.TemporaryDirectory(prefix="export-", dir=kept.parent) as folder:
            _export(model, Path(folder) / "engine.onnx").path.replace(kept)
        return onnx_models.load_onnx(kept)
    except OSError as error:  # OutputFailedError is one
        warnings.warn(
            f"The exported network cannot be kept in {kept.parent} ({error}), and is exported anew each time. "
            "Name a folder that can be written by the environment variable COVIS_CACHE.",
            CovisWarning,
            stacklevel=3,
        )
    with tempfile.TemporaryDirectory(prefix="covis-") as folder:
        return _export(model, Path(folder) / "engine.onnx")


def _export(model: Network, path: Path) -> onnx_models.OnnxModel:
    return export_model(model, path, fixed=True)  # one size is all that is asked of an engine


def _kept(model: Network) -> Path:
    versions = digest([version(name) for name in (*EXTRA, "torch")] + [onnx_models.VERSION])
    return cache_folder() / f"{model.digest}-{versions}.onnx"


def _with_engine(model: Network, engine: Engine, count: int | None) -> Describer:
    if engine == "torch":
        return model
    if engine == "onnx":
        return to_onnx(model)
    if model.resize == "labels" or not all(importlib.util.find_spec(name) for name in EXTRA) or torch.cuda.is_available():
        return model
    if not _kept(model).exists() and (count or 0) < EXPORT_PAYS:
        return model
    try:
        return to_onnx(model)
    except CovisError as error:
        warnings.warn(f"The network is run by torch, not by ONNX Runtime: {error}", CovisWarning, stacklevel=4)
        return model


def _made_of(path: Path) -> str:
    header = onnx_models.read_header(path)
    opened = header.get("history", {}).get("opened", {}).get("model")
    return f"Give the network that it was made of: {opened or header['model']}." if header else "Give the network that it was made of."


def _from_function(spec: str, options: dict[str, Any]) -> ForeignModel:
    module = spec.partition(":")[0]
    try:
        function: Any = resolve(spec, {}, what="model")
    except UnknownNameError as error:
        raise UnknownNameError(f"{error} A model is {FORMS}; a module of yours must be installed, or its folder on PYTHONPATH.") from error
    except Exception as error:  # importing runs the user's code
        raise InvalidInputError(f"The module {module!r} must import; it fails with {_said(error)}.") from error
    if not callable(function):
        raise InvalidInputError(f"{spec} must be a function that returns a torch module; it is a {type(function).__name__}.")
    own = {key: value for key, value in options.items() if key not in PIXELS}
    try:
        inspect.signature(function).bind(**own)
    except TypeError as error:
        raise InvalidInputError(f"{spec} does not take the options {own}: {error}.") from error
    except ValueError:
        pass  # code without a signature; the call says what is wrong
    return _wrapped(lambda: function(**own), spec, options, code=_source(function))


def _from_hub(spec: str, options: dict[str, Any]) -> ForeignModel:
    folder, colon, entry = spec.removeprefix("hub:").rpartition(":")
    if not colon or not folder or not entry:
        raise InvalidInputError(f"A torch.hub model must read hub:/path/to/folder:entry; got {spec!r}.")
    path = Path(folder).expanduser()
    if not (path / "hubconf.py").is_file():
        missing = "it has no hubconf.py" if path.is_dir() else "there is no such folder (nothing is downloaded: clone the repository first)"
        raise MissingFileError(f"{path} must be a folder with a hubconf.py; {missing}.")
    own = {key: value for key, value in options.items() if key not in PIXELS}
    # The folder's name and its code say which model it is, wherever the folder lies.
    name = f"hub:{path.resolve().name}:{entry}"

    importlib.invalidate_caches()
    modules = _Folder(path.resolve())

    def make() -> Any:
        return torch.hub.load(str(path), entry, source="local", **own)  # type: ignore[no-untyped-call] # torch says no types here

    return _wrapped(make, name, options, code=_folder_digest(path.resolve()), around=modules.at_hand)


class _Folder:
    """The modules of a torch.hub folder: in Python's table while its code runs, and out of it otherwise.

    So `networks` of one folder is not that of another, nor of the same folder before it changed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._own = path, dict[str, Any]()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        before = dict(sys.modules)
        sys.modules.update(self._own)
        sys.path.insert(0, str(self._path))  # code may import more of its own only when it describes
        try:
            yield
        finally:
            if str(self._path) in sys.path:
                sys.path.remove(str(self._path))
            new = [(name, module) for name, module in list(sys.modules.items()) if module is not before.get(name)]
            self._own.update((name, module) for name, module in new if _lies_in(name, module, self._path))
            for name in self._own:
                if name in before:
                    sys.modules[name] = before[name]
                else:
                    sys.modules.pop(name, None)


def _lies_in(name: str, module: Any, folder: Path) -> bool:
    """Whether a module is code of a folder; libraries installed within it (a .venv) are not, nor is covis."""
    if name.partition(".")[0] in ("covis", "__main__"):
        return False
    known = getattr(module, "__dict__", {})  # not by its attributes: some modules make those up
    files = [known.get("__file__"), *known.get("__path__", ())]
    return any(isinstance(file, str) and _own_code(Path(file).resolve(), folder) for file in files)


def _own_code(file: Path, folder: Path) -> bool:
    if not file.is_relative_to(folder):
        return False
    parts = file.relative_to(folder).parts
    return not any(part in ("site-packages", "dist-packages", "__pycache__") or part.startswith(".") for part in parts)


def _folder_digest(folder: Path) -> str:
    """A hash of the Python files of a folder: other code is another model, even where the weights are the same."""
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*.py") if _own_code(file, folder))
    return digest([[name, file_digest(file)] for name, file in files if file.is_file()])


def _wrapped(
    make: Callable[[], Any],
    name: str,
    options: dict[str, Any],
    *,
    code: str,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> ForeignModel:
    """What the user's code makes, as a describer; whatever goes wrong there is one sentence."""
    settings = pixel_settings(options, where=name)
    own = {key: value for key, value in options.items() if key not in PIXELS}
    try:
        with around(), torch.random.fork_rng(devices=[]):  # the code of others may seed
            torch.default_generator.manual_seed(0)  # without weights of its own a network is the same each time
            network = make()
    except Exception as error:
        raise _failure(name, own, error) from error
    if not isinstance(network, nn.Module):
        raise InvalidInputError(f"{name} must return a torch module (torch.nn.Module); it returned a {type(network).__name__}.")
    return ForeignModel(network, name=name, options=own, code=code, settings=settings, around=around).eval()


def _failure(name: str, own: Mapping[str, Any], error: Exception) -> CovisError:
    if isinstance(error, CovisError):
        return error
    if isinstance(error, RuntimeError) and str(error).startswith("Cannot find callable"):
        return UnknownNameError(f"{name} must name a function of the folder's hubconf.py; there is none of that name.")
    said = f"with the options {dict(own)}" if own else "without options"
    return InvalidInputError(f"{name} was called {said} and failed with {_said(error)}. The model's own code says why.")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _source(function: Any) -> str:
    """A hash of the file that defines a function: other code is another model, even where the weights are the same."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        return ""
    return file_digest(file) if file and Path(file).is_file() else ""
