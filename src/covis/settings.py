"""Settings: frozen dataclasses with the defaults that hold everywhere, in Python, on the command line and in a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class DataSettings:
    """Where the images come from.

    Attributes:
        layout: a name of `READERS`, or `module:function`.
        train: the scenes that teach: shell patterns of their names, separated by commas; one that begins with `!` takes out.
        val: of those that decide which model is kept (`[train.validate]`), of the split `val_split`.
        test: of those that are asked; empty where nothing is asked.
        train_split, val_split, test_split: the reader's split that each is taken from.
        options: the reader's keyword arguments.
    """

    layout: str = "7scenes"
    train: str = "*"
    val: str = "*"
    test: str = "*"
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelSettings:
    """The label rule, and what is done to its labels where that is to be studied; only `[train_label]` may have anything but the rule.

    Attributes:
        rule: a name of `LABEL_RULES`.
        options: the rule's keyword arguments.
        position_noise: metres, standard deviation of what is added to each image's position, east and north, before the rule sees it.
        heading_noise: degrees, the same for its heading.
        placebo: what is done to the similarities afterwards: a name of `PLACEBOS`, as "shuffled" or "rounded"; empty: nothing.
    """

    rule: str = "surface"
    options: dict[str, Any] = field(default_factory=dict)
    position_noise: float = 0.0
    heading_noise: float = 0.0
    placebo: str = ""


@dataclass(frozen=True)
class EncodingSettings:
    """How a label map becomes a network's input: formatting, clustering and weighting, as StructVPR's encoding.

    Attributes:
        classes: how the maps number their classes: a name of `NUMBERINGS`, or a TOML file; empty: the network reads photographs.
        clusters: which classes share a channel: a name of `CLUSTERINGS` ("six": StructVPR's; "none": each class its own), or a
            TOML file.
        weighted: whether a channel is multiplied by its weight; else it is plain one-hot.
        weights: channel -> weight, laid over those that the clusters come with.
    """

    classes: str = ""
    clusters: str = "six"
    weighted: bool = True
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSettings:
    """A network and the pixels it expects.

    Attributes:
        backbone: a name of `BACKBONES` (those of the papers), or any timm model name.
        backbone_options: keyword arguments of `timm.create_model`.
        pretrained: take the hub's weights (a local file given with `--weights` goes first).
        aggregator: a name of `AGGREGATORS`, or `module:function`.
        aggregator_options: its keyword arguments.
        projection: dimensions of a linear layer after the aggregator; 0: none.
        normalize: divide each descriptor by its L2 norm.
        height: pixels of the network's input.
        width: pixels of the network's input.
        resize: how images get there, by Pillow's antialiased bilinear filter. "pil": both sides, the aspect ratio is
            not kept; "pil-crop": the shorter side, then the centre is cut out.
        mean: subtracted per channel, of values in [0, 1].
        std: divided by per channel.
        levels: which of the backbone's feature levels the aggregator gets, as timm numbers them ([2, 3, 4]: strides 8, 16 and
            32 of a CNN); empty: the last map alone.
        encoding: how label maps become the network's input; without `classes` it reads photographs.
    """

    backbone: str = "mobilenetv2_100"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    aggregator: str = "gem"
    aggregator_options: dict[str, Any] = field(default_factory=dict)
    projection: int = 0
    normalize: bool = True
    height: int = 480
    width: int = 640
    resize: Literal["pil", "pil-crop"] = "pil"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    levels: tuple[int, ...] = ()
    encoding: EncodingSettings = field(default_factory=EncodingSettings)


@dataclass(frozen=True)
class AugmentSettings:
    """How images are changed before they teach, each anew each time; a similarity stays what it is.

    Attributes:
        mirror: mirror both images of a pair, in one pair of two: the similarity is the same, the place another.
        brightness: largest share by which an image is made darker or lighter, in [0, 1).
        contrast: the same, of the contrast.
        saturation: the same, of the saturation.
        grey: share of the images that lose their colours.
        noise: largest standard deviation of noise added to a channel, of values in [0, 1].
        erase: share of the images that a grey rectangle of 2 to 20 % of their area hides.
    """

    mirror: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0
    noise: float = 0.0
    erase: float = 0.0


@dataclass(frozen=True)
class ValidateSettings:
    """What decides which of a run's models is kept.

    Attributes:
        protocol: a named protocol, judged on the validation scenes; empty: none, the last model is kept.
        metric: of that protocol, the greater the better ("recall@5", "mAP@10").
        every: optimiser steps between two validations; the last step is always validated.
        k: how many database images are found for each query.
    """

    protocol: str = ""
    metric: str = "recall@5"
    every: int = 500
    k: int = 25


@dataclass(frozen=True)
class TrainSettings:
    """How the network learns.

    Attributes:
        loss: a name of `LOSSES`, or `module:function`.
        loss_options: its keyword arguments (`margin`).
        sampler: a name of `SAMPLERS`, or `module:class`.
        sampler_options: its keyword arguments (`composition`, `on_empty`).
        steps: optimiser steps.
        batch: pairs (or triplets) a step.
        micro_batch: pairs that the network sees at once, their gradients added up over the step; 0: all of them.
        optimizer: "sgd", "adam" or "adamw".
        learning_rate: its peak.
        momentum: of "sgd".
        weight_decay: of the optimiser.
        schedule: "constant"; "cosine" down towards zero, which one step more would reach; "step": times `decay` every
            `decay_every` steps.
        decay: of schedule "step".
        decay_every: of schedule "step".
        warmup: steps during which the rate rises linearly to what the schedule says.
        freeze: the backbone's stages up to and including this one do not learn ("layer2"; "all"; empty: all learn).
        bn_mode: what BatchNorm does. "train": statistics of the (micro-)batch where the network learns, running ones
            where it is frozen and afterwards; "eval": running statistics throughout, scale and shift still learn (for
            small batches, and for weights whose BatchNorm is folded into the convolutions); "paper": as the reference
            of GCL does, statistics of the (micro-)batch everywhere, the two sides of the pairs one after the other,
            and running statistics move even where the network is frozen.
        precision: "32"; "bf16" or "16": mixed.
        gradient_clip: largest gradient norm; 0 does not clip.
        devices: how many; more than 1 train with one process each on their share of every batch (DDP).
        accelerator: "auto", "cpu" or "gpu".
        checkpoint_every: steps between two checkpoints that a killed run resumes from.
        logger: "csv", or "tensorboard" (extra `logs`).
        seed: of the initial weights, of the pairs, and of the augmentation.
        augment: how images are changed before they teach.
        validate: which model is kept.
    """

    loss: str = "gcl"
    loss_options: dict[str, Any] = field(default_factory=dict)
    sampler: str = "graded"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    steps: int = 1000
    batch: int = 32
    micro_batch: int = 0
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    decay: float = 0.1
    decay_every: int = 0
    warmup: int = 0
    freeze: str = ""
    bn_mode: Literal["train", "eval", "paper"] = "train"
    precision: Literal["32", "bf16", "16"] = "32"
    gradient_clip: float = 0.0
    devices: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    checkpoint_every: int = 200
    logger: Literal["csv", "tensorboard"] = "csv"
    seed: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    validate: ValidateSettings = field(default_factory=ValidateSettings)


@dataclass(frozen=True)
class StructureSettings:
    """What a network learns from label maps, as in StructVPR: a teacher that reads them, a partition of the pairs, distillation.

    Stage I trains the network of `[model]` on photographs and a teacher on label maps, each as `[train]` says; the training pairs are
    ranked under both; in stage II the network goes on learning, drawn to the teacher's descriptors where those are worth it.

    Attributes:
        classes: how the label maps number their classes, as in `EncodingSettings`; empty: nothing is distilled.
        clusters: as in `EncodingSettings`.
        weighted: as in `EncodingSettings`.
        weights: as in `EncodingSettings`.
        teacher: tables `model` and `train` laid over the recipe's, for the teacher.
        student: a table `train` laid over the recipe's, for stage II.
        threshold: N_t, from 1 to 10**9: a rank up to it is right.
        rank: what a rank counts: a name of `RANKS`.
        weighting: how much each pair teaches: a name of `WEIGHTINGS`, or `module:function`.
        weighting_options: its keyword arguments.
        loss: what is distilled: a name of `DISTILLATIONS`; or "label-features", for networks with that aggregator (our own design).
        loss_options: of "label-features": how much each of its parts counts.
        strength: lambda, in [0, 1e6], by which that is multiplied before it is added to the loss of stage II. The cross-entropy of
            "label-features" is not: with 0 the label maps still teach it.
        negatives: distil the negatives of a list too.
        start: where stage II begins: "rgb", the network after stage I, or "untrained".
        targets: what the student is drawn to: "teacher"; or a control: "shuffled", another image's descriptor, or "random", those
            of a teacher that learnt nothing.
        corrupt: share of the places whose label maps are those of other places, in [0, 1]; a control.
    """

    classes: str = ""
    clusters: str = "six"
    weighted: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    threshold: int = 10
    rank: str = "non-positive"
    weighting: str = "function"
    weighting_options: dict[str, Any] = field(default_factory=dict)
    loss: str = "feature"
    loss_options: dict[str, Any] = field(default_factory=dict)
    strength: float = 1.0
    negatives: bool = False
    start: Literal["rgb", "untrained"] = "rgb"
    targets: Literal["teacher", "shuffled", "random"] = "teacher"
    corrupt: float = 0.0

    def encoding(self) -> EncodingSettings:
        """How the teacher reads label maps."""
        return EncodingSettings(self.classes, self.clusters, self.weighted, self.weights)


@dataclass(frozen=True)
class WhitenSettings:
    """How descriptors are whitened.

    Attributes:
        dim: dimensions that are kept; 0: all that carry variance.
        power: exponent of the scaling; 1: unit variance, 0.5: its square root, 0: a rotation alone.
        kind: "pca", or "zca", which turns back and keeps all dimensions.
        shrinkage: the share towards equal variances, in [0, 1]; -1: as Ledoit and Wolf estimate it.
    """

    dim: int = 0
    power: float = 1.0
    kind: Literal["pca", "zca"] = "pca"
    shrinkage: float = 0.0


@dataclass(frozen=True)
class EvaluateSettings:
    """The protocols (the first is the table's, all are in the scores), the search depth and the interval."""

    protocols: tuple[str, ...] = ("graded/0.5",)
    k: int = 25
    samples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """A whole chain, from photographs to a measured descriptor.

    Attributes:
        name: of the recipe.
        description: one line.
        data: which scenes teach, choose and are asked.
        label: what similarity is, in training and in evaluation.
        train_label: what similarity is in training alone; without a rule it is that of `label`, with this table's noise and placebo.
        model: the network.
        train: how it learns.
        structure: what it learns from label maps; without `classes`, nothing.
        whiten: how descriptors are whitened.
        evaluate: how they are judged.
    """

    name: str
    description: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    train_label: LabelSettings = field(default_factory=lambda: LabelSettings(rule=""))
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    structure: StructureSettings = field(default_factory=StructureSettings)
    whiten: WhitenSettings = field(default_factory=WhitenSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
