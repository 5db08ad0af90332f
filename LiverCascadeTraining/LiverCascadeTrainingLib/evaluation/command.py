"""``livercascade-train evaluate``: label maps of any tool against references."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LiverCascadeLib.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from .files import LabelMeaning
    from .study import Request, Study

DESCRIPTION = """\
Judges label maps of any tool against references, and several tools against each other. Writes figures per case (CSV,
JSON), pooled figures with intervals, plots, pictures of the worst cases, and a page with all of it. Research use only.

Folders hold CASE.nii.gz (or .nii, .nrrd, .mha), or a folder CASE with one label map, such as the results of
livercascade. What tools put around a case's name is passed over: 'segmentation-12.nii' and 'volume-12_0000.nii.gz'
are both case 12. For anything else, write a CSV with the columns case, reference, one for each model, and, where
wanted, patient and ct.

Two files instead of folders print the few figures of a model card."""
EPILOG = """\
examples:
  livercascade-train evaluate --pred results/ --ref LiTS/ --ct LiTS/ -o evaluation/
  livercascade-train evaluate --pred nnunet/ --name nnU-Net --pred results/ --name LiverCascade --ref truth/ -o out/
  livercascade-train evaluate --pred totalsegmentator/ --labels liver=5 --ref truth/ -o out/
  livercascade-train evaluate --pred results/ --post largest+fill --post min10 --ref truth/ -o out/
  livercascade-train evaluate labels.nii.gz truth.nii.gz"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "evaluate",
        help="judge label maps of any tool against references, and tools against each other",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a label map and its reference")
    parser.add_argument("--liver-only", action="store_true", help="do not judge lesions")
    files = parser.add_argument_group("what is judged")
    files.add_argument(
        "--pred", action="append", type=Path, default=[], metavar="DIR", help="label maps of a model; may be repeated"
    )
    files.add_argument(
        "--name", action="append", default=[], help="its name (default: the folder's); as often as --pred"
    )
    files.add_argument("--ref", type=Path, metavar="DIR", help="references")
    files.add_argument("--pairs", type=Path, metavar="CSV", help="instead of --pred and --ref: which files to take")
    files.add_argument("--ct", type=Path, metavar="DIR", help="the CTs, for pictures and for guided clean-up")
    files.add_argument("--patients", type=Path, metavar="CSV", help="columns case, patient; default: one each")
    files.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="liver=…,lesion=…",
        help="what labels of the models mean; once for all, or as often as --pred (default liver=1-,lesion=2-)",
    )
    files.add_argument("--ref-labels", metavar="liver=…,lesion=…", help="what labels of the references mean")
    files.add_argument(
        "--missing",
        choices=("refuse", "leave-out", "empty"),
        default="refuse",
        help="a reference without a label map: refuse to go on, leave the case out, or take it as nothing found",
    )
    files.add_argument(
        "--post",
        action="append",
        default=[],
        metavar="STEPS",
        help="judge every model also after this clean-up: largest, fill, min5 (mm), smooth1 (mm), guided3 (mm; needs "
        "--ct), engine; chained with +",
    )
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder for the results")
    output.add_argument("--draws", type=_positive, default=2000, help="of the intervals (default 2000)")
    output.add_argument("--seed", type=int, default=2026, help="of intervals and permutations (default 2026)")
    output.add_argument("--worst", type=int, default=3, help="worst cases with a picture (default 3)")
    output.add_argument("--jobs", type=_positive, default=1, metavar="N", help="cases at the same time")
    output.add_argument("--no-page", action="store_true", help="figures only: no plots, no pictures, no page")
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return number


def _run(options: argparse.Namespace) -> int:
    from datetime import datetime

    from LiverCascadeLib.report.files import OutputFolder

    from .study import run_study
    from .writing import PAGE, POOLED_JSON, write_study

    if options.files:
        return _run_pair(options)
    request = _request(options)
    if options.output is None:
        raise InputError("Where do the results go? Give a folder with -o.")
    with OutputFolder(options.output) as folder:
        study = run_study(request, options.jobs, say=lambda text: print(text, flush=True))
        write_study(study, folder, datetime.now(), options.worst, not options.no_page)
        folder.commit()
    for remark in study.remarks:
        print(remark)
    for line in _lines(study):
        print(line)
    print(f"{options.output / (POOLED_JSON if options.no_page else PAGE)}")
    return EXIT_DONE


