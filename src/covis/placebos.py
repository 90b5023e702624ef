"""Placebos: labels that are wrong on purpose, to see what it is in a label that teaches.

Noise moves and turns images before a rule grades them, as GPS and compass do; a placebo changes the similarities afterwards. Both are
for labels that teach (`[train_label]` of a recipe), never for those that judge. All of it is ours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import CovisWarning, InvalidInputError
from covis.files import digest
from covis.images import Images, Scene
from covis.labelling import label_by_distance
from covis.labels import TIE, Labels
from covis.lookup import resolve


def disturbed_labels(
    scene: Scene,
    rule: Callable[[Images, Images], Labels],
    *,
    position_noise: float = 0.0,
    heading_noise: float = 0.0,
    placebo: str = "",
    seed: int = 0,
) -> Labels:
    """Labels of a scene by a rule, with noise before it and a placebo after it; with none of them, just the rule's.

    Args:
        scene: what is labelled.
        rule: `(queries, database) -> Labels`, its options filled in.
        position_noise: metres, as in `disturbed`.
        heading_noise: degrees, as in `disturbed`.
        placebo: a name of `PLACEBOS`, or `module:function`; empty: none.
        seed: of all of it.

    Returns:
        Labels under the rule's name; noise, placebo and seed are among the parameters.

    Raises:
        UnknownNameError: there is no such placebo.
        InvalidInputError: as in `check_changes`, `check_rule` and `disturbed`, or as the rule raises; or the placebo returns no labels.

    >>> here = Images("r", ["a.jpg", "b.jpg"], xy=[[0.0, 0.0], [10.0, 0.0]])
    >>> labels = disturbed_labels(Scene("s", "train", here, here), label_by_distance, position_noise=5, seed=1)
    >>> {key: labels.parameters[key] for key in ("half", "position_noise", "noise_seed")}
    {'half': 25.0, 'position_noise': 5, 'noise_seed': 1}
    """
    check_changes(position_noise=position_noise, heading_noise=heading_noise, placebo=placebo, seed=seed)
    moved = disturbed_scene(scene, position_noise=position_noise, heading_noise=heading_noise, seed=seed)
    labels = rule(moved.queries, moved.database)
    if labels.rule == "distance":
        check_rule(label_by_distance, labels.parameters, heading_noise=heading_noise)
    noise = {name: value for name, value in (("position_noise", position_noise), ("heading_noise", heading_noise)) if value}
    if noise:
        labels = replace(labels, parameters={**labels.parameters, **noise, "noise_seed": seed})
    if not placebo:
        return labels
    made = _labels_of_same(resolve(placebo, PLACEBOS, what="placebo")(labels, seed=seed), labels, placebo)
    told = {} if "placebo" in made.parameters else {"placebo": placebo, "placebo_seed": seed}  # a user's own need not say so itself
    return replace(made, parameters={**made.parameters, **told})


def disturbed_scene(scene: Scene, *, position_noise: float = 0.0, heading_noise: float = 0.0, seed: int = 0) -> Scene:
    """A scene whose images are `disturbed`; those of a training scene once, so that both sides are still the same images.

    Raises:
        InvalidInputError: as in `disturbed`.

    >>> here = Images("r", ["a.jpg", "b.jpg"], xy=[[0.0, 0.0], [10.0, 0.0]])
    >>> disturbed_scene(Scene("s", "train", here, here), position_noise=5).training
    True
    """

    def noisy(images: Images, side: str) -> Images:
        name = f"{scene.name}/{side}"
        return disturbed(images, position_noise=position_noise, heading_noise=heading_noise, seed=seed, name=name)

    database = noisy(scene.database, "database")
    if database is scene.database and not (position_noise or heading_noise):
        return scene
    return replace(scene, database=database, queries=database if scene.training else noisy(scene.queries, "queries"))


def disturbed(images: Images, *, position_noise: float = 0.0, heading_noise: float = 0.0, seed: int = 0, name: str = "") -> Images:
    """Images whose positions and headings have Gaussian errors, each image its own: what a GPS and a compass would say.

    `xy`, `heading` and `pose` err alike, where they are there: a pose is shifted by the same metres east (x) and north (y), and turned by
    the same degrees about the vertical axis (z) through its camera. Height, tilt and all other columns stay. The errors of one seed and
    name grow in proportion to the noise, and those of positions do not depend on the noise of headings, nor the reverse.

    Args:
        images: with `xy` or `pose` for noise of positions; with `heading` or `pose` for that of headings.
        position_noise: standard deviation east and north each, metres, >= 0.
        heading_noise: standard deviation, degrees, >= 0; a heading that is unknown (NaN) stays so.
        seed: of the errors, >= 0.
        name: tells tables apart: those with another name, as queries and database of a scene, err independently.

    Returns:
        The disturbed images; the same object where both noises are 0.

    Raises:
        InvalidInputError: a noise is negative or not finite, the seed is negative, or the images have no positions, or no headings, that
            could be disturbed.

    Ours: independent errors, while those of a real GPS drift slowly along a ride.

    >>> images = Images("r", ["a.jpg", "b.jpg"], xy=[[0.0, 0.0], [10.0, 0.0]], heading=[0.0, float("nan")])
    >>> disturbed(images, position_noise=5, heading_noise=10).xy.round(1).tolist() != images.xy.tolist()
    True
    >>> disturbed(images) is images
    True
    """
    check_changes(position_noise=position_noise, heading_noise=heading_noise, seed=seed)
    if not position_noise and not heading_noise:
        return images
    _check_columns(images, position_noise=position_noise, heading_noise=heading_noise)
    stream = int(digest(name), 16)
    shift = np.random.default_rng([seed, stream, 0]).standard_normal((len(images), 2)) * position_noise
    turn = np.random.default_rng([seed, stream, 1]).standard_normal(len(images)) * heading_noise
    columns: dict[str, Any] = {}
    if images.xy is not None:
        columns["xy"] = images.xy + shift
    if images.heading is not None:
        heading = (images.heading + turn) % 360
        columns["heading"] = np.where(heading >= 360, 0.0, heading)  # the remainder of -1e-20 is 360
    if images.pose is not None:
        columns["pose"] = _moved(images.pose, shift, turn)
    return replace(images, **columns)


def check_changes(*, position_noise: float = 0.0, heading_noise: float = 0.0, placebo: str = "", seed: int = 0) -> None:
    """Hold that noises are finite and >= 0, there is such a placebo, and the seed is >= 0.

    A placebo that is none of `PLACEBOS` is tried on labels made by hand, so that a wrong one does not show after hours of labelling.

    Raises:
        InvalidInputError: a number is out of its range, the message names it; or the placebo is no `(labels, *, seed) -> Labels`.
        UnknownNameError: there is no such placebo; the nearest is suggested.

    >>> check_changes(placebo="round")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    covis.errors.UnknownNameError: There is no placebo called 'round'. Did you mean 'rounded'? Known: averaged-in-class, rounded, ...
    """
    for name, value, unit in (("position_noise", position_noise, "metres"), ("heading_noise", heading_noise, "degrees")):
        if not (math.isfinite(value) and value >= 0):
            raise InvalidInputError(f"{name} must be a finite number of {unit}, >= 0; got {value}.")
    if seed < 0:
        raise InvalidInputError(f"The seed of noise and placebos must be >= 0; got {seed}.")
    if placebo and placebo not in PLACEBOS:
        _try_placebo(placebo)


def check_rule(rule: Callable[..., Labels], options: Mapping[str, Any], *, heading_noise: float) -> None:
    """Hold that the rule looks at headings, where they are disturbed; that by distance does with `max_heading_difference` alone.

    Raises:
        InvalidInputError: the noise would change nothing.

    >>> check_rule(label_by_distance, {"half": 25.0, "max_heading_difference": 40.0}, heading_noise=10)
    """
    gate = options.get("max_heading_difference")
    if heading_noise and rule is label_by_distance and (gate is None or (isinstance(gate, int | float) and gate >= 180)):
        raise InvalidInputError(
            "The rule 'distance' must have max_heading_difference, below 180 degrees, for noise of headings: without it they change "
            f"nothing; got heading_noise = {heading_noise:g} and max_heading_difference = {gate}. Set it, label by view, or leave the "
            "noise out."
        )


def shuffled(labels: Labels, *, seed: int = 0) -> Labels:
    """The similarities above 0 of each query, dealt out anew among the database images that share anything with it.

    Which pairs share nothing stays, and so does every query's set of similarities: what is lost is which image has which. How similar
    a pair is then depends on which of its images asks, even where the rule is symmetric.

    Args:
        labels: as a rule made them.
        seed: of the permutations; labels of other images get others.

    Ours.

    >>> labels = Labels(sparse.csr_array([[0.9, 0.6, 0.2, 0.0]]), ("q",), ("a", "b", "c", "d"), rule="by hand")
    >>> shuffled(labels, seed=1).matrix.toarray()
    array([[0.6, 0.9, 0.2, 0. ]])
    """
    return _with(labels, _dealt(labels, np.zeros(labels.matrix.nnz, dtype=np.int64), seed), {"placebo": "shuffled", "placebo_seed": seed})


def shuffled_in_class(labels: Labels, *, seed: int = 0, threshold: float = 0.5) -> Labels:
    """As `shuffled`, among the positives of each query alone, and among its soft images alone.

    Which pairs are positive, soft and zero stays, and so does what the graded sampler draws; beyond that the similarities say nothing.

    Args:
        labels: as a rule made them.
        seed: of the permutations; labels of other images get others.
        threshold: the cut between positive and soft, in (0, 1], as that of the sampler.

    Raises:
        InvalidInputError: the threshold is not in (0, 1].

    Ours.

    >>> labels = Labels(sparse.csr_array([[0.9, 0.6, 0.2, 0.1]]), ("q",), ("a", "b", "c", "d"), rule="by hand")
    >>> shuffled_in_class(labels, seed=1).matrix.toarray()
    array([[0.6, 0.9, 0.1, 0.2]])
    """
    positive = _positive(labels, threshold)
    told = {"placebo": "shuffled-in-class", "placebo_seed": seed, "placebo_threshold": threshold}
    return _with(labels, _dealt(labels, positive.astype(np.int64), seed), told)


def averaged_in_class(labels: Labels, *, seed: int = 0, threshold: float = 0.5) -> Labels:
    """Every positive gets the mean similarity of all positives of these labels, every soft pair that of all soft pairs.

    Three similarities are left, with zero, and none of them is wrong on average: which pairs are positive, soft and zero stays, and so
    does what the graded sampler draws. Held against `shuffled_in_class` it tells a grade that is lost from one that misleads.

    Args:
        labels: as a rule made them.
        seed: not used; nothing is drawn.
        threshold: the cut between positive and soft, in (0, 1], as that of the sampler.

    Raises:
        InvalidInputError: the threshold is not in (0, 1].

    Ours.

    >>> labels = Labels(sparse.csr_array([[0.875, 0.625, 0.25, 0.125]]), ("q",), ("a", "b", "c", "d"), rule="by hand")
    >>> averaged_in_class(labels).matrix.toarray()
    array([[0.75  , 0.75  , 0.1875, 0.1875]])
    """
    del seed  # every placebo takes one
    positive, means = _positive(labels, threshold), np.array(labels.matrix.data)
    for chosen in (positive, ~positive):
        if chosen.any():
            means[chosen] = labels.matrix.data[chosen].mean()
    return _with(labels, means, {"placebo": "averaged-in-class", "placebo_threshold": threshold})


def rounded(labels: Labels, *, seed: int = 0) -> Labels:
    """Similarities to the nearest of 0, 1/2 and 1; 1/4 becomes 1/2, and 3/4 becomes 1.

    Nothing is left between 0 and 1/2: a sampler whose threshold is 0.5 finds no soft pair, and those from 1/4 on are positive to it. With
    a threshold of 0.75 those of 1/2 are its soft pairs.

    Args:
        labels: as a rule made them.
        seed: not used; nothing is drawn.

    Ours.

    >>> labels = Labels(sparse.csr_array([[0.8, 0.6, 0.25, 0.2]]), ("q",), ("a", "b", "c", "d"), rule="by hand")
    >>> rounded(labels).matrix.toarray()
    array([[1. , 0.5, 0.5, 0. ]])
    """
    del seed  # every placebo takes one
    data = labels.matrix.data
    nearest = np.where(data >= 0.75 - TIE, 1.0, np.where(data >= 0.25 - TIE, 0.5, 0.0))
    return _with(labels, nearest, {"placebo": "rounded"})


PLACEBOS: dict[str, Callable[..., Labels]] = {
    "averaged-in-class": averaged_in_class,
    "rounded": rounded,
    "shuffled": shuffled,
    "shuffled-in-class": shuffled_in_class,
}
"""Name -> placebo: `(labels, *, seed) -> Labels`."""


def _try_placebo(name: str) -> None:
    """Call a user's own placebo once."""
    found = resolve(name, PLACEBOS, what="placebo")
    if not callable(found):
        raise InvalidInputError(f"The placebo {name!r} must be a function (labels, *, seed) -> Labels; it is {found!r}.")
    given = Labels(sparse.csr_array([[0.9, 0.6, 0.3, 0.1, 0.0]] * 2), ("p", "q"), tuple("abcde"), rule="by hand")
    try:
        made = found(given, seed=0)
    except Exception as error:  # it is the user's code
        raise InvalidInputError(
            f"The placebo {name!r} must be a function (labels, *, seed) -> Labels; called with labels made by hand it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if made is given:
        raise InvalidInputError(f"The placebo {name!r} must return other labels; it returned those that it was given.")
    _labels_of_same(made, given, name)


def _labels_of_same(made: object, given: Labels, name: str) -> Labels:
    if not isinstance(made, Labels) or (made.query_names, made.database_names) != (given.query_names, given.database_names):
        what = "those of others" if isinstance(made, Labels) else type(made).__name__
        raise InvalidInputError(f"The placebo {name!r} must return Labels of the same images; it returned {what}.")
    return made


def _check_columns(images: Images, *, position_noise: float, heading_noise: float) -> None:
    if position_noise and images.xy is None and images.pose is None:
        raise InvalidInputError(
            f"The images in {images.root} must have positions or poses for position_noise = {position_noise:g}; they have none. "
            "Leave it out."
        )
    known = images.pose is not None or (images.heading is not None and not (len(images) and np.isnan(images.heading).all()))
    if heading_noise and not known:
        raise InvalidInputError(
            f"The images in {images.root} must have headings or poses for heading_noise = {heading_noise:g}; they have none. Leave it out."
        )
    if images.pose is not None and len(images) and images.pose[:, 2, 1].mean() > -0.5:
        warnings.warn(
            f"The poses in {images.root} are shifted along x and y and turned about z, but their cameras' downward axis does not point "
            "down: x must be east, y north and z up for position_noise and heading_noise. Turn the poses.",
            CovisWarning,
            stacklevel=3,
        )


def _moved(pose: NDArray[np.float64], shift: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 4, 4) poses, each shifted by (east, north) metres and turned clockwise by degrees about the vertical through its camera."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    about = np.zeros((len(pose), 3, 3))
    about[:, 0, 0], about[:, 0, 1], about[:, 1, 0], about[:, 1, 1], about[:, 2, 2] = cos, sin, -sin, cos, 1.0
    moved = np.array(pose)
    moved[:, :3, :3] = about @ pose[:, :3, :3]
    moved[:, :2, 3] += shift
    return moved


def _positive(labels: Labels, threshold: float) -> NDArray[np.bool_]:
    """(n,) which of the stored similarities are positive."""
    if not 0 < threshold <= 1:
        raise InvalidInputError(f"The threshold between positive and soft must be a similarity in (0, 1]; got {threshold}.")
    positive: NDArray[np.bool_] = labels.matrix.data >= threshold - TIE
    return positive


def _dealt(labels: Labels, group: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The stored similarities, permuted within each group (n,) of each row."""
    check_changes(seed=seed)
    matrix = labels.matrix
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    random = np.random.default_rng([seed, int(digest([labels.query_names, labels.database_names]), 16)])
    places = np.lexsort((group, row))
    dealt = np.empty(matrix.nnz)
    dealt[places] = matrix.data[np.lexsort((random.random(matrix.nnz), group, row))]
    return dealt


def _with(labels: Labels, data: NDArray[np.float64], told: dict[str, Any]) -> Labels:
    """Labels with other similarities in the same places; those of 0 are dropped."""
    matrix = sparse.csr_array((data, labels.matrix.indices, labels.matrix.indptr), shape=labels.matrix.shape)
    return replace(labels, matrix=matrix, parameters={**labels.parameters, **told})
