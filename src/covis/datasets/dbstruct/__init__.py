"""The layout `dbstruct`: NetVLAD's .mat lists, read (`reading`) and written (`writing`).

`files` has the struct by its fields, `matlab` MATLAB 5 in and out, `folders` where images lie, `sets` what is known of Pittsburgh and
Tokyo, `times` what time stamps mean.
"""

from covis.datasets.dbstruct.folders import is_dbstruct
from covis.datasets.dbstruct.reading import SPLITS, draft_dbstruct, read_dbstruct
from covis.datasets.dbstruct.writing import write_dbstruct

__all__ = ["SPLITS", "draft_dbstruct", "is_dbstruct", "read_dbstruct", "write_dbstruct"]