def _run_pair(options: argparse.Namespace) -> int:
    from .agreement import compare_files

    if len(options.files) != 2 or options.pred or options.ref or options.pairs:
        raise InputError("Give a label map and its reference, or folders with --pred and --ref.")
    try:
        print(json.dumps(compare_files(*options.files, not options.liver_only)))
    except ValueError as error:
        raise InputError(str(error)) from None
    return EXIT_DONE


def _request(options: argparse.Namespace) -> Request:
    from .files import label_maps_in, match_cases, read_pairs, read_patients, scans_in, settle_missing
    from .postprocessing import PostProcessing
    from .study import Model, Request

    if options.pairs:
        if options.pred or options.ref:
            raise InputError("--pairs names all files: leave --pred and --ref out.")
        cases, names = read_pairs(options.pairs)
        cases, remarks = settle_missing(cases, options.missing)
    else:
        if not options.pred or not options.ref:
            raise InputError("Give the label maps with --pred and the references with --ref, or a CSV with --pairs.")
        names = _names(options.pred, options.name)
        found = {name: label_maps_in(path) for name, path in zip(names, options.pred, strict=True)}
        patients = read_patients(options.patients) if options.patients else None
        scans = scans_in(options.ct) if options.ct else None
        cases, remarks = match_cases(label_maps_in(options.ref), found, scans, patients, options.missing)
    meanings = _meanings(options.labels, len(names), options.liver_only)
    plain = [Model(name, name, meaning) for name, meaning in zip(names, meanings, strict=True)]
    posts = [PostProcessing.parse(text) for text in options.post]
    models = [
        model
        for one in plain
        for model in (one, *(Model(f"{one.name}, {post.name}", one.source, one.meaning, post) for post in posts))
    ]
    reference = _meanings([options.ref_labels] if options.ref_labels else [], 1, options.liver_only)[0]
    return Request(cases, models, reference, options.draws, options.seed, tuple(remarks))


def _names(paths: Sequence[Path], given: Sequence[str]) -> list[str]:
    if given and len(given) != len(paths):
        raise InputError(f"There are {len(paths)} --pred and {len(given)} --name: give a name to each or to none.")
    names = list(given) or [path.resolve().name for path in paths]
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise InputError(f"The models need different names, found {', '.join(names)}. Give them with --name.")
    return names


def _meanings(texts: Sequence[str], count: int, liver_only: bool) -> list[LabelMeaning]:
    from dataclasses import replace

    from .files import LabelMeaning

    if len(texts) not in (0, 1, count):
        raise InputError(
            f"There are {count} models and {len(texts)} --labels: give it once for all, or once for each."
        )
    meanings = [LabelMeaning.parse(text) for text in texts] or [LabelMeaning()]
    if liver_only:
        meanings = [replace(m, liver=m.liver + m.lesion, lesion=()) for m in meanings]
    return meanings * count if len(meanings) == 1 else meanings


def _lines(study: Study) -> list[str]:
    """The few figures that a terminal shows."""
    from .cases import as_text

    lines = []
    for name, data in study.data.items():
        parts = [f"liver Dice {as_text(data.figures['liver_dice'].value, 3)}"]
        parts.append(f"HD95 {as_text(data.figures['liver_hd95_mm'].value, 1)} mm")
        if data.with_lesions:
            row = data.detection("touching", "all", 0.1)
            parts.append(f"lesion Dice {as_text(data.figures['lesion_dice'].value, 3)}")
            parts.append(f"{row.detected} of {row.references} lesions found (IoU > 0.1)")
            parts.append(f"{as_text(row.false_per_patient.value, 2)} false per patient")
        lines.append(f"{name}: {', '.join(parts)}")
    return lines
