"""Files that a benchmark's server takes: poses for visuallocalization.net, predictions for the MSLS challenge; and their check."""

from __future__ import annotations

from covis.submissions.checks import SubmissionProblem, SubmissionReport, check_submission
from covis.submissions.poses import STYLES, match_submission, read_submission, submission_names, write_submission
from covis.submissions.predictions import write_msls_submission

__all__ = [
    "STYLES",
    "SubmissionProblem",
    "SubmissionReport",
    "check_submission",
    "match_submission",
    "read_submission",
    "submission_names",
    "write_msls_submission",
    "write_submission",
]
