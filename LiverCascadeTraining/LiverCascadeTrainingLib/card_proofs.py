"""The sections of a model card that come from proofs: held-out set, robustness, failures, and what follows for use."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 119
_HELD_OUT = (
    "What the set shares with the training: the painter that draws tissues, lesions and noise, and the organ maps "
    "around the livers. What it does not share: seeds, bodies, and the livers themselves, which are LiTS label maps "
    "that no body for training was built around; the confidence of lesions was calibrated on scans of the same kind, "
    "with another seed. Lesions are therefore of the kind that the network was trained on, and recall and false "
    "lesions are likely to be worse on patients. Contrast is the difference from the liver's mean as a multiple of "
    "the liver's standard deviation, texture, vessels and noise together; below 1, a lesion differs from its "
    "surroundings by less than these do among themselves. A lesion is found where its IoU with all that touches it "
    "is above 0.1; a predicted lesion is false where its IoU with all true ones that it touches is not, so that a "
    "fragment of a true lesion counts as false too. Crumbs of less than 4 mm that lobed lesions leave beside them "
    "are not counted as lesions."
)
_ROBUSTNESS = (
    "Change of the liver's Dice on real CTs that were changed on purpose. A row holds where the Dice drops by 0.02 "
    "at most on every case, is explained where a finding that the change brought with it tells the user what is wrong "
    "with the scan, and FAILS otherwise (bold). The reference is changed along with the "
    "scan: with other slices it is resampled, with a smaller field of view it is what is left."
)
_PICTURES = (
    "The worst of what was measured above, one slice each, in which most is wrong. Blue, solid: the truth. Yellow, "
    "dashed: what was found. Thin: liver; thick: lesions. Real CTs are shown without their voxels, which belong to "
    "others."
)
_NOT_FOR = """\
* Not for diagnosis, staging, planning of treatment, or any decision about a patient; not to rule out a lesion.
* Not for scans of other kinds than above without looking at every result: MR, ultrasound, cone-beam CT, PET without a
  diagnostic CT, animals, children, livers after resection or transplantation, or in the course of an intervention.
* Not for measuring response to treatment without a reader who has corrected both masks.
* Not where a finding was raised and nobody read it.
* Not as ground truth for other models: its errors would be learned."""


def proof_sections(measured: dict[str, Any]) -> str:
    """Sections in Markdown; nothing where nothing was proven.

    Args:
        measured: of the model's manifest.
    """
    parts = [_held_out(measured), _robustness(measured), _pictures(measured)]
    if not any(parts):
        return ""
    return "".join([*parts, f"\n## What it must not be used for\n\n{_NOT_FOR}\n"])


def _held_out(measured: dict[str, Any]) -> str:
    summary = measured.get("held_out")
    if summary is None:
        return ""
    from .proofs.held_out_set import table_lines

    overlap = "the models' own overlap"
    if summary["overlap"] is not None:
        overlap = f"an overlap of {summary['overlap']:g}, for time's sake"
    cases, whole = summary["cases"], summary["whole_set"]
    which = f"all {whole}" if cases == whole else f"the first {cases} of {whole}"
    how = (
        f"Measured {summary['date']} with {_weights(summary)} on {which} synthetic scans "
        f"(seed {summary['seed']}, `held-out.yaml`), windows with {overlap}. "
        "In brackets: 95 % intervals from drawing scans again."
    )
    lines = "\n".join(table_lines(summary))
    return f"\n## Synthetic held-out set\n\n{_filled(how)}\n\n{lines}\n\n{_filled(_HELD_OUT)}\n"


def _robustness(measured: dict[str, Any]) -> str:
    table = measured.get("robustness")
    if table is None:
        return ""
    from .proofs.robustness import table_lines

    notes = "; ".join(f"{name}: {case['note']}" for name, case in table["cases"].items())
    how = f"{_ROBUSTNESS} Measured {table['date']} with {_weights(table)}. Cases: {notes}."
    return f"\n## Robustness\n\n{_filled(how)}\n\n" + "\n".join(table_lines(table)) + "\n"


def _pictures(measured: dict[str, Any]) -> str:
    pictures = measured.get("pictures")
    if not pictures:
        return ""
    shown = "\n\n".join(f"![{text}]({file})\n\n{_filled(text)}." for file, text in pictures.items())
    return f"\n## Failures\n\n{_filled(_PICTURES)}\n\n{shown}\n"


def _weights(proof: dict[str, Any]) -> str:
    locate, *refine = (f"`{digest[:12]}`" for digest in proof["weights"])
    return f"the weights {locate} of the locate model and {' and '.join(refine)} of what refines"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
