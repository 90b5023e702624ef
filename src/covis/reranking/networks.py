"""kornia, imported here alone: learned local features and matchers, with weights from a local file. Nothing is downloaded.

torch is imported with it, when a matcher is made: RootSIFT needs neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError, MissingExtraError, MissingFileError
from covis.reranking.matchers import Prepared, counted, share
from covis.reranking.nearest import mutual_nearest, squared_distances

if TYPE_CHECKING:
    import torch

WRAPPERS = ("extractor", "state_dict", "model_state_dict", "model")
"""Names under which published files keep the state dict: DISK's, LoFTR's, and the usual ones."""
LAYERS = 9
"""Of LightGlue."""


def kornia() -> ModuleType:
    """The library's local features.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import kornia.feature as library
    except ImportError as error:
        raise MissingExtraError("Learned matchers need the library kornia, which is not installed: pip install covis[matchers]") from error
    module: ModuleType = library
    return module


class _Learned:
    """A network of kornia in eval mode; one image or pair at a time, since torch has threads of its own."""

    def __init__(self, device: str) -> None:
        import kornia as library
        import torch

        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise InvalidInputError(f"The device must be one that torch knows, such as cpu or cuda; got {device!r}.") from error
        self.libraries = {"kornia": str(library.__version__), "torch": str(torch.__version__)}
        self._turn = threading.Lock()

    def _run(self, work: Callable[[], Mapping[str, torch.Tensor]]) -> dict[str, NDArray[Any]]:
        import torch

        with self._turn, torch.inference_mode():
            return {name: tensor.cpu().numpy() for name, tensor in work().items()}

    def _pixels(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """(1, 3, height, width) float32 in [0, 1]."""
        import torch

        return torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None].float() / 255

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.array(array)).to(self.device)


class Disk(_Learned):
    """DISK (Tyszkiewicz et al., NeurIPS 2020): points and 128 dimensions, matched as mutual nearest neighbours.

    Args:
        weights: DISK's published file (`depth-save.pth`), or a state dict of `kornia.feature.DISK`.
        features: at most so many of an image.
        ratio: of the ratio test, in (0, 1].
        device: where the network runs.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no file of tensors.
        InvalidInputError: it does not fit the network, or an option is outside its range.
        MissingExtraError: kornia is not installed.
    """

    def __init__(self, *, weights: str | Path, features: int = 1000, ratio: float = 0.95, device: str = "cpu") -> None:
        library = kornia()
        super().__init__(device)
        self.features, self.ratio = counted(features), share(ratio, "ratio")
        self.network = _filled(library.DISK(), weights).to(self.device)

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """`points` (n, 2), `vectors` (n, 128) and the image's `size` (width, height), float32."""

        def work() -> dict[str, torch.Tensor]:
            found = self.network(self._pixels(image), n=self.features, pad_if_not_divisible=True)[0]
            return {"points": found.keypoints, "vectors": found.descriptors}

        return {**self._run(work), "size": np.array([image.shape[1], image.shape[0]], dtype=np.float32)}

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.float32]:
        """(m, 4) float32: mutual nearest neighbours that pass the ratio test."""
        return _nearest(a, b, self.ratio)


class LightGlue(Disk):
    """LightGlue (Lindenberger et al., ICCV 2023) on DISK's features: a network says which points match.

    Args:
        weights: DISK's, as for `Disk`.
        matcher_weights: LightGlue's published file for DISK (`disk_lightglue.pth`), or a state dict of `kornia.feature.LightGlue`.
        features: at most so many of an image.
        score: a match must reach this score, in [0, 1].
        device: where the networks run.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no file of tensors.
        InvalidInputError: it does not fit the network, or an option is outside its range.
        MissingExtraError: kornia is not installed.
    """

    def __init__(
        self,
        *,
        weights: str | Path,
        matcher_weights: str | Path,
        features: int = 1000,
        score: float = 0.1,
        device: str = "cpu",
    ) -> None:
        super().__init__(weights=weights, features=features, device=device)
        glue = kornia().LightGlue(features=None, input_dim=128, filter_threshold=share(score, "score"))
        self.glue = _filled(glue, matcher_weights, rename=_glue_name, derived=("confidence_thresholds",)).to(self.device)

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.float32]:
        """(m, 4) float32: what the network matches."""
        if not len(a["points"]) or not len(b["points"]):
            return np.zeros((0, 4), dtype=np.float32)

        def work() -> dict[str, torch.Tensor]:
            sides = [
                {
                    "keypoints": self._tensor(one["points"])[None],
                    "descriptors": self._tensor(one["vectors"])[None],
                    "image_size": self._tensor(one["size"])[None],
                }
                for one in (a, b)
            ]
            return {"pairs": self.glue({"image0": sides[0], "image1": sides[1]})["matches"][0]}

        pairs = self._run(work)["pairs"]
        return np.hstack([a["points"][pairs[:, 0]], b["points"][pairs[:, 1]]]).astype(np.float32)


