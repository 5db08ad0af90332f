"""Puts an assessment into words: what a report says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from ..errors import ModelError
from ..findings import Finding, Severity
from ..lesions.assessment import AssessedLesion, Assessment
from ..lesions.couinaud import BY_VALUE
from ..lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS, is_known
from ..lesions.remnant import Remnant, nodule_hint
from ..models import load_manifest
from ..resources import EMBEDDED_MODELS
from .document import Column, Entry, FollowUpSection, KeyLesion, ReaderText, ReportDocument, Table
from .drawing import AXIAL, LEVEL_HU, WINDOW_HU, position_text
from .identity import StudyIdentity
from .key_images import lesion_window, slice_number
from .texts import Texts, paragraphs, plain

MOST_KEY_IMAGES = 12
UNSURE, ACCEPTED, UNREVIEWED = "unsure", "accepted", "unreviewed"
MARK_OF_UNSURE = "?"
# Told elsewhere in the report, or of no use on a page.
_NOT_LISTED = {
    "slice_first",
    "slice_last",
    "centroid_r_mm",
    "centroid_a_mm",
    "centroid_s_mm",
    "size_bin",
    "sd_hu",
    "voxel_count",
    "touches_border",
}
# What a run takes is no matter of the patient's.
_NOT_REPORTED = {"cost-estimate"}
_SHORT_COMMENT = 160  # a longer one stands below the pictures


def build_document(
    assessment: Assessment,
    identity: StudyIdentity,
    reader_text: ReaderText,
    *,
    date: datetime,
    remnant: Remnant | None = None,
    followup: Mapping[str, Any] | None = None,
    language: str | Texts = "en",
) -> ReportDocument:
    """Puts an assessment into words.

    Args:
        assessment: of the liver.
        identity: of patient and study.
        reader_text: what the reader wrote.
        date: of the report.
        remnant: the future liver remnant for segments that the reader chose.
        followup: 'title', 'sentences', 'columns', 'rows' and 'pictures' of a comparison with earlier studies.
        language: of the report.

    Raises:
        InputError: the report is not available in this language.
    """
    t = language if isinstance(language, Texts) else Texts(language)
    lesions = assessment.lesions
    largest = {lesion.label for lesion in sorted(lesions, key=_size_of, reverse=True)[:MOST_KEY_IMAGES]}
    shown = [lesion for lesion in lesions if lesion.label in largest]
    patient, study = _identity(identity, assessment, t)
    texts = {f.name: paragraphs(getattr(reader_text, f.name) or "") for f in fields(reader_text)}
    return ReportDocument(
        t=t,
        date=date,
        patient=patient,
        study=study,
        running_title=_running_title(identity, assessment, t),
        reader=texts,
        summary=_summary(assessment, t),
        lesions=_lesion_table(assessment, t) if lesions else None,
        lesion_notes=_lesion_notes(assessment, len(shown), t),
        key_lesions=tuple(_key_lesion(assessment, lesion, t) for lesion in shown),
        liver=_liver_table(assessment, t),
        segments=_segment_table(assessment, t),
        segment_notes=_segment_notes(assessment, t),
        remnant=remnant_sentences(remnant, t),
        followup=_followup(followup, t),
        findings=tuple(
            Entry(_severity(finding.severity, t), plain(t(finding.message)))
            for finding in reportable(assessment.findings)
        ),
        technique=_technique(assessment, date, t),
        limitations=_limitations(assessment, followup is not None, t),
        numbers={lesion.label: _short_name(lesion) for lesion in lesions},
    )


def reportable(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that concern the patient's study."""
    return tuple(finding for finding in findings if finding.code not in _NOT_REPORTED)


def lesion_name(lesion: AssessedLesion) -> str:
    """Its name, with a mark where the reader is not sure of it."""
    name = plain(lesion.name) or str(lesion.label - 1)
    return f"{name} {MARK_OF_UNSURE}" if lesion.review == UNSURE else name


def segments_text(lesion: AssessedLesion, with_shares: bool = False) -> str:
    """Couinaud segments that a lesion touches, the main one first, such as 'VIII, IV'."""
    shares = [share for share in lesion.couinaud if share.value]
    if with_shares and len(shares) > 1:
        return ", ".join(f"{share.name} {100 * share.fraction:.0f} %" for share in shares)
    return lesion.couinaud_text


