"""The town: streets with exact truth, seen by day and night, in every weather and year. Needs `pip install covis[world]`."""

from covis.town.cameras import Camera, look
from covis.town.conditions import CONDITIONS, Condition
from covis.town.meshes import ADE20K, Label
from covis.town.overlaps import Sight, seen_pixels, seen_share, surface_overlap, surface_overlaps
from covis.town.photographs import Photograph, photograph
from covis.town.rides import Ride, Shot, routes, shots
from covis.town.sheets import draw_sheet, write_sheet
from covis.town.surveys import SURVEYS, Outing, Survey
from covis.town.towns import Town, TownSettings, build_town, visit_town
from covis.town.visits import Visit
from covis.town.writing import LAYOUTS, fingerprint, write_town

__all__ = [
    "ADE20K",
    "CONDITIONS",
    "LAYOUTS",
    "SURVEYS",
    "Camera",
    "Condition",
    "Label",
    "Outing",
    "Photograph",
    "Ride",
    "Shot",
    "Sight",
    "Survey",
    "Town",
    "TownSettings",
    "Visit",
    "build_town",
    "draw_sheet",
    "fingerprint",
    "look",
    "photograph",
    "routes",
    "seen_pixels",
    "seen_share",
    "shots",
    "surface_overlap",
    "surface_overlaps",
    "visit_town",
    "write_sheet",
    "write_town",
]
