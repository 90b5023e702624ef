"""The engines that segment: TensorFlow Lite, ONNX Runtime, transformers; each against what its own library says."""

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from covis.datasets import read
from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError, MissingFileError
from covis.pixels import decode
from covis.rasters import read_image, read_label_map
from covis.segmentation import open_segmenter, segment, tflite_models, transformers_models
from covis.segmentation.frames import Frame
from covis.segmentation.outputs import check_channels_first, maps_of, pixels_of
from covis.semantics.numberings import NUMBERINGS

RANDOM = np.random.default_rng(4)
PHOTOGRAPHS = [RANDOM.integers(0, 256, size=size, dtype=np.uint8) for size in ((48, 70, 3), (33, 20, 3), (48, 70, 3))]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
NETWORK = "weights/deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"


@pytest.fixture
def network_file(covis_data):
    """The Cityscapes network of google-coral/test_data."""
    pytest.importorskip("ai_edge_litert", reason="the extra segment is not installed")
    if not (covis_data / NETWORK).is_file():
        pytest.skip(f"needs {NETWORK} in the real data")
    return covis_data / NETWORK


@pytest.fixture
def campus(covis_data):
    if not (covis_data / "campus/gt.csv").is_file():
        pytest.skip("needs campus/gt.csv in the real data")
    (scene,) = read("table", covis_data / "campus/gt.csv", header=False, columns={"name": 1, "lat": 2, "lon": 3})
    return scene.database


def test_a_street_network_sees_the_sky_above_and_the_ground_below(network_file, campus, tmp_path):
    """Three photographs of a wide square by day: the numbers are Cityscapes' train ids, whatever a list of labels beside it says."""
    found = segment(campus.select([10, 15, 19]), network_file, classes="cityscapes-train", out=tmp_path / "maps")
    for row in range(3):
        numbers = read_label_map(found.root / found.segmentation[row])
        assert numbers.shape == read_image(found.path(row)).shape[:2]
        top, bottom = numbers[: len(numbers) // 5], numbers[-len(numbers) // 5 :]
        assert (top == 10).mean() > 0.5
        assert np.isin(bottom, (0, 1, 9)).mean() > 0.8


def test_a_tflite_file_is_fed_as_its_library_is(network_file, campus):
    photograph = read_image(campus.path(10))
    library = tflite_models.interpreter_class()(model_path=str(network_file))
    library.allocate_tensors()
    library.set_tensor(0, np.asarray(Image.fromarray(photograph).resize((513, 513), Image.Resampling.BILINEAR))[None])
    library.invoke()
    found = library.get_tensor(library.get_output_details()[0]["index"])[0]
    rows, columns = (((np.arange(size) + 0.5) * 513 / size).astype(int) for size in photograph.shape[:2])
    model = open_segmenter(network_file, classes="cityscapes-train")
    np.testing.assert_array_equal(model.segment([photograph])[0], found[rows[:, None], columns])
    assert model.settings == {"height": 513, "width": 513, "fit": "stretch", "type": "uint8"}


def test_a_damaged_tflite_file_is_said(network_file, tmp_path):
    with pytest.raises(InvalidInputError, match=r"does not say what its numbers mean.*--classes"):
        open_segmenter(network_file)
    with pytest.raises(InvalidInputError, match=r"normalises itself; mean would"):
        open_segmenter(network_file, classes="cityscapes-train", options={"mean": [0.5, 0.5, 0.5]})
    whole = network_file.read_bytes()
    for cut in (0, 4, 100, 5000, len(whole) // 2):
        (tmp_path / "a.tflite").write_bytes(whole[:cut])
        with pytest.raises(DamagedFileError, match=r"a\.tflite must be a \.tflite file"):
            open_segmenter(tmp_path / "a.tflite", classes="cityscapes-train")
    (tmp_path / "a.tflite").write_text("hello, this is a text and no network")
    with pytest.raises(DamagedFileError, match=r"a\.tflite"):
        open_segmenter(tmp_path / "a.tflite", classes="cityscapes-train")


class Made:
    """An interpreter with one photograph in and scores or numbers out, as the library's shows itself."""

    taken = (np.float32, (1, -1, -1, 3))
    given = (1, 4, 4, 3)

    def __init__(self, model_path, num_threads):
        self.shape = [1, 1, 1, 3]

    def allocate_tensors(self):
        return

    def resize_tensor_input(self, index, shape):
        self.shape = shape

    def get_input_details(self):
        kind, signature = self.taken
        return [{"index": 0, "dtype": kind, "shape_signature": np.array(signature), "shape": np.array(self.shape)}]

    def get_output_details(self):
        return [{"index": 1, "shape": np.array(self.given)}]

    def set_tensor(self, index, value):
        self.value = value

    def invoke(self):
        return

    def get_tensor(self, index):
        """Scores: the channels themselves."""
        return self.value[:, ::2, ::2]


@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, None), (np.uint8, 0), (np.int8, 128)])
def test_inputs_of_each_type(monkeypatch, tmp_path, dtype, offset):
    made = type("Typed", (Made,), {"taken": (dtype, (1, -1, -1, 3))})
    monkeypatch.setattr(tflite_models, "interpreter_class", lambda: made)
    (tmp_path / "a.tflite").write_bytes(b"x")
    model = open_segmenter(tmp_path / "a.tflite", classes="cityscapes-train", options={"height": 8, "width": 8})
    photograph = RANDOM.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    model.segment([photograph])
    fed = model._interpreter.value
    assert fed.dtype == dtype
    wanted = (photograph / np.float32(255) - MEAN) / STD if offset is None else photograph.astype(int) - offset
    np.testing.assert_allclose(fed[0], wanted, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"any height"):
        open_segmenter(tmp_path / "a.tflite", classes="cityscapes-train")


