"""Segmentation: any network makes label maps of photographs, by an engine that is installed."""

from __future__ import annotations

from covis.segmentation.maps import map_names, read_note, with_maps
from covis.segmentation.opening import open_segmenter
from covis.segmentation.photographs import segment
from covis.segmentation.segmenters import Segmenter

__all__ = ["Segmenter", "map_names", "open_segmenter", "read_note", "segment", "with_maps"]
