"""How many lesions are found on a fixed set of synthetic scans, by size, and how many that are not there."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.report.files import RESEARCH_USE

from .. import anatomy, held_out, lesions, livers, painting
from ..evaluation import LESION_HIT_IOU, dice
from ..evaluation.detection import BINS, LEAST_LESION_MM, FoundLesion, find_lesions
from ..evaluation.pooled import Resampling, mean, ratio
from ..held_out import HeldOutScan, load_scan, make_scan, save_scan
from ..lesions import LesionRanges
from ..names import SettingError, check_number
from ..training.config import read_yaml
from ..training.reading import plain, settings_from
from .records import Records, into_card, write_json

PROOF = "held_out"
SUMMARY_JSON, SUMMARY_MD = "held-out.json", "held-out.md"
# Of bodies, samples, priors and calibration; a set with one of these would repeat what was seen.
OTHER_SEEDS = (*range(2020, 2040), 4711)
# What this project wants, at one false lesion per case at most.
WANTED = {"<10": 0.60, "10–20": 0.85, ">20": 0.95}
MOST_FALSE_PER_CASE = 1.0
# Whoever draws differently makes another set.
_MAKERS = (anatomy, painting, lesions, livers, held_out)


@dataclass(frozen=True)
class HeldOutConfig:
    """The set.

    Attributes:
        seed: of all scans; not one that something else is drawn with.
        cases: how many scans the whole set has.
        healthy_every: every so-manieth liver has no lesion.
        overlap: of neighboring windows of the networks; None takes each model's own.
        lesions: of the other livers; ``chance`` has no meaning here.
    """

    seed: int
    cases: int = 200
    healthy_every: int = 4
    overlap: float | None = None
    lesions: LesionRanges = field(default_factory=LesionRanges)

    def __post_init__(self) -> None:
        check_number(self.cases, "cases", 1, whole=True)
        check_number(self.healthy_every, "healthy_every", 2, whole=True)
        if self.overlap is not None:
            check_number(self.overlap, "overlap", 0, 1, high_included=False)
        if self.seed in OTHER_SEEDS:
            raise SettingError(f"seed is {self.seed}, which training or calibration draws with. Choose another.")

    def is_healthy(self, number: int) -> bool:
        """Whether the liver of scan ``number`` has no lesion."""
        return number % self.healthy_every == self.healthy_every - 1

    def ranges(self, number: int) -> LesionRanges:
        """What the lesions of scan ``number`` are drawn from."""
        return replace(self.lesions, chance=0.0 if self.is_healthy(number) else 1.0)


def load_config(path: Path) -> HeldOutConfig:
    """Reads a YAML configuration.

    Raises:
        InputError: it cannot be read.
        SettingError: a setting that cannot be used.
    """
    try:
        return settings_from(HeldOutConfig, read_yaml(path))
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def identity_of(config: HeldOutConfig) -> str:
    """A digest that changes with the scans: of what they are drawn from and of the code that draws them."""
    content = {name: value for name, value in plain(config).items() if name not in ("cases", "overlap")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for module in _MAKERS:
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        models: folder with the models ``locate`` and ``refine``; None only makes the scans.
        data: folder with ``labels_btcv`` and ``labels_lits_liver``.
        folder: where results are kept.
        config: the set.
        count: the first so many scans of the set; None takes all.
        scans: folder in which scans are kept for other weights; None makes each anew.
        device: where the networks compute.
    """

    models: Path | None
    data: Path
    folder: Path
    config: HeldOutConfig
    count: int | None = None
    scans: Path | None = None
    device: str = "cpu"

    @property
    def numbers(self) -> range:
        """Of the scans."""
        return range(self.config.cases if self.count is None else min(self.count, self.config.cases))


def scan_of(request: Request, number: int) -> HeldOutScan:
    """A scan of the set, from its file where there is one."""
    if request.scans is None:
        return make_scan(request.data, request.config.seed, number, request.config.ranges(number))
    path = request.scans / identity_of(request.config) / f"scan-{number:03d}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_scan(make_scan(request.data, request.config.seed, number, request.config.ranges(number)), path)
    return load_scan(path)


def make_scans(request: Request, say: Callable[[str], None] = print) -> None:
    """Makes the scans of the set and nothing else, so that measuring only has to read them."""
    for number in request.numbers:
        scan = scan_of(request, number)
        say(f"scan {number}: {scan.facts}, {scan.truth.max(initial=1) - 1} lesions")


