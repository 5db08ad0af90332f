"""Two or more studies of one patient: livers registered, lesions matched, change and response told."""

from __future__ import annotations

from .comparison import CHANGE_WORDS, Change, FollowUp, Step, Track, compare, follow_up, followed
from .liver_sample import LiverSample, liver_sample, liver_sample_steps
from .registration import PoorRegistration, Registration, register
from .response import ONLY_LIVER, candidates, judge
from .study import Study, check_comparable, ordered, study_of
from .tables import as_record, as_section, csv_rows, summary

__all__ = [
    "CHANGE_WORDS",
    "ONLY_LIVER",
    "Change",
    "FollowUp",
    "LiverSample",
    "PoorRegistration",
    "Registration",
    "Step",
    "Study",
    "Track",
    "as_record",
    "as_section",
    "candidates",
    "check_comparable",
    "compare",
    "csv_rows",
    "follow_up",
    "followed",
    "judge",
    "liver_sample",
    "liver_sample_steps",
    "ordered",
    "register",
    "study_of",
    "summary",
]