def test_absence_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"x")
    (tmp_path / "net").mkdir()
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter", "transformers", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    for spec, extra in (("a.tflite", "segment"), ("net", "segment"), ("a.onnx", "onnx")):
        with pytest.raises(MissingExtraError, match=rf"pip install covis\[{extra}\]"):
            open_segmenter(tmp_path / spec, classes="ade20k")


@pytest.mark.parametrize(
    "form", ["(n, h, w)", "(n, 1, h, w)", "(n, h, w, 1)", "float numbers", "(n, C, h, w)", "(n, h, w, C)", "int8 scores"]
)
def test_outputs_of_each_form(form):
    numbers = RANDOM.integers(0, 5, size=(2, 6, 4))
    scores = np.eye(5, dtype=np.float32)[numbers].transpose(0, 3, 1, 2)
    found, last = {
        "(n, h, w)": (numbers, False),
        "(n, 1, h, w)": (numbers[:, None], False),
        "(n, h, w, 1)": (numbers[..., None].astype(np.uint8), True),
        "float numbers": (numbers.astype(np.float32), True),
        "(n, C, h, w)": (scores, False),
        "(n, h, w, C)": (scores.transpose(0, 2, 3, 1), True),
        "int8 scores": ((scores * 100 - 50).astype(np.int8), False),
    }[form]
    photographs = [np.zeros((6, 4, 3), dtype=np.uint8)] * 2
    frame = pixels_of((1, 3, 6, 4), "float32", {}, channels_last=False, where="net").frame
    for one, wanted in zip(maps_of(found, photographs, frame, channels_last=last, where="net"), numbers, strict=True):
        np.testing.assert_array_equal(one, wanted)


def test_what_is_no_output():
    frame = pixels_of((1, 3, 6, 4), "float32", {}, channels_last=False, where="net").frame
    photograph = [np.zeros((6, 4, 3), dtype=np.uint8)]
    for found, reason in (
        (np.zeros((1, 10)), "class numbers"),
        (np.zeros((2, 6, 4), dtype=int), "1 photographs"),
        (np.full((1, 6, 4), 0.5), "0.5"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            maps_of(found, photograph, frame, channels_last=False, where="net")


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "reason"),
    [
        ((1, 3, 8, 8), "float32", {"size": 8}, r"takes the options height, width, fit, mean, std; got size"),
        ((1, 4, 8, 8), "float32", {}, r"must take one photograph"),
        ((1, 3, 8, 8), "float16", {}, r"must take one photograph"),
        ((3, 8, 8), "float32", {}, r"must take one photograph"),
        ((1, 3, 8, 8), "float32", {"height": 9}, r"of the height 8 alone; asked for 9"),
        ((1, 3, 8, 8), "float32", {"std": [0.0, 1.0, 1.0]}, r"above 0"),
        ((1, 3, 8, 8), "float32", {"fit": "cover"}, r"fit"),
        ((1, 3, None, 8), "float32", {}, r"any height"),
    ],
)
def test_inputs_and_options_that_do_not_fit(shape, dtype, options, reason):
    with pytest.raises(InvalidInputError, match=reason):
        pixels_of(shape, dtype, options, channels_last=False, where="net")


