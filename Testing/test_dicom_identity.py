"""Who was examined: names in any script, dates, odd and missing values."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_writer import write_series, write_slice
from LiverCascadeLib.dicom.identity import identity_of
from LiverCascadeLib.dicom.text import fitting, iso_date, person_name, repaired, stable_uid
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.report.identity import StudyIdentity


@pytest.mark.parametrize(
    ("dicom", "shown"),
    [
        ("Muster^Eva", "Muster, Eva"),
        ("Muster^Eva^Maria^Dr.^PhD", "Muster, Dr. Eva Maria, PhD"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎)"),
        ("=洪^吉洞", "洪, 吉洞"),
        ("Анна", "Анна"),
        ("^^^^", ""),
        ("", ""),
        ("Tab\there^Bell\x07", "Tab here, Bell"),
    ],
)
def test_person_names_are_written_as_people_write_them(dicom, shown):
    assert person_name(dicom) == shown


@pytest.mark.parametrize(
    ("dicom", "shown"),
    [("20240229", "2024-02-29"), ("1998.07.05", "1998-07-05"), ("20230231", "20230231"), ("2024", "2024"), ("", "")],
)
def test_dates_are_iso_where_they_are_dates(dicom, shown):
    assert iso_date(dicom) == shown


def test_texts_fit_their_value_representation():
    assert fitting("a" * 70, "LO") == "a" * 61 + "..."
    assert fitting("Schicht\\dick\x00e\tx", "LO") == "Schicht/dick e x"
    assert fitting("two\r\nlines", "ST") == "two\nlines"
    assert fitting("two\nlines", "LO") == "two lines"
    assert fitting("soft\xadhyphen\u202eflip", "LO") == "softhyphenflip"
    assert fitting("liver (left)", "CS") == "LIVER _LEFT_"


def test_made_uids_are_valid_and_stay_the_same():
    uid = stable_uid("series", "Liver")
    assert pydicom.uid.UID(uid).is_valid and uid == stable_uid("series", "Liver") != stable_uid("series", "Lesion 1")


def test_utf8_that_is_not_declared_is_read_all_the_same(tmp_path):
    assert repaired("MÃ¼ller") == "Müller"
    assert repaired("Müller") == "Müller"  # Latin-1, as the standard has it
    file = write_slice(tmp_path / "a", np.zeros((4, 4), np.int16), (0, 0, 0), PatientName="M?ller^Eva")
    file.write_bytes(file.read_bytes().replace(b"M?ller^Eva", "Möller^A".encode() + b" "))
    assert identity_of(file).patient_name == "Möller, A"


def test_identity_of_a_folder_is_that_of_its_longest_ct_series(tmp_path):
    texts = {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Иванов^Иван", "InstitutionName": "Клиника"}
    write_series(tmp_path, StudyDescription="Abdomen", AccessionNumber="A7", PatientSex="M", **texts)
    other = {"SeriesInstanceUID": "1.2.3.9", "SeriesDescription": "short", "SeriesNumber": 9}
    write_series(tmp_path / "b", heights=(0, 2), prefix="x", **{**texts, **other})
    (tmp_path / "notes.txt").write_text("no DICOM")
    identity = identity_of(tmp_path)
    assert identity == StudyIdentity(
        patient_name="Иванов, Иван",
        patient_id="P1",
        patient_sex="M",
        birth_date="",
        study_date="2020-01-02",
        accession_number="A7",
        study_description="Abdomen",
        series_description="Abdomen",
        institution="Клиника",
        study_instance_uid="1.2.3.1",
        series_instance_uid="1.2.3.1.1",
    )


@pytest.mark.filterwarnings("ignore")
def test_missing_private_and_odd_values_leave_gaps_not_errors(tmp_path):
    names = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "SeriesDescription")
    file = write_slice(tmp_path / "a", np.zeros((4, 4), np.int16), (0, 0, 0), **dict.fromkeys(names))
    assert identity_of(file) == StudyIdentity()
    data = pydicom.dcmread(file)
    data.add_new(0x00290010, "LO", "PRIVATE")
    data.add_new(0x00291001, "UN", b"\xff\x00\x01")
    data.add_new("PatientID", "UN", b"77\x00")  # an unknown representation
    data.add_new("PatientName", "PN", ["One^A", "Two^B"])
    data.SpecificCharacterSet = "NO_SUCH_SET"
    data.save_as(file)
    identity = identity_of(file)
    assert identity.patient_id == "77"
    assert "One" in identity.patient_name


def test_input_without_dicom_has_no_identity(tmp_path):
    (tmp_path / "ct.nii").write_bytes(b"\0" * 400)
    assert identity_of(tmp_path / "ct.nii") == StudyIdentity()
    assert identity_of(tmp_path) == StudyIdentity()
    with pytest.raises(InputError, match="There is no file"):
        identity_of(tmp_path / "nowhere")


def test_folder_of_two_patients_names_neither(tmp_path):
    write_series(tmp_path / "a", PatientID="A")
    write_series(tmp_path / "b", PatientID="B", prefix="x")
    assert identity_of(tmp_path) == StudyIdentity()