def run_held_out(request: Request, say: Callable[[str], None] = print) -> dict:
    """Runs the cascade on the scans, and writes the summary as JSON and as Markdown.

    What is there already, of the same scans and with the same weights, is not run again.

    Returns:
        the summary, see :func:`summarized`.
    """
    config = request.config
    options = Options(device=request.device, overlap=config.overlap)
    cascade = load_cascade(request.models, options)
    records = records_of(request, cascade)
    missing = [number for number in request.numbers if records.get(name_of(number)) is None]
    for number, scan in _read_ahead(request, missing):
        case = judged(scan, cascade, options)
        records.put(name_of(number), {"number": number, **case})
        say(f"case {number}: {told(case)}")
    cases = [records.get(name_of(number)) for number in request.numbers]
    summary = {
        "date": datetime.date.today().isoformat(),
        **records.key,
        "seed": config.seed,
        "whole_set": config.cases,
        **summarized(cases),
    }
    write_json(request.folder / SUMMARY_JSON, {**summary, "settings": plain(config)})
    (request.folder / SUMMARY_MD).write_text(markdown(summary), encoding="utf-8")
    return summary


def records_of(request: Request, cascade: Cascade) -> Records:
    """Where results are kept."""
    config = request.config
    key = {"weights": cascade.weights, "scans": identity_of(config), "overlap": config.overlap}
    return Records(request.folder / "cases", key)


def name_of(number: int) -> str:
    """Of a scan's result."""
    return f"case-{number:03d}"


