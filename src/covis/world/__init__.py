"""A synthetic town with exact geometry: colour, depth and poses of streets that nobody has seen."""

from covis.world.photographs import write_streets
from covis.world.streets import PRESETS, StreetSettings, build_street, intrinsics, poses, render

__all__ = ["PRESETS", "StreetSettings", "build_street", "intrinsics", "poses", "render", "write_streets"]
