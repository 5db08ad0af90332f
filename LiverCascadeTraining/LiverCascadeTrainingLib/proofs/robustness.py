"""What changing a scan does to the liver that is found: the drop of its Dice, and whether a finding says why."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.findings import Severity
from LiverCascadeLib.report.files import RESEARCH_USE
from LiverCascadeLib.result import Result
from LiverCascadeLib.volume import Volume

from ..cases import REAL_CASES
from ..evaluation import dice
from ..measure import Reference, reference
from ..names import check_name
from .perturbations import PERTURBATIONS, Perturbation
from .records import Records, into_card, write_json

PROOF = "robustness"
TABLE_JSON, TABLE_MD = "robustness.json", "robustness.md"
UNCHANGED = "unchanged"
# Of what is kept of a run; 2 has the words of the findings.
FORMAT = 2
# A liver Dice that drops by more than this needs a finding that says why.
MOST_DROP = 0.02
HOLDS, EXPLAINED, FAILS = "holds", "explained", "FAILS"
DEFAULT_CASES = tuple(REAL_CASES)
BY_NAME = {perturbation.name: perturbation for perturbation in PERTURBATIONS}


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        models: folder with the models ``locate`` and ``refine``.
        data: folder with the real cases.
        folder: where results are kept.
        cases: names of cases.
        perturbations: names of perturbations.
        device: where the networks compute.
    """

    models: Path
    data: Path
    folder: Path
    cases: tuple[str, ...] = DEFAULT_CASES
    perturbations: tuple[str, ...] = tuple(BY_NAME)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.perturbations:
            check_name(name, BY_NAME, "perturbation")


def run_robustness(request: Request, say: Callable[[str], None] = print) -> dict:
    """Runs the cascade on every case with every perturbation, and writes the table as JSON and as Markdown.

    What is there already, with the same weights, is not run again.

    Args:
        request: what is asked.
        say: is told what was found, line by line.

    Returns:
        the content of ``robustness.json``, see :func:`tabulated`.
    """
    cascade = load_cascade(request.models, Options(device=request.device))
    records = Records(request.folder / "runs", {"weights": cascade.weights, "format": FORMAT})
    results = {}
    for case in request.cases:
        results[case] = _case(case, request, cascade, records, say)
    table = {
        "date": datetime.date.today().isoformat(),
        "weights": cascade.weights,
        **tabulated(results, request.perturbations),
    }
    write_json(request.folder / TABLE_JSON, {**table, "runs": results})
    (request.folder / TABLE_MD).write_text(markdown(table), encoding="utf-8")
    return table


def _case(case: str, request: Request, cascade: Cascade, records: Records, say: Callable[[str], None]) -> dict:
    """What was found on one case, by perturbation; its scan is only read where something is missing."""
    found, scan = {}, None
    for name in (UNCHANGED, *request.perturbations):
        result = records.get(f"{case}--{name}")
        if result is None:
            scan = scan or reference(request.data, case)
            result = _run(scan, BY_NAME.get(name), cascade, request.device)
            records.put(f"{case}--{name}", result)
            shown = ", ".join(result["findings"]) or "no finding"
            say(f"{case}, {name}: liver Dice {result['liver_dice']:.3f}; {shown}")
        found[name] = result
    return found


def changed(scan: Reference, perturbation: Perturbation | None) -> tuple[Volume, np.ndarray]:
    """A case as a perturbation leaves it, None leaving it as it is: CT, and bool [k, j, i] liver with lesions."""
    liver = scan.labels > 0
    return (scan.volume, liver) if perturbation is None else perturbation.applied(scan.volume, liver)


def _run(scan: Reference, perturbation: Perturbation | None, cascade: Cascade, device: str) -> dict:
    volume, liver = changed(scan, perturbation)
    result = segment(volume, cascade, Options(device=device))
    milliliters = volume.grid.voxel_volume_mm3 / 1000
    return {
        "note": scan.note,
        "liver_dice": round(dice(result.labels > 0, liver), 4),
        "liver_ml": round(result.liver_volume_ml, 1),
        "reference_liver_ml": round(float(np.count_nonzero(liver)) * milliliters, 1),
        "findings": _warnings(result),
    }


