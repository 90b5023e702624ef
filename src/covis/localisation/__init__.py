"""Localisation by retrieval: the poses of queries from those of the images found for them, and how far off they are."""

from __future__ import annotations

from covis.localisation.approximation import METHODS, localise
from covis.localisation.poses import Poses
from covis.localisation.protocols import POSE_PROTOCOLS, PoseProtocol, pose_protocol
from covis.localisation.scores import GroupRates, PoseScores
from covis.localisation.scoring import pose_differences, pose_errors, score_poses

__all__ = [
    "METHODS",
    "POSE_PROTOCOLS",
    "GroupRates",
    "PoseProtocol",
    "PoseScores",
    "Poses",
    "localise",
    "pose_differences",
    "pose_errors",
    "pose_protocol",
    "score_poses",
]