def diameters_text(lesion: AssessedLesion) -> str:
    """Long and short axis in mm, such as '23.1 × 18.0'."""
    texts = [_LESION["long_axis_mm"].text(lesion.values.get("long_axis_mm"))]
    texts.append(_LESION["short_axis_mm"].text(lesion.values.get("short_axis_mm")))
    return " × ".join(text for text in texts if text)


def detection_sentence(provenance: Mapping[str, Any], t: Texts) -> str:
    """The smallest lesions that the model was shown to find, by the figures that its manifest carries."""
    # Only scans that were neither trained on nor chosen for what is found in them say what a model finds.
    cases = [one for one in _measured(provenance) if one.get("independent") is True]
    large, hit = (sum(int(case.get(key, 0)) for case in cases) for key in ("lesions_ge10", "hit_ge10"))
    all_lesions, all_hit = (sum(int(case.get(key, 0)) for case in cases) for key in ("lesions", "hit"))
    if not large:
        return t("No figures are known for the smallest lesion that this model finds.")
    text = t(
        "On scans that it was not trained on, this model was shown to find {hit} of {n} lesions of 10 mm or more.",
        hit=hit,
        n=large,
    )
    small = all_lesions - large
    if small:
        more = t("Of smaller ones it found {hit} of {n}.", hit=all_hit - hit, n=small)
    else:
        more = t("Smaller ones were not measured and may be missed.")
    return f"{text} {more}"


def remnant_sentences(remnant: Remnant | None, t: Texts) -> tuple[str, ...]:
    """The future liver remnant in words; none where none was asked for."""
    if remnant is None:
        return ()
    whole = t("the liver with its lesions") if remnant.denominator == "liver" else t("the liver without its lesions")
    text = t(
        "If segments {names} remain: {ml} mL, {percent} % of {whole} ({all} mL).",
        names=remnant.names,
        ml=f"{remnant.ml:.0f}",
        percent=f"{remnant.percent:.0f}",
        whole=whole,
        all=f"{remnant.denominator_ml:.0f}",
    )
    return (text, t(remnant.note))


_LESION = {measurement.key: measurement for measurement in MEASUREMENTS}


def _size_of(lesion: AssessedLesion) -> tuple[float, float]:
    """By what lesions are ranked: the long axis, then the volume."""
    values = (lesion.values.get("long_axis_mm"), lesion.values.get("volume_ml"))
    return tuple(float(value) if is_known(value) else 0.0 for value in values)


def _short_name(lesion: AssessedLesion) -> str:
    number = re.search(r"(\d+)\s*$", lesion.name)
    return number[1] if number else str(lesion.label - 1)


