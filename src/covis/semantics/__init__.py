"""Semantics: what a label map's numbers mean, which classes go together, and how a map becomes a network's input."""

from covis.semantics.clusters import CLUSTERINGS, Clustering, clustering
from covis.semantics.encodings import Encoding, clustered, encode, encoding
from covis.semantics.maps import attach_maps, corrupted
from covis.semantics.numberings import NUMBERINGS, Numbering, numbering
from covis.semantics.surveys import MapSurvey, survey_maps

__all__ = [
    "CLUSTERINGS",
    "NUMBERINGS",
    "Clustering",
    "Encoding",
    "MapSurvey",
    "Numbering",
    "attach_maps",
    "clustered",
    "clustering",
    "corrupted",
    "encode",
    "encoding",
    "numbering",
    "survey_maps",
]