def _warnings(result: Result) -> dict[str, str]:
    """What a user would be warned of: the words by code, in the order of the codes."""
    said: dict[str, list[str]] = {}
    for finding in result.findings:
        if finding.severity is not Severity.INFO:
            said.setdefault(finding.code, []).append(finding.message)
    return {code: " ".join(said[code]) for code in sorted(said)}


def tabulated(results: dict[str, dict[str, dict]], perturbations: Sequence[str]) -> dict:
    """The table of all results.

    Args:
        results: by case and perturbation, with :data:`UNCHANGED` among them.
        perturbations: names, in the order of the rows.

    Returns:
        ``cases`` with note and Dice of the unchanged scans, and ``rows``: one for each perturbation, with the drop of
        the Dice, new findings and verdict of each case, and the worst verdict.
    """
    rows = []
    for name in perturbations:
        cells = {case: judged(runs[UNCHANGED], runs[name], BY_NAME[name].reasons) for case, runs in results.items()}
        verdicts = {cell["verdict"] for cell in cells.values()}
        worst = next(verdict for verdict in (FAILS, EXPLAINED, HOLDS) if verdict in verdicts)
        rows.append({"name": name, "text": BY_NAME[name].text, "verdict": worst, "cases": cells})
    cases = {
        case: {"note": runs[UNCHANGED]["note"], "liver_dice": runs[UNCHANGED]["liver_dice"]}
        for case, runs in results.items()
    }
    return {"cases": cases, "rows": rows}


def judged(before: dict, after: dict, reasons: Sequence[str]) -> dict:
    """One cell: 'holds' where the Dice drops by 0.02 at most, 'explained' where a new finding says why it drops, else
    'FAILS'. What the unchanged scan was warned of in the same words already explains no drop.

    Args:
        before, after: results on the unchanged and on the changed scan.
        reasons: codes of findings that explain a drop.
    """
    drop = round(before["liver_dice"] - after["liver_dice"], 4)
    known = before["findings"]
    why = [code for code in reasons if code in after["findings"] and after["findings"][code] != known.get(code)]
    verdict = HOLDS if drop <= MOST_DROP else EXPLAINED if why else FAILS
    # A warning that was there and has other words now, such as another area, is only shown where it explains.
    new = [code for code in after["findings"] if code not in known or (verdict == EXPLAINED and code in why)]
    return {"drop": drop, "findings": new, "verdict": verdict}


def markdown(table: dict) -> str:
    """The table for people."""
    return "\n".join(
        [
            "# Robustness",
            "",
            f"{RESEARCH_USE} Measured {table['date']}, weights {', '.join(w[:12] for w in table['weights'])}.",
            "",
            *table_lines(table),
            "",
        ]
    )


def table_lines(table: dict) -> list[str]:
    """The rows in Markdown, also for the card."""
    cases = table["cases"]
    unchanged = [f"{case['liver_dice']:.3f}" for case in cases.values()]
    lines = [
        f"| scan | {' | '.join(cases)} | findings | verdict |",
        f"|---|{'---|' * len(cases)}---|---|",
        f"| liver Dice, unchanged | {' | '.join(unchanged)} | | |",
    ]
    for row in table["rows"]:
        cells = [_cell(row["cases"][case]) for case in cases]
        codes = sorted({code for cell in row["cases"].values() for code in cell["findings"]})
        lines.append(f"| {row['text']} | {' | '.join(cells)} | {', '.join(codes)} | {row['verdict']} |")
    return lines


def _cell(cell: dict) -> str:
    change = f"{-cell['drop']:+.3f}".replace("-", "−")
    return f"**{change}**" if cell["verdict"] == FAILS else change


def apply_robustness(models: Path, table: dict) -> None:
    """Writes the table into manifest and card of the refine model."""
    into_card(models, PROOF, table)
