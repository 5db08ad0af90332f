"""``python -m LiverCascadeTrainingPanel.test_part``: segments the test part of a split, for ``evaluate --pairs``.

Goes on where it was stopped; cases are segmented again where the models are others.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from LiverCascadeTrainingLib.data.layouts import Study

MODEL = "this model"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    from LiverCascadeLib.errors import LiverCascadeError

    parser = argparse.ArgumentParser(prog="test_part", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder with the models 'locate' and 'refine'")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for label maps and pairs.csv")
    options = parser.parse_args(arguments)
    try:
        segment_test_part(options.data, options.layout, options.split, options.models, options.output, options.device)
    except LiverCascadeError as error:
        print(f"livercascade-train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def segment_test_part(data: Path, layout: str, split: Path, models: Path, output: Path, device: str = "auto") -> Path:
    """Writes references and found label maps of the test part, and ``pairs.csv`` that names them.

    Args:
        data: folder of a data set.
        layout: of the data set.
        split: file of the split; of a cross-validation, the first fold counts.
        models: folder with the models.
        output: folder for the files.
        device: where to compute.

    Returns:
        the path of ``pairs.csv``.

    Raises:
        LiverCascadeError: data, split or models cannot be used.
    """
    from LiverCascadeLib.cascade import Options, load_cascade
    from LiverCascadeLib.errors import InputError
    from LiverCascadeTrainingLib.data.layouts import find_studies
    from LiverCascadeTrainingLib.data.reading import StudyError
    from LiverCascadeTrainingLib.data.splits import load_split

    fold = load_split(split).folds[0]
    wanted = set(fold.get("test", ()))
    if not wanted:
        raise InputError(f"The split {split} has no test part. Make one with the scheme 70/10/20.")
    studies = [study for study in find_studies(data, layout) if study.name in wanted]
    if len(studies) < len(wanted):
        gone = sorted(wanted - {study.name for study in studies})
        raise InputError(f"{len(gone)} cases of the test part are not in {data}: {', '.join(gone[:5])}.")
    cascade, choices = load_cascade(models, Options(device=device, force=True)), Options(device=device, force=True)
    mark = " ".join(cascade.weights)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, study in enumerate(studies, start=1):
        try:
            rows.append(_case(study, cascade, choices, mark, output))
        except StudyError as error:
            print(f"left out: {error}", flush=True)
        print(f"{number}/{len(studies)} {study.name}", flush=True)
    if not rows:
        raise InputError("No case of the test part can be used.")
    path = output / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["case", "patient", "reference", MODEL])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _case(study: Study, cascade: object, choices: object, mark: str, output: Path) -> dict[str, str]:
    """One row of the table; the files are written unless they are there already."""
    from LiverCascadeLib.cascade import segment
    from LiverCascadeLib.volume import write_labels
    from LiverCascadeTrainingLib.data.reading import StudyError
    from LiverCascadeTrainingLib.data.repairs import load_study

    truth, found = (output / kind / f"{study.name}.nii.gz" for kind in ("truth", "found"))
    note = output / "found" / f"{study.name}.json"
    row = {"case": study.name, "patient": study.patient}
    row |= {"reference": truth.relative_to(output).as_posix(), MODEL: found.relative_to(output).as_posix()}
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == mark:
        return row
    # With repairs: a header that is known to be wrong would show the networks another body.
    loaded = load_study(study)
    if loaded.labels is None:
        raise StudyError("missing-label", f"{study.name} has no labels to be judged by.")
    result = segment(loaded.volume, cascade, choices)
    for path, labels in ((truth, loaded.labels), (found, result.labels)):
        path.parent.mkdir(exist_ok=True)
        write_labels(path, labels, loaded.volume.grid)
    part = note.with_suffix(".part")
    part.write_text(json.dumps(mark), encoding="utf-8")
    os.replace(part, note)
    return row


if __name__ == "__main__":
    sys.exit(main())
