"""Who was examined, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StudyIdentity:
    """Patient and study, as DICOM or the reader says; empty where nobody does.

    Attributes:
        patient_name: as people write it ('Family, Given'), in any script.
        patient_id, patient_sex, accession_number, study_description, series_description, institution: as in DICOM.
        birth_date, study_date: ISO 8601 (YYYY-MM-DD), or as typed.
        study_instance_uid, series_instance_uid: DICOM identifiers.
    """

    patient_name: str = ""
    patient_id: str = ""
    patient_sex: str = ""
    birth_date: str = ""
    study_date: str = ""
    accession_number: str = ""
    study_description: str = ""
    series_description: str = ""
    institution: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
