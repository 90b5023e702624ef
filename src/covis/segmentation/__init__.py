"""Segmentation: any network makes label maps of photographs, by an engine that is installed."""

from __future__ import annotations

from covis.segmentation.maps import map_names
from covis.segmentation.opening import open_segmenter
from covis.segmentation.photographs import segment
from covis.segmentation.segmenters import Segmenter
from covis.semantics.notes import read_note

__all__ = ["Segmenter", "map_names", "open_segmenter", "read_note", "segment"]