def onnx_file(path: Path, *, layout="NCHW", ids=False, size=("h", "w"), batch="n") -> tuple[Path, np.ndarray]:
    """A convolution of 1 x 1 over pixels, and a quarter of its rows and columns; returns the weights too."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    make, kind = onnx.helper, onnx.TensorProto
    weights = RANDOM.normal(size=(5, 3, 1, 1)).astype(np.float32)
    nodes, name = [], "pixels"
    if layout == "NHWC uint8":
        nodes = [
            make.make_node("Cast", [name], ["float"], to=kind.FLOAT),
            make.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        ]
        name = "first"
    nodes.append(make.make_node("Conv", [name, "weights"], ["scores"], strides=[4, 4]))
    if ids:
        nodes.append(make.make_node("ArgMax", ["scores"], ["numbers"], axis=1, keepdims=0))
    shape = [batch, 3, *size] if layout == "NCHW" else [batch, *size, 3]
    taken = make.make_tensor_value_info("pixels", kind.FLOAT if layout == "NCHW" else kind.UINT8, shape)
    given = make.make_tensor_value_info("numbers", kind.INT64, [batch, None, None]) if ids else None
    given = given or make.make_tensor_value_info("scores", kind.FLOAT, [batch, 5, None, None])
    graph = make.make_graph(nodes, "net", [taken], [given], [onnx.numpy_helper.from_array(weights, "weights")])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path, weights


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_scores_of_an_onnx_file(tmp_path, batch):
    path, weights = onnx_file(tmp_path / "a.onnx", batch=batch)
    model = open_segmenter(
        path, classes="cityscapes-train", options={"height": 64, "width": 48, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
    )
    assert model.settings["mean"] == [0.5, 0.5, 0.5]
    for photograph, found in zip(PHOTOGRAPHS, model.segment(PHOTOGRAPHS), strict=True):
        pixels = torch.tensor(decode(photograph, height=64, width=48)).float() / 255
        pixels = (pixels - 0.5) / torch.tensor([0.25, 0.5, 0.5])[:, None, None]
        scores = torch.nn.functional.conv2d(pixels[None], torch.from_numpy(weights), stride=4)
        wanted = torch.nn.functional.interpolate(scores, photograph.shape[:2], mode="bilinear", align_corners=False)[0]
        first, second = wanted.topk(2, dim=0).values
        clear = (first - second > 1e-4).numpy()
        np.testing.assert_array_equal(found[clear], wanted.argmax(dim=0).numpy()[clear])
        assert clear.mean() > 0.95


def test_numbers_of_an_onnx_file_of_bytes(tmp_path):
    path, weights = onnx_file(tmp_path / "a.onnx", layout="NHWC uint8", ids=True, size=(16, 16), batch=1)
    model = open_segmenter(path, classes="cityscapes-train")
    photograph = RANDOM.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
    scores = photograph[::4, ::4].astype(np.float32) @ weights[:, :, 0, 0].T
    np.testing.assert_array_equal(model.segment([photograph])[0], scores.argmax(axis=2).repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize("shape", [(1, 16, 16, 19), (1, 16, 16, 17), (1, 16, 12, 5)])
def test_scores_with_their_channels_last_are_refused(shape):
    frame = Frame(64, 64 if shape[2] == 16 else 48)
    with pytest.raises(InvalidInputError, match=r"net: scores must be \(n, C, h, w\)"):
        check_channels_first(shape, frame, classes=0, where="net")
    check_channels_first((1, shape[3], *shape[1:3]), frame, classes=0, where="net")
    check_channels_first(("n", None, None, shape[3]), frame, classes=0, where="net")
    check_channels_first((1, 19, 20, 23), Frame(76, 80), classes=19, where="net")


@pytest.mark.parametrize("said", [True, False])
def test_an_onnx_file_with_its_channels_last(tmp_path, said):
    """By the file's own words when it is opened, else by what comes out."""
    path, _ = onnx_file(tmp_path / "a.onnx", size=(64, 64) if said else ("h", "w"))
    import onnx

    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Transpose", ["scores"], ["last"], perm=[0, 2, 3, 1]))
    del model.graph.output[0]
    shape = ["n", 16, 16, 5] if said else ["n", "a", "b", "c"]
    model.graph.output.append(onnx.helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, shape))
    onnx.save(model, path)
    size = {"height": 64, "width": 64}
    opened = None if said else open_segmenter(path, classes="cityscapes-train", options=size)
    with pytest.raises(InvalidInputError, match=r"scores must be \(n, C, h, w\)"):
        opened.segment(PHOTOGRAPHS[:1]) if opened else open_segmenter(path, classes="cityscapes-train", options=size)