def _identity(
    identity: StudyIdentity, assessment: Assessment, t: Texts
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    patient = (
        (t("Patient"), identity.patient_name),
        (t("Patient ID"), identity.patient_id),
        (t("Date of birth"), identity.birth_date),
        (t("Sex"), identity.patient_sex),
    )
    study = (
        (t("Study date"), identity.study_date),
        (t("Accession number"), identity.accession_number),
        (t("Study"), identity.study_description),
        (t("Series"), identity.series_description),
        (t("Institution"), identity.institution),
        (t("Scan"), "" if identity.series_description else assessment.volume.name),
    )
    found = tuple(Entry(label, plain(value, 300)) for label, value in patient if plain(value))
    # Name and number are what a report is filed by: where they are missing, the report says so.
    if not plain(identity.patient_name) and not plain(identity.patient_id):
        found = (Entry(t("Patient"), t("not known: the scan carries no patient's name or number")), *found)
    return found, tuple(Entry(label, plain(value, 300)) for label, value in study if plain(value))


def _running_title(identity: StudyIdentity, assessment: Assessment, t: Texts) -> str:
    parts = [plain(identity.patient_name, 60), plain(identity.patient_id, 40), plain(identity.study_date, 30)]
    known = [part for part in parts if part] or [plain(assessment.volume.name, 60)]
    return " · ".join([t("Liver report"), *known])


def _summary(assessment: Assessment, t: Texts) -> tuple[str, ...]:
    liver, lesions = assessment.liver, assessment.lesions
    volume = liver.get("volume_ml")
    if not is_known(volume) or not volume:
        return (t("No liver was found."),)
    if not lesions:
        text = t("Liver {ml} mL. No lesion was found.", ml=f"{volume:.0f}")
        sentences = [text, *_rejected(assessment, t)]
        if assessment.provenance.get("models"):
            sentences.append(detection_sentence(assessment.provenance, t))
        return tuple(sentences)
    parts = {
        "ml": f"{volume:.0f}",
        "total": f"{liver['lesion_ml']:.1f}",
        "percent": _percent(liver["burden_percent"]),
    }
    sentences = [
        t.count(
            len(lesions),
            "Liver {ml} mL, lesions included. 1 lesion of {total} mL, {percent} % of the liver.",
            "Liver {ml} mL, lesions included. {n} lesions, {total} mL together, {percent} % of the liver.",
            **parts,
        ),
        *_rejected(assessment, t),
    ]
    largest = max(lesions, key=_size_of)
    where = [share.name for share in largest.couinaud if share.value]
    if diameters_text(largest):
        text = "Largest: {name}, {size} mm in the axial plane."
        if len(where) == 1:
            text = "Largest: {name}, {size} mm in the axial plane, in segment {where}."
        elif where:
            text = "Largest: {name}, {size} mm in the axial plane, mainly in segment {where}."
        main = where[0] if where else ""
        sentences.append(t(text, name=lesion_name(largest), size=diameters_text(largest), where=main))
    hint = nodule_hint(assessment)
    if hint:
        sentences.append(t(hint))
    return tuple(sentences)


def _percent(value: float) -> str:
    """With one decimal; what is there but rounds to nothing is not called nothing."""
    return "< 0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _rejected(assessment: Assessment, t: Texts) -> tuple[str, ...]:
    if not assessment.rejected:
        return ()
    text = t.count(assessment.rejected, "1 more was rejected by the reader.", "{n} more were rejected by the reader.")
    return (text,)


def _lesion_table(assessment: Assessment, t: Texts) -> Table:
    with_segments = assessment.couinaud is not None
    with_confidence = any(is_known(lesion.values.get("confidence")) for lesion in assessment.lesions)
    columns = [Column(t("Lesion"), width=1.25)]
    if with_segments:
        columns.append(Column(t("Segment"), width=1.1))
    columns += [
        Column(t("Axial diameters, mm"), True, 1.35),
        Column(t("3D, mm"), True, 0.75),
        Column(t("Volume, mL"), True, 1.05),
        Column(t("HU, mean ± SD"), True, 1.1),
        Column(t("Contrast, HU"), True, 1.25),
        Column(t("To capsule, mm"), True, 1.15),
        Column(t("Slices"), True, 0.95),
    ]
    if with_confidence:
        columns.append(Column(t("Confidence"), True, 1.45))
    columns.append(Column(t("Remarks"), width=1.6 if with_confidence else 2.2))
    rows = []
    for lesion in assessment.lesions:
        text = _texts_of(lesion, t)
        row = [lesion_name(lesion)]
        if with_segments:
            row.append(segments_text(lesion))
        hu = " ± ".join(n for n in (text("mean_hu"), text("sd_hu")) if n)
        slices = "–".join(dict.fromkeys(n for n in (text("slice_first"), text("slice_last")) if n))
        row += [diameters_text(lesion), text("diameter_3d_mm"), text("volume_ml"), hu, text("contrast_hu")]
        row += [text("capsule_distance_mm"), slices]
        if with_confidence:
            row.append(text("confidence"))
        row.append("; ".join(_remarks(lesion, t)))
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows))


def _texts_of(lesion: AssessedLesion, t: Texts) -> Callable[[str], str]:
    """A function that gives the text of one of the lesion's values by its key."""

    def text(key: str) -> str:
        measurement = _LESION.get(key)
        found = measurement.text(lesion.values.get(key)) if measurement is not None else ""
        found = found if measurement is None or measurement.kind == "number" else t(found) if found else ""
        return found.replace("-", "−") if re.fullmatch(r"-[\d.]+", found) else found

    return text


def _remarks(lesion: AssessedLesion, t: Texts) -> list[str]:
    remarks = []
    if lesion.review == ACCEPTED:
        remarks.append(t("accepted"))
    elif lesion.review == UNSURE:
        remarks.append(t("reader unsure"))
    if lesion.values.get("measurable") is False:
        remarks.append(t("below RECIST size"))
    if lesion.values.get("touches_border") is True:
        remarks.append(t("cut by the scan's border"))
    if plain(lesion.comment):
        remarks.append(plain(lesion.comment))
    return remarks