class XFeat(_Learned):
    """XFeat (Potje et al., CVPR 2024): light features of 64 dimensions, made for CPUs, matched as mutual nearest neighbours.

    Args:
        weights: XFeat's published file (`xfeat.pt`), a state dict of its network.
        features: at most so many of an image.
        detection: a point's score must exceed this, in [0, 1].
        ratio: of the ratio test, in (0, 1].
        device: where the network runs.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no file of tensors.
        InvalidInputError: it does not fit the network, or an option is outside its range.
        MissingExtraError: kornia is not installed.
    """

    def __init__(
        self, *, weights: str | Path, features: int = 1000, detection: float = 0.05, ratio: float = 0.95, device: str = "cpu"
    ) -> None:
        library = kornia()
        super().__init__(device)
        self.ratio = share(ratio, "ratio")
        self.network = library.XFeat(top_k=counted(features), detection_threshold=share(detection, "detection"))
        _filled(self.network.net, weights)
        self.network.to(self.device).eval()

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """`points` (n, 2) and `vectors` (n, 64), float32."""

        def work() -> dict[str, torch.Tensor]:
            found = self.network.detectAndCompute(self._pixels(image))[0]
            return {"points": found["keypoints"].float(), "vectors": found["descriptors"]}

        return self._run(work)

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.float32]:
        """(m, 4) float32: mutual nearest neighbours that pass the ratio test."""
        return _nearest(a, b, self.ratio)


class Loftr(_Learned):
    """LoFTR (Sun et al., CVPR 2021): matches two images as a whole, without a detector; strong and slow.

    What is prepared is its backbone's maps, which do not depend on the other image: 45 MB of an image of 640 × 480.

    Args:
        weights: LoFTR's published file (`loftr_outdoor.ckpt`, `loftr_indoor.ckpt`), or a state dict of `kornia.feature.LoFTR`.
        score: a match must reach this score, in [0, 1].
        device: where the network runs.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no file of tensors.
        InvalidInputError: it does not fit the network, or an option is outside its range.
        MissingExtraError: kornia is not installed.
    """

    def __init__(self, *, weights: str | Path, score: float = 0.2, device: str = "cpu") -> None:
        library = kornia()
        super().__init__(device)
        network = library.LoFTR(pretrained=None)
        settings = {**network.config["match_coarse"], "thr": share(score, "score")}
        network = library.LoFTR(pretrained=None, config={**network.config, "match_coarse": settings})
        self.network = _filled(network, weights, rename=lambda name: name.removeprefix("matcher.")).to(self.device)

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """The backbone's maps of the grey image: `coarse` at an eighth of its size, `fine` at a half."""
        grey = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as its training images were made
        return self._run(
            lambda: self.network.extract_features((self._pixels(image) * self._tensor(grey)[None, :, None, None]).sum(1, keepdim=True))
        )

    def correspondences(self, a: Prepared, b: Prepared) -> NDArray[np.float32]:
        """(m, 4) float32: what the network matches."""

        def work() -> dict[str, torch.Tensor]:
            sides = [{name: self._tensor(one[name]) for name in ("coarse", "fine")} for one in (a, b)]
            found = self.network({"features0": sides[0], "features1": sides[1]})
            return {"a": found["keypoints0"], "b": found["keypoints1"]}

        found = self._run(work)
        return np.hstack([found["a"], found["b"]]).astype(np.float32)


def _nearest(a: Prepared, b: Prepared, ratio: float) -> NDArray[np.float32]:
    pairs = mutual_nearest(squared_distances(a["vectors"], b["vectors"]), ratio=ratio**2)
    return np.hstack([a["points"][pairs[:, 0]], b["points"][pairs[:, 1]]]).astype(np.float32)


def _filled(network: Any, path: str | Path, *, rename: Callable[[str], str] = str, derived: tuple[str, ...] = ()) -> Any:
    """The network with the file's weights, entry by entry, in eval mode; entries in `derived` may be missing."""
    from covis.models.weights import load_safely, misfits, read_weights

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"The weights {path} must exist; there is no such file. Fetch them once, and give the file.")
    stored = read_weights(path) if path.suffix == ".safetensors" else load_safely(path)
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    given = {rename(str(name)): value for name, value in stored.items()} if isinstance(stored, Mapping) else {}
    own = network.state_dict()
    given = {name: own[name] for name in derived if name in own} | given
    if not given or any(not hasattr(value, "shape") for value in given.values()):
        raise InvalidInputError(f"The weights {path} must be a state dict (names and tensors); found a {type(stored).__name__} of others.")
    if complaints := misfits(given, own):
        raise InvalidInputError(
            f"The weights {path} must fit {type(network).__name__} entry by entry; {complaints}. Give the file of this matcher."
        )
    network.load_state_dict(given)
    return network.eval()


def _glue_name(name: str) -> str:
    """A parameter of LightGlue as kornia calls it; published files have it by an older name."""
    name = name.removeprefix("matcher.")
    for layer in range(LAYERS):
        for part in ("self_attn", "cross_attn"):
            if name.startswith(f"{part}.{layer}."):
                return name.replace(f"{part}.{layer}", f"transformers.{layer}.{part}", 1)
    return name