def test_information_is_kept_off_stderr(monkeypatch, tmp_path, capfd):
    class Talking(Made):
        taken = (np.float32, (1, 8, 8, 3))

        def allocate_tensors(self):
            os.write(2, b"INFO: Created a delegate.\nWARNING: something else\n")

    monkeypatch.setattr(tflite_models, "interpreter_class", lambda: Talking)
    (tmp_path / "a.tflite").write_bytes(b"x")
    open_segmenter(tmp_path / "a.tflite", classes="cityscapes-train")
    assert capfd.readouterr().err == "WARNING: something else\n"


def test_the_hubs_client_tries_again_in_silence(caplog):
    logger = logging.getLogger("huggingface_hub.utils._http")
    with caplog.at_level(logging.WARNING):
        with transformers_models._without_retries():
            logger.warning("Retrying in 1s")
        logger.warning("later")
    assert [one.message for one in caplog.records] == ["later"]


def test_onnx_files_that_do_not_fit(tmp_path):
    path, _ = onnx_file(tmp_path / "a.onnx")
    with pytest.raises(InvalidInputError, match=r"any height"):
        open_segmenter(path, classes="cityscapes-train")
    with pytest.raises(InvalidInputError, match=r"does not say what its numbers mean"):
        open_segmenter(path, options={"height": 8, "width": 8})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DamagedFileError, match=r"a\.onnx"):
        open_segmenter(path, classes="cityscapes-train", options={"height": 8, "width": 8})
    with pytest.raises(MissingFileError, match=r"b\.onnx"):
        open_segmenter(tmp_path / "b.onnx", classes="cityscapes-train")


def segformer(folder: Path, names: list[str] | None = None) -> tuple:
    library = pytest.importorskip("transformers", reason="the extra segment is not installed")
    torch.manual_seed(0)
    config = library.SegformerConfig(
        num_labels=19 if names is None else len(names),
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
    )
    if names is not None:
        config.id2label, config.label2id = dict(enumerate(names)), {name: number for number, name in enumerate(names)}
    network = library.SegformerForSemanticSegmentation(config).eval()
    return _saved(folder, network, library.SegformerImageProcessor(size={"height": 64, "width": 64}))


def mask2former(folder: Path) -> tuple:
    library = pytest.importorskip("transformers", reason="the extra segment is not installed")
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = library.SwinConfig(image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_features=stages)
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 16, "dim_feedforward": 16}
    config = library.Mask2FormerConfig(
        backbone_config=swin, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=8, num_labels=19, **sizes
    )
    network = library.Mask2FormerForUniversalSegmentation(config).eval()
    return _saved(folder, network, library.Mask2FormerImageProcessor(size={"height": 64, "width": 64}))


def oneformer(folder: Path) -> tuple:
    library = pytest.importorskip("transformers", reason="the extra segment is not installed")
    torch.manual_seed(0)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "classes.json").write_text(json.dumps({str(number): {"name": f"c{number}", "isthing": 0} for number in range(19)}))
    sizes = {
        "hidden_dim": 32,
        "conv_dim": 32,
        "mask_dim": 32,
        "encoder_feedforward_dim": 16,
        "dim_feedforward": 16,
        "text_encoder_width": 16,
    }
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "text_encoder_num_layers": 1, "num_queries": 8}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = library.SwinConfig(image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_features=stages)
    config = library.OneFormerConfig(
        backbone_config=swin, num_labels=19, text_encoder_vocab_size=len(words), text_encoder_n_ctx=4, **sizes, **layers
    )
    images = library.OneFormerImageProcessor(
        size={"height": 64, "width": 64}, repo_path=str(folder), class_info_file="classes.json", num_text=4, num_labels=19
    )
    processor = library.OneFormerProcessor(image_processor=images, tokenizer=library.CLIPTokenizer.from_pretrained(folder))
    return _saved(folder, library.OneFormerForUniversalSegmentation(config).eval(), processor)