def _lesion_notes(assessment: Assessment, pictured: int, t: Texts) -> tuple[str, ...]:
    lesions = assessment.lesions
    if not lesions:
        return ()
    notes = []
    unsure = sum(lesion.review == UNSURE for lesion in lesions)
    unreviewed = sum(lesion.review == UNREVIEWED for lesion in lesions)
    if unsure:
        notes.append(t("? marks a lesion that the reader is not sure of."))
    if unreviewed == len(lesions):
        notes.append(t("No lesion was reviewed by a reader."))
    elif unreviewed:
        notes.append(t("{n} of {all} lesions were not reviewed by a reader.", n=unreviewed, all=len(lesions)))
    if assessment.rejected:
        notes.append(t("Rejected lesions are not listed."))
    if pictured < len(lesions):
        notes.append(t("Pictures follow for the {n} largest lesions.", n=pictured))
    notes.append(
        t(
            "Axial diameters: longest in the patient's axial plane × longest across it in the same plane."
            " Contrast: against the liver 2–10 mm around the lesion."
        )
    )
    return tuple(notes)


def _key_lesion(assessment: Assessment, lesion: AssessedLesion, t: Texts) -> KeyLesion:
    text = _texts_of(lesion, t)
    window = lesion_window(assessment, lesion)
    number, count = slice_number(assessment.volume.grid, window.center)
    caption = t(
        "Axial, slice {number} of {count}, {place}. W {width} L {level} HU.",
        number=number,
        count=count,
        place=position_text(AXIAL, window.center),
        width=f"{WINDOW_HU:.0f}",
        level=f"{LEVEL_HU:.0f}",
    )
    details = []
    if segments_text(lesion):
        details.append(Entry(t("Segment"), segments_text(lesion, with_shares=True)))
    for measurement in MEASUREMENTS:
        if measurement.key in _NOT_LISTED or not text(measurement.key):
            continue
        value = text(measurement.key)
        if measurement.key == "mean_hu" and text("sd_hu"):
            value = f"{value} ± {text('sd_hu')}"
        unit = f" {measurement.unit}" if measurement.unit else ""
        title = t("Mean ± SD") if measurement.key == "mean_hu" else t(measurement.title)
        details.append(Entry(title, f"{value}{unit}"))
    center = [f"{axis} {text(f'centroid_{axis.lower()}_mm')}" for axis in "RAS"]
    details.append(Entry(t("Center"), f"{', '.join(center)} mm"))
    comment = paragraphs(lesion.comment)
    if len(comment) == 1 and len(comment[0]) <= _SHORT_COMMENT:
        details.append(Entry(t("Comment"), comment[0]))
        comment = ()
    name = lesion_name(lesion)
    alternative = t("Axial slice through {name}: outline, long axis and short axis.", name=name)
    return KeyLesion(lesion.label, name, caption, alternative, tuple(details), comment)


def _liver_table(assessment: Assessment, t: Texts) -> Table | None:
    volume = assessment.liver.get("volume_ml")
    if not is_known(volume) or not volume:
        return None
    rows = []
    for measurement in LIVER_MEASUREMENTS:
        value = measurement.text(assessment.liver.get(measurement.key))
        if value:
            rows.append((t(measurement.title), f"{value} {measurement.unit}".strip()))
    return Table((Column(t("Liver"), width=2.4), Column(t("Value"), True)), tuple(rows))


def _segment_table(assessment: Assessment, t: Texts) -> Table | None:
    if not assessment.couinaud_ml:
        return None
    total = sum(assessment.couinaud_ml.values())
    rows = []
    for value, segment in BY_VALUE.items():
        if value not in assessment.couinaud_ml:
            continue
        volume, ill = assessment.couinaud_ml[value], assessment.couinaud_lesion_ml.get(value, 0.0)
        texts = (f"{volume:.0f}", f"{100 * volume / total:.1f}", f"{ill:.1f}", f"{100 * ill / volume:.1f}")
        rows.append((value if value < 9 else 4 + value / 100, (segment.name, *texts)))
    columns = (
        Column(t("Segment")),
        Column(t("Volume, mL"), True),
        Column(t("% of the liver"), True),
        Column(t("Lesions, mL"), True),
        Column(t("Burden, %"), True),
    )
    return Table(columns, tuple(row for _, row in sorted(rows)))


def _segment_notes(assessment: Assessment, t: Texts) -> tuple[str, ...]:
    if assessment.couinaud is None:
        return ()
    sentences = (assessment.couinaud.method, *assessment.couinaud.limitations)
    return tuple(plain(t(sentence)) for sentence in sentences if plain(sentence))