def _read_ahead(request: Request, numbers: Sequence[int]) -> Iterator[tuple[int, HeldOutScan]]:
    """Scans by number; while one is worked on the next is made."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(scan_of, request, number) for number in numbers[:1]]
        for place, number in enumerate(numbers):
            scan = coming.pop().result()
            coming = [pool.submit(scan_of, request, later) for later in numbers[place + 1 : place + 2]]
            yield number, scan


def judged(scan: HeldOutScan, cascade: Cascade, options: Options) -> dict:
    """What a cascade finds on one scan.

    Returns:
        ``liver_dice``; ``true`` lesions, each with its IoU with what was found, and with the difference of its mean
        from that of the liver around as a multiple of the liver's standard deviation; how many ``crumbs`` below
        4 mm of volume-equivalent diameter were left out of these; ``predicted`` lesions.
    """
    result = segment(scan.volume, cascade, options)
    predicted, everything = find_lesions(result.labels > 1, scan.truth > 1, scan.volume.grid)
    true = [lesion for lesion in everything if lesion.equivalent_diameter_mm >= LEAST_LESION_MM]
    numbers = components(scan.truth > 1)[0]
    liver = scan.volume.array[scan.truth == 1].astype(np.float32)
    mean_hu, deviation = float(liver.mean()), max(1e-3, float(liver.std()))
    contrasts = [(float(scan.volume.array[numbers == lesion.number].mean()) - mean_hu) / deviation for lesion in true]
    return {
        "facts": scan.facts,
        "healthy": not everything,
        "crumbs": len(everything) - len(true),
        "liver_dice": round(dice(result.labels > 0, scan.truth > 0), 4),
        "true": [
            {**_lesion(lesion), "contrast": round(contrast, 2)}
            for lesion, contrast in zip(true, contrasts, strict=True)
        ],
        "predicted": [_lesion(lesion) for lesion in predicted],
    }


def _lesion(lesion: FoundLesion) -> dict:
    return {"size_mm": round(lesion.long_axis_mm, 1), "bin": lesion.size_bin, "iou": round(lesion.iou, 4)}


def false_count(case: dict) -> int:
    """Predicted lesions whose IoU with the true ones that they touch is 0.1 at most."""
    return sum(lesion["iou"] <= LESION_HIT_IOU for lesion in case["predicted"])


def found_count(case: dict, size: str | None = None) -> int:
    """True lesions that were found: IoU with what touches them above 0.1; of all sizes, or of one bin."""
    return sum(lesion["iou"] > LESION_HIT_IOU for lesion in case["true"] if size in (None, lesion["bin"]))


def told(case: dict) -> str:
    """The case in a few words."""
    found = f"{found_count(case)} of {len(case['true'])} lesions" if case["true"] else "healthy"
    return f"{found}, {false_count(case)} false; liver Dice {case['liver_dice']:.3f}"


def summarized(cases: Sequence[dict]) -> dict:
    """The figures of the set, with 95 % intervals from drawing scans again.

    Args:
        cases: as :func:`judged` gives them.

    Returns:
        ``recall`` by size; false lesions per scan, with lesions and healthy; ``liver_dice``.
    """
    draws = Resampling([f"{number:06d}" for number in range(len(cases))])
    false = np.array([false_count(case) for case in cases], float)
    healthy = np.array([case["healthy"] for case in cases], float)
    livers = np.array([case["liver_dice"] for case in cases])
    with_lesions = 1 - healthy
    return {
        "cases": len(cases),
        "healthy": int(healthy.sum()),
        "recall": {size: _recall(cases, size, draws) for size in BINS},
        "false_per_case": _figure(draws.interval(mean(false))),
        "false_per_case_with_lesions": _figure(draws.interval(ratio(false * with_lesions, with_lesions))),
        "false_per_healthy_case": _figure(draws.interval(ratio(false * healthy, healthy))),
        "healthy_with_false": int(np.count_nonzero(false * healthy)),
        "liver_dice": {
            **_figure(draws.interval(mean(livers))),
            "median": round(float(np.median(livers)), 4),
            "lowest": round(float(livers.min()), 4),
            "below_0.9": int(np.count_nonzero(livers < 0.9)),
        },
    }


def _recall(cases: Sequence[dict], size: str, draws: Resampling) -> dict:
    found = np.array([found_count(case, size) for case in cases], float)
    there = np.array([sum(lesion["bin"] == size for lesion in case["true"]) for case in cases], float)
    contrasts = [abs(lesion["contrast"]) for case in cases for lesion in case["true"] if lesion["bin"] == size]
    return {
        **_figure(draws.interval(ratio(found, there))),
        "found": int(found.sum()),
        "lesions": int(there.sum()),
        "median_contrast": round(float(np.median(contrasts)), 2) if contrasts else None,
        "faint": sum(contrast < 1 for contrast in contrasts),
    }


def _figure(values: tuple[float, float, float]) -> dict:
    """Value and interval; None for what is not defined."""
    rounded = [round(value, 4) if np.isfinite(value) else None for value in values]
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def markdown(summary: dict) -> str:
    """The figures for people."""
    weights = ", ".join(digest[:12] for digest in summary["weights"])
    head = f"{RESEARCH_USE} Measured {summary['date']}, weights {weights}."
    return "\n".join(["# Synthetic held-out set", "", head, "", *table_lines(summary), ""])


def table_lines(summary: dict) -> list[str]:
    """Tables in Markdown, also for the card."""
    lines = ["| lesions, long axis | found | recall | wanted | contrast |", "|---|---|---|---|---|"]
    for size, row in summary["recall"].items():
        contrast = "–"
        if row["median_contrast"] is not None:
            contrast = f"{row['median_contrast']:.1f}; {row['faint']} below 1"
        found = f"{row['found']} of {row['lesions']}"
        lines.append(f"| {size} mm | {found} | {_shown(row)} | {WANTED[size]:.2f} | {contrast} |")
    dices = summary["liver_dice"]
    spread = f"median {dices['median']:.3f}, lowest {dices['lowest']:.3f}, {dices['below_0.9']} below 0.9"
    return [
        *lines,
        "",
        "| | |",
        "|---|---|",
        f"| scans | {summary['cases']} of {summary['whole_set']}, {summary['healthy']} of them healthy |",
        f"| false lesions per scan | {_shown(summary['false_per_case'])}; wanted {MOST_FALSE_PER_CASE:g} at most |",
        f"| the same, scans with lesions | {_shown(summary['false_per_case_with_lesions'])} |",
        f"| the same, healthy scans | {_shown(summary['false_per_healthy_case'])} |",
        f"| healthy scans with any | {summary['healthy_with_false']} of {summary['healthy']} |",
        f"| liver Dice | {_shown(dices)}; {spread} |",
    ]


def _shown(figure: dict) -> str:
    if figure["value"] is None:
        return "–"
    interval = "" if figure["low"] is None else f" ({figure['low']:.2f}–{figure['high']:.2f})"
    return f"{figure['value']:.2f}{interval}"


def apply_held_out(models: Path, summary: dict) -> None:
    """Writes the figures into manifest and card of the refine model."""
    into_card(models, PROOF, summary)