def vary(network) -> None:
    """Another class here and there: an untrained network of masks hardly tells its queries apart, and gives one class everywhere."""
    draw = torch.Generator().manual_seed(3)
    classes, masks = torch.randn(1, 8, 20, generator=draw) * 3, torch.randn(1, 8, 6, 5, generator=draw) * 3

    def varied(_module, _given, found):
        count = len(found.class_queries_logits)
        found.class_queries_logits = classes.expand(count, -1, -1)
        found.masks_queries_logits = masks.expand(count, -1, -1, -1)

    network.register_forward_hook(varied)


def _saved(folder, network, processor):
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network, processor


@pytest.mark.slow  # the library alone takes seconds to import
@pytest.mark.parametrize("make", [segformer, mask2former, oneformer])
def test_maps_are_those_of_the_library(tmp_path, make):
    network, processor = make(tmp_path / "net")
    model = open_segmenter(tmp_path / "net", classes="cityscapes-train")
    assert model.digest == open_segmenter(tmp_path / "net", classes="cityscapes-train").digest
    if make is not segformer:
        vary(network)
        vary(model._network)
    seen = set()
    for photograph, found in zip(PHOTOGRAPHS, model.segment(PHOTOGRAPHS), strict=True):
        task = {"task_inputs": ["semantic"]} if make is oneformer else {}
        taken = processor(images=photograph, return_tensors="pt", **task)
        with torch.inference_mode():
            given = network(**{key: taken[key] for key in ("pixel_values", *task)})
        (wanted,) = processor.post_process_semantic_segmentation(given, target_sizes=[photograph.shape[:2]])
        assert (found == wanted.numpy()).mean() > 0.999  # of nearly equal scores either may win
        seen |= set(np.unique(found).tolist())
    assert len(seen) > 2


@pytest.mark.slow
def test_large_photographs_take_bounded_memory(tmp_path, monkeypatch):
    """Masks are laid out at a limited size, and taken from there by the nearest."""
    mask2former(tmp_path / "net")
    model = open_segmenter(tmp_path / "net", classes="cityscapes-train")
    vary(model._network)
    whole = model.segment(PHOTOGRAPHS[:1])[0]
    monkeypatch.setattr("covis.segmentation.transformers_models._LARGEST", 48 * 70 // 4)
    limited = model.segment(PHOTOGRAPHS[:1])[0]
    assert limited.shape == whole.shape
    assert 0.8 < (limited == whole).mean() <= 1


@pytest.mark.slow
def test_class_names_say_the_numbering(tmp_path):
    segformer(tmp_path / "ade", [NUMBERINGS["ade20k"].classes[number] for number in range(150)])
    assert open_segmenter(tmp_path / "ade").classes == "ade20k"
    segformer(tmp_path / "own", ["cat", "dog", "road"])
    assert open_segmenter(tmp_path / "own").classes == ("cat", "dog", "road")
    segformer(tmp_path / "mute")
    with pytest.raises(InvalidInputError, match=r"does not say what its numbers mean"):
        open_segmenter(tmp_path / "mute")


@pytest.mark.slow
def test_folders_that_do_not_fit(tmp_path):
    folder = tmp_path / "net"
    segformer(folder)
    with pytest.raises(InvalidInputError, match=r"takes the option device alone; got height"):
        open_segmenter(folder, classes="cityscapes-train", options={"height": 3})
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match=r"opens from safetensors"):
        open_segmenter(folder, classes="cityscapes-train")
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingFileError, match=r"weights that are pickles are never loaded"):
        open_segmenter(folder, classes="cityscapes-train")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingFileError, match=r"has no preprocessor_config\.json"):
        open_segmenter(folder, classes="cityscapes-train")


@pytest.mark.slow
def test_missing_weights_and_other_networks_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    segformer(tmp_path / "net")
    weights = load_file(tmp_path / "net/model.safetensors")
    lost = sorted(weights)[0]
    save_file({key: value for key, value in weights.items() if key != lost}, tmp_path / "net/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedFileError, match=r"1 are missing or of another shape"):
        open_segmenter(tmp_path / "net", classes="cityscapes-train")
    config = tmp_path / "net/config.json"
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(InvalidInputError, match=r"knows bert for none"):
        open_segmenter(tmp_path / "net", classes="cityscapes-train")