def _followup(followup: Mapping[str, Any] | None, t: Texts) -> FollowUpSection | None:
    if followup is None:
        return None
    columns = tuple(Column(plain(t(str(title)))) for title in followup.get("columns", ()))
    rows = tuple(tuple(plain(cell) for cell in row) for row in followup.get("rows", ()))
    table = Table(columns, rows) if columns else None
    return FollowUpSection(
        plain(t(str(followup.get("title", "Follow-up")))),
        tuple(plain(t(str(sentence))) for sentence in followup.get("sentences", ())),
        table,
        tuple(_picture(picture) for picture in followup.get("pictures", ())),
    )


def _picture(picture: Any) -> tuple[bytes, str]:
    """A picture as bytes, or as a pair of bytes and what it shows."""
    return (bytes(picture), "") if isinstance(picture, bytes | bytearray) else (bytes(picture[0]), plain(picture[1]))


def _severity(severity: Severity, t: Texts) -> str:
    words = {Severity.ERROR: t("Serious"), Severity.WARNING: t("Warning"), Severity.INFO: t("Note")}
    return words[severity]


def _technique(assessment: Assessment, date: datetime, t: Texts) -> tuple[Entry, ...]:
    grid, provenance = assessment.volume.grid, assessment.provenance
    size = " × ".join(str(n) for n in grid.size)
    spacing = " × ".join(f"{n:.2f}" for n in grid.spacing)
    entries = [
        Entry(t("Scan"), plain(assessment.volume.name, 300)),
        Entry(t("Voxels"), t("{size} of {spacing} mm", size=size, spacing=spacing)),
    ]
    for model in provenance.get("models", ()):
        text = t("{id}, version {version}, weights SHA-256 {hash}", **_model_words(model))
        entries.append(Entry(t("Model '{role}'", role=model.get("role", "")), plain(text)))
    if not provenance.get("models"):
        entries.append(Entry(t("Model"), t("none: outlined or taken over by hand, or not recorded")))
    if provenance.get("models") and provenance.get("edited"):
        entries.append(Entry(t("Outlines"), t("edited by hand after the run")))
    devices = dict.fromkeys(str(model["device"]) for model in provenance.get("models", ()) if model.get("device"))
    if devices:
        entries.append(Entry(t("Device"), plain(", ".join(devices))))
    if provenance.get("software"):
        versions = ", ".join(f"{name} {version}" for name, version in provenance["software"].items())
        entries.append(Entry(t("Software"), plain(versions)))
    if provenance.get("parameters"):
        entries.append(Entry(t("Parameters"), plain(", ".join(_flat(provenance["parameters"])))))
    entries.append(Entry(t("Report made"), date.strftime("%Y-%m-%d %H:%M")))
    return tuple(entries)


def _model_words(model: Mapping[str, Any]) -> dict[str, str]:
    return {
        "id": str(model.get("id", "")),
        "version": str(model.get("version", "")),
        "hash": str(model.get("sha256", "")),
    }


def _flat(parameters: Mapping[str, Any], path: str = "") -> list[str]:
    """'name value' of all parameters that are set."""
    found = []
    for name, value in parameters.items():
        full = f"{path}{name}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{full}.")
        elif value is not None:
            found.append(f"{full} {value}")
    return found


def _limitations(assessment: Assessment, is_followup: bool, t: Texts) -> tuple[str, ...]:
    texts = []
    if assessment.provenance.get("models"):
        texts.append(
            t(
                "Outlines were proposed by neural networks. They can be wrong, and lesions can be missed;"
                " a reader has to check them against the scan."
            )
        )
        if assessment.lesions:
            texts.append(detection_sentence(assessment.provenance, t))
    texts.append(
        t(
            "An outline does not say what a lesion is. LI-RADS, mRECIST and BCLC need more than this scan:"
            " none is given."
        )
    )
    if not is_followup:
        texts.append(t("A response category needs more than one examination: none is given."))
    spacing = " × ".join(f"{n:.2f}" for n in assessment.volume.grid.spacing)
    texts.append(t("Figures are not finer than the voxels of {spacing} mm allow.", spacing=spacing))
    texts.append(t("Not a medical device. Research use only."))
    return tuple(texts)


def _measured(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures of the cascade on single scans, from the embedded manifest of the run's refine model."""
    for model in provenance.get("models", ()):
        if model.get("role") != "refine":
            continue
        try:
            manifest = load_manifest(EMBEDDED_MODELS / "refine")
        except ModelError:
            return []
        if manifest.id == model.get("id") and manifest.weights_sha256 == model.get("sha256"):
            return [case for case in manifest.measured.get("cascade", {}).values() if isinstance(case, dict)]
    return []
