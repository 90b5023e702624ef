"""Audits: what is wrong with a data set, its labels or a model and shows in no score.

- `near_duplicates`, `near_descriptors`, `shared_places`: what training and test, or queries and database, have in common;
- `facing_away`: queries that count as answerable though all their positives look elsewhere;
- `label_sanity`: graded labels against distance, heading and the rule that made them;
- `batch_dependence`: whether a model's descriptor of an image depends on the images beside it.
"""

from __future__ import annotations

from covis.audits.batches import BatchDependence, batch_dependence
from covis.audits.duplicates import Duplicates, near_duplicates
from covis.audits.facing import FacingAway, facing_away
from covis.audits.places import SharedPlaces, shared_places
from covis.audits.prints import Fingerprints, fingerprints
from covis.audits.resemblance import near_descriptors
from covis.audits.sanity import Sanity, label_sanity

__all__ = [
    "BatchDependence",
    "Duplicates",
    "FacingAway",
    "Fingerprints",
    "Sanity",
    "SharedPlaces",
    "batch_dependence",
    "facing_away",
    "fingerprints",
    "label_sanity",
    "near_descriptors",
    "near_duplicates",
    "shared_places",
]
