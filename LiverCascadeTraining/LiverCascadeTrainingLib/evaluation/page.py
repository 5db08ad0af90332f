"""The page: everything that a reader of an evaluation wants, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from LiverCascadeLib import __version__
from LiverCascadeLib.report.files import RESEARCH_USE

from .cases import FIGURES, STRUCTURES, Case, as_text
from .comparison import Difference
from .pictures import draw_case
from .plots import all_plots
from .pooled import LEVEL, OVERALL, Pooled
from .study import Study, worst_cases
from .writing import meaning_text

_HERE = Path(__file__).resolve().parent.parent
# Beside the package in a checkout and in Slicer, inside it in a wheel.
_FOLDERS = [parent / "Resources" / "Evaluation" for parent in (_HERE, _HERE.parent)]
FOLDER, TEMPLATE = next((p for p in _FOLDERS if p.is_dir()), _FOLDERS[0]), "evaluation.html.j2"
# In the table of cases; the rest is in the CSV.
IN_CASE_TABLE = ("dice", "nsd_2mm", "hd95_mm", "assd_mm", "volume_error_ml")
MOST_CASES = 60


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: its heading.
        columns: headings; the first column is text, the others are numbers.
        rows: cells.
        notes: below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Image:
    """A picture with its caption; ``uri`` holds all of it."""

    uri: str
    caption: str


def write_page(
    study: Study,
    differences: Sequence[Difference],
    folder: Path,
    date: datetime,
    worst: int,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Writes plots, pictures and the page.

    Args:
        study: what was found.
        differences: of each two models.
        folder: where to.
        date: of the page.
        worst: how many worst cases of each model and structure are drawn.
        say: is told what takes long.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    plots = []
    for name, (data, caption) in all_plots(study.data).items():
        (folder / name).write_bytes(data)
        plots.append(Image(_uri(data, "svg+xml"), caption))
    say("Worst cases are drawn.")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        title="Evaluation of " + " and ".join(study.data),
        date=date.strftime("%Y-%m-%d %H:%M"),
        notice=RESEARCH_USE,
        version=__version__,
        facts=_facts(study),
        remarks=study.remarks,
        main=[_figures(study, structure) for structure in next(iter(study.data.values())).structures]
        + [_overall(study)],
        detection=_detection(study),
        comparison=_comparison(differences),
        plots=plots,
        pictures=_pictures(study, folder, worst),
        cases=[_cases(study, name) for name in study.data],
        definitions=_definitions(),
    )
    (folder / "evaluation.html").write_text(page.rstrip() + "\n", encoding="utf-8")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _facts(study: Study) -> list[tuple[str, str]]:
    first = next(iter(study.data.values()))
    request = study.request
    facts = [("Cases", f"{len(first.cases)} of {first.resampling.patients} patients")]
    if first.with_lesions:
        lesions = sum(len(case.reference_lesions) for case in first.cases)
        healthy = sum(not case.has_lesion for case in first.cases)
        facts.append(("Lesions of the references", f"{lesions}; {healthy} cases have none"))
    for model in request.models:
        post = f"; clean-up: {model.post.name}" if model.post else ""
        facts.append((model.name, f"labels {meaning_text(model.meaning)}{post}"))
    facts.append(("References", f"labels {meaning_text(request.reference_meaning)}"))
    facts.append(
        ("Intervals", f"{LEVEL:.0%} percentile bootstrap by patient, {request.draws} draws, seed {request.seed}")
    )
    return facts


def with_interval(pooled: Pooled, digits: int) -> str:
    """A figure with its interval, such as '0.912 (0.880–0.941)'."""
    text = as_text(pooled.value, digits)
    ends = [as_text(end, digits) for end in (pooled.low, pooled.high)]
    separator = " to " if pooled.low < 0 else "–"
    return text if "–" in ends else f"{text} ({separator.join(ends)})"


def _figures(study: Study, structure: str) -> Table:
    rows, undefined = [], False
    for figure in FIGURES:
        if figure.key == "reference_ml":
            continue
        cells = []
        for data in study.data.values():
            pooled = data.figures[f"{structure}_{figure.key}"]
            mark = f" [{pooled.undefined}]" if pooled.undefined else ""
            undefined |= bool(pooled.undefined)
            cells.append(f"{with_interval(pooled, figure.digits)}{mark}")
        rows.append([figure.heading, *cells])
    notes = ["Mean over cases with its interval."]
    if undefined:
        notes.append("In brackets: cases in which the figure is not defined, because one of the masks is empty.")
    return Table(f"{STRUCTURES[structure]}, per case", ["", *study.data], rows, notes)


def _overall(study: Study) -> Table:
    rows = []
    for item in OVERALL:
        if any(item.key in data.overall for data in study.data.values()):
            cells = [with_interval(data.overall[item.key], item.digits) for data in study.data.values()]
            unit = f" ({item.unit})" if item.unit else ""
            rows.append([f"{item.title}{unit}", *cells])
    if any(data.with_lesions and data.reliability() for data in study.data.values()):
        errors = [as_text(data.calibration_error(), 3) for data in study.data.values()]
        rows.append(["Calibration error of lesions", *errors])
    return Table("Whole data set", ["", *study.data], rows)


def _detection(study: Study) -> list[Table]:
    tables = []
    columns = ["", "IoU >", "found", "recall", "predicted", "precision", "F1", "false per patient"]
    for name, data in study.data.items():
        rows = [
            [
                _size(row.size) if row.rule == "touching" else "all sizes, rule of LiTS",
                f"{row.threshold:g}",
                f"{row.detected} of {row.references}",
                with_interval(row.recall, 2),
                str(row.predicted),
                with_interval(row.precision, 2),
                with_interval(row.f1, 2),
                with_interval(row.false_per_patient, 2),
            ]
            for row in data.detections
        ]
        if rows:
            tables.append(Table(f"Lesions found: {name}", columns, rows))
    return tables


def _size(size: str) -> str:
    return "all sizes" if size == "all" else f"{size} mm"


def _comparison(differences: Sequence[Difference]) -> list[Table]:
    tables = []
    for first, second in dict.fromkeys((d.first, d.second) for d in differences):
        rows = [_difference(d) for d in differences if (d.first, d.second) == (first, second)]
        columns = ["", first, second, "difference (95 %)", "better: 1st / 2nd", "n", "test", "p", "p, Holm", "McNemar"]
        notes = [
            f"Differences are {second} − {first}. p are two-sided, and corrected for all {len(differences)} tests of "
            "this page. Wilcoxon: signed ranks of patients. Permutation: signs of patients; for recall, n and the "
            "better one are counted in lesions. McNemar's test takes lesions for independent, which they are not."
        ]
        if any(d.left_out for d in differences):
            notes.append("In brackets: cases left out because the figure is not defined for both.")
        tables.append(Table(f"{first} against {second}", columns, rows, notes))
    return tables


def _difference(d: Difference) -> list[str]:
    ends = (as_text(d.low, d.digits), as_text(d.high, d.digits))
    interval = "" if "–" in ends else f" ({ends[0]} to {ends[1]})"
    return [
        d.title,
        as_text(d.value_first, d.digits),
        as_text(d.value_second, d.digits),
        f"{as_text(d.difference, d.digits)}{interval}",
        f"{d.first_better} / {d.second_better}",
        f"{d.count}{f' [{d.left_out}]' if d.left_out else ''}",
        d.test,
        p_text(d.p),
        p_text(d.p_holm),
        p_text(d.p_mcnemar),
    ]


def p_text(p: float) -> str:
    """A p value for readers."""
    return "< 0.001" if p < 0.001 else as_text(p, 3)


def _pictures(study: Study, folder: Path, worst: int) -> list[Image]:
    pictures = []
    files = {case.name: case for case in study.request.cases}
    for number, model in enumerate(study.request.models, start=1):
        data = study.data[model.name]
        for value, structure in enumerate(data.structures, start=1):
            for case in worst_cases(data, f"{structure}_dice", worst):
                picture = draw_case(study.request, files[case.name], model, value)
                safe = re.sub(r"[^\w.-]", "_", case.name)
                (folder / f"worst_{number}_{structure}_{safe}.png").write_bytes(picture.data)
                dice = as_text(case.values[f"{structure}_dice"], 3)
                caption = f"{model.name}, case {case.name}: {structure} Dice {dice}; {picture.text}."
                pictures.append(Image(_uri(picture.data, "png"), caption))
    return pictures


def _cases(study: Study, name: str) -> Table:
    data = study.data[name]
    keys = [(s, f) for s in data.structures for f in FIGURES if f.key in IN_CASE_TABLE]
    columns = ["case", *(f"{s} {f.heading}" for s, f in keys)]
    if data.with_lesions:
        columns += ["found (IoU > 0.1)", "false"]
    ordered = sorted(data.cases, key=lambda case: case.values["liver_dice"])
    rows = [_case_row(case, keys) for case in ordered[:MOST_CASES]]
    notes = ["By rising liver Dice."]
    if len(ordered) > MOST_CASES:
        notes.append(f"The {MOST_CASES} lowest of {len(ordered)}; all are in cases.csv.")
    return Table(f"Cases: {name}", columns, rows, notes)


def _case_row(case: Case, keys: Sequence[tuple[str, object]]) -> list[str]:
    cells = [case.name, *(f.text(case.values[f"{s}_{f.key}"]) for s, f in keys)]
    if case.with_lesions:
        found = sum(n.iou > 0.1 for n in case.reference_lesions)
        false = sum(n.iou <= 0.1 for n in case.predicted_lesions)
        cells += [f"{found} of {len(case.reference_lesions)}", str(false)]
    return cells


def _definitions() -> Mapping[str, str]:
    figures = {figure.title: figure.definition for figure in FIGURES}
    return {**figures, **{item.title: item.definition for item in OVERALL}}
