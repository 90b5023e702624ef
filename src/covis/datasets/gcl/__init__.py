"""The layout `gcl`: the JSON indexes of GCL's reference, read (`reading`) and written (`writing`), and its other files.

`indexes` has a file's text, `h5` the labels, `results` features, predictions and their texts, `distances` a stored matrix, `scores` the
texts of metrics.
"""

from covis.datasets.gcl.reading import draft_gcl, read_gcl
from covis.datasets.gcl.writing import write_gcl

__all__ = ["draft_gcl", "read_gcl", "write_gcl"]
