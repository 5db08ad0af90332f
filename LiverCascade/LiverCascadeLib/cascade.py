"""The pipeline, readable from top to bottom: locate, box, refine, fuse on the input grid, clean up."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .bright_fill import with_air_around
from .errors import ModelError
from .findings import Finding, Severity
from .fusing import COUINAUD, Answer, drawn, merged
from .gate import Gate
from .geometry import Box, Grid
from .lesions.confidence import confidences, evidence
from .lesions.couinaud_network import couinaud_channels
from .loading import StageOptions, load_manifest_for, load_stage
from .located import Located
from .models import Manifest
from .models.cascade_file import read_cascade
from .postprocess import LESION_CLASS, CleanUp, clean, components, halo_means, only_lesions
from .predictor import choose_device
from .preflight import judge_coverage, judge_density, judge_orientation, preflight, settled
from .progress import Progress
from .resources import EMBEDDED_MODELS
from .result import LIVER_LABEL, Lesion, Result, Uncertainty
from .stages import Stage, Wishes, chained
from .steps import exhausted
from .structures import Structures
from .volume import Volume

GATE_MODES = ("off", "mark", "drop")


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        device: 'auto', 'cpu', 'gpu', 'cuda' or 'cuda:N'.
        overlap: of neighboring windows, 0 ≤ overlap < 1; None takes each model's own.
        margin_mm: tissue around the located liver that is refined; None takes the refine model's own.
        binary_prior: hand the located liver over as a mask instead of a probability.
        clean_up: what is removed at the end.
        min_liver_ml: a located component below this is not taken for a liver.
        force: segment also where preflight says that the values are not those of a CT.
        thorough: windows overlap more, and mirrored copies are averaged along the axes that a model was trained for.
        uncertainty: also give the entropy of the probabilities, voxel by voxel.
        gate: what happens to lesions where the folder of models holds a model 'classify' and that one finds the liver
            free of lesions: 'mark' says so in a finding and lowers their confidence, 'drop' takes them away, 'off'
            does not ask it. Without such a model nothing happens.
        faithful: models of others compute what their owners' software computes, instead of as fast as they can.
    """

    device: str = "auto"
    overlap: float | None = None
    margin_mm: float | None = None
    binary_prior: bool = False
    clean_up: CleanUp = field(default_factory=CleanUp)
    min_liver_ml: float = 40.0
    force: bool = False
    thorough: bool = False
    uncertainty: bool = False
    gate: str = "mark"
    faithful: bool = False


@dataclass(frozen=True)
class Cascade:
    """One locate stage and any number of refine stages that work in its box.

    Attributes:
        locate: finds the liver.
        refine: the stage whose margin and calibration count.
        gate: whether there are lesions at all, where there is a model for it.
        others: refine stages that draw more structures in the same box.
    """

    locate: Stage
    refine: Stage
    gate: Gate | None = None
    others: tuple[Stage, ...] = ()

    @property
    def refining(self) -> tuple[Stage, ...]:
        """All refine stages, the main one first."""
        return (self.refine, *self.others)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order in which they work, those of a chain one by one."""
        refining = [member for stage in self.refining for member in getattr(stage, "members", (stage,))]
        return (self.locate, *refining)

    @property
    def weights(self) -> list[str]:
        """SHA-256 of the weights of all stages, which say whether results come from the same models."""
        return [stage.manifest.weights_sha256 for stage in self.stages]

    @property
    def margin_mm(self) -> float:
        """Tissue around the located liver that every refine stage gets."""
        return max(stage.manifest.margin_mm for stage in self.refining)


def load_cascade(models: Path | str | None, options: Options) -> Cascade:
    """Loads the models of a cascade.

    Args:
        models: see :func:`.models.cascade_file.read_cascade`; None takes the embedded default.
        options: device, overlap and gate.

    Raises:
        ModelError: a model is missing, altered or has the wrong role; also without a gate that is to drop lesions.
        ResourceError: a GPU was asked for and there is none.
    """
    device = choose_device(options.device)
    how = StageOptions(device, options.overlap, options.thorough, options.faithful)
    found = read_cascade(EMBEDDED_MODELS if models is None else Path(models))
    locate = load_stage(found.locate, "locate", how)
    refine = chained([load_stage(folder, "refine", how) for folder in found.refine])
    return Cascade(locate, refine[0], _load_gate(found.classify, device, options.gate), refine[1:])


def _load_gate(folder: Path | None, device: str, mode: str) -> Gate | None:
    """The gate of a cascade; None where there is none, or none is wanted."""
    if mode not in GATE_MODES:
        raise ModelError(f"The gate is {mode!r}, expected one of {', '.join(GATE_MODES)}.")
    if mode == "off":
        return None
    if folder is not None:
        return Gate(load_manifest_for(folder, "classify"), device)
    if mode == "drop":
        raise ModelError(
            "Lesions are to be dropped where a gate finds none, but these models hold no model 'classify'. Choose "
            "models with one, or leave the gate off."
        )
    return None


def segment(
    volume: Volume, cascade: Cascade, options: Options | None = None, progress: Progress | None = None
) -> Result:
    """Segments liver and lesions of a CT volume.

    Args:
        volume: the CT.
        cascade: the models.
        options: choices; None takes the defaults.
        progress: listener and cancellation; its timings end up in the result.

    Returns:
        The result, with labels on exactly ``volume.grid``. Where no liver is found the labels are empty and a finding
        says so.

    Raises:
        Cancelled: the user cancelled.
        ResourceError: memory ran out, on every rung of the ladder.
    """
    options, progress = options or Options(), progress or Progress()
    with ThreadPoolExecutor(1) as pool:
        # A second for a large volume, which no network has to wait for.
        identity = pool.submit(_identity, volume)
        return _segment(volume, cascade, options, progress, identity)


def _segment(
    volume: Volume, cascade: Cascade, options: Options, progress: Progress, identity: Future[dict[str, Any]]
) -> Result:
    """:func:`segment` with defaults filled in, and with what identifies the input on its way."""
    for stage in cascade.stages:
        stage.forget()
    progress.stage("check")
    known_spacing = cascade.refine.manifest.input_spacing_mm or None
    findings = [*volume.findings, *preflight(volume, known_spacing, cascade.refine.device)]

    if not options.force and any(finding.severity is Severity.ERROR for finding in findings):
        found = _nothing(volume, [*findings, _NOT_SEGMENTED])
    else:
        found = _segment_ct(with_air_around(volume), cascade, options, progress, findings)
        for stage in cascade.stages:
            found.findings.extend(stage.findings)
    liver_ml = float(np.count_nonzero(found.labels)) * volume.grid.voxel_volume_mm3 / 1000
    progress.finish()
    return Result(
        volume=volume,
        labels=found.labels,
        lesions=found.lesions,
        liver_volume_ml=liver_ml,
        findings=tuple(found.findings),
        timings=progress.timings,
        provenance={**_provenance(cascade, options, identity.result()), **found.gate},
        confidences=_lowered(found.confidences, found.gate),
        evidence=found.evidence,
        uncertainty=found.uncertainty,
        structures=found.structures,
    )


@dataclass(eq=False)
class _Found:
    """What the networks found on the input grid; see :class:`.result.Result`."""

    labels: np.ndarray
    findings: list[Finding]
    lesions: tuple[Lesion, ...] = ()
    evidence: dict[int, dict[str, float]] = field(default_factory=dict)
    confidences: dict[int, float] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None
    gate: dict[str, Any] = field(default_factory=dict)
    structures: Structures | None = None


def _nothing(volume: Volume, findings: list[Finding], uncertainty: Uncertainty | None = None) -> _Found:
    return _Found(np.zeros(volume.grid.shape, np.uint8), findings, uncertainty=uncertainty)


def _segment_ct(
    volume: Volume, cascade: Cascade, options: Options, progress: Progress, findings: list[Finding]
) -> _Found:
    """What the cascade finds, and the findings with what was learned on the way."""
    progress.stage("locate")
    located = locate_liver(volume, cascade.locate, options, progress)
    if located is None:
        return _nothing(volume, [*findings, _no_liver(options)])
    findings = [*findings, *judge_orientation(located.mask, located.grid, volume)]
    margin = cascade.margin_mm if options.margin_mm is None else options.margin_mm
    box = volume.grid.box_covering(located.box, located.grid, margin)

    wishes = Wishes(options.binary_prior, options.uncertainty)
    answers = []
    for number, stage in enumerate(cascade.refining):
        progress.stage("refine", number, len(cascade.refining))
        answers.append(stage.refine(volume, box, located, wishes, progress))
    crop = volume.grid.crop(box)
    fused = merged(answers, located, crop)
    uncertainty = None if fused.entropy is None else Uncertainty(fused.entropy, box)

    progress.stage("clean")
    limits = _limits(options.clean_up, cascade.refine.manifest, len(answers) == 1)
    part, lesions = clean(fused.classes, crop, limits, fused.lesion)
    if not part.any():
        return _nothing(volume, [*findings, _no_liver(options)], uncertainty)
    features = _evidence(part, fused, crop) if lesions else {}
    scores = confidences(features, cascade.refine.manifest.calibration)
    sure = [lesion.id for lesion in lesions if scores.get(lesion.id, 1.0) >= limits.min_lesion_confidence]
    if len(sure) < len(lesions):
        part, lesions = only_lesions(part, sure, crop)
        features, scores = _renumbered(features, sure), _renumbered(scores, sure)
    said, doubts = _ask_gate(volume, located, cascade.gate, options) if lesions else ({}, [])
    findings = [*findings, *doubts]
    if doubts and options.gate == "drop":
        part, lesions, features, scores = np.minimum(part, LIVER_LABEL), (), {}, {}
    density = judge_density(volume.array[box.slices][part == LIVER_LABEL])
    labels, lesions = _paste(part, lesions, box, volume.grid)
    findings = [*settled(findings, judge_coverage(labels, volume.grid)), *density]
    structures = _more_structures(answers, cascade.refining, box)
    return _Found(labels, findings, lesions, features, scores, uncertainty, said, structures)


def _renumbered(by_id: dict[int, Any], kept: Sequence[int]) -> dict[int, Any]:
    """Values by the new ids of the lesions that are kept, as :func:`.postprocess.only_lesions` counts them."""
    return {number: by_id[lesion_id] for number, lesion_id in enumerate(kept, start=1) if lesion_id in by_id}


def _limits(wanted: CleanUp, manifest: Manifest, alone: bool) -> CleanUp:
    """What counts as a doubt, where the user has not said it; a model's own limits are for its own lesions alone."""
    own = {name: getattr(manifest, name) if alone else 0.0 for name in ("min_lesion_peak", "min_lesion_confidence")}
    return replace(wanted, **{name: value for name, value in own.items() if getattr(wanted, name) is None})


def _more_structures(answers: Sequence[Answer], stages: Sequence[Stage], box: Box) -> Structures | None:
    """What the refine stages drew beside liver and lesions."""
    couinaud, model = None, ""
    for answer, stage in zip(answers, stages, strict=True):
        if couinaud is None and answer.has(COUINAUD):
            names = {name: value for value, name in answer.structures.items() if name.startswith(COUINAUD)}
            segments = couinaud_channels(names)
            table = np.zeros(256, np.uint8)
            table[list(segments)] = list(segments.values())
            couinaud, model = table[answer.classes], stage.manifest.title
    vessels = drawn(answers, "vessel")
    if couinaud is None and vessels is None:
        return None
    return Structures(box, couinaud, model, None if vessels is None else vessels.astype(np.uint8))


def _ask_gate(
    volume: Volume, located: Located, gate: Gate | None, options: Options
) -> tuple[dict[str, Any], list[Finding]]:
    """What the gate says of the liver, for the provenance, and a finding where it sees no lesion."""
    if gate is None or options.gate == "off":
        return {}, []
    probability = gate.probability(volume.array, volume.grid, located.probability, located.grid, located.box)
    said = {"gate": {"mode": options.gate, "probability": probability, "threshold": gate.threshold}}
    if probability >= gate.threshold:
        return said, []
    figures = f"(score {probability:.2f}, threshold {gate.threshold:.2f})"
    if options.gate == "drop":
        text = f"The lesions were dropped, because the gate takes this liver for free of lesions {figures}. "
    else:
        text = f"The gate takes this liver for free of lesions {figures}: the lesions may be false. "
    # A finding that shows what an automatic rule did has to be seen.
    return said, [Finding("gate-sees-no-lesion", Severity.WARNING, text + "Look at the liver yourself.")]


def _lowered(found: dict[int, float], said: dict[str, Any]) -> dict[int, float]:
    """Confidences times how far the gate's score is below its threshold; as they are where it is not below."""
    gate = said.get("gate")
    if gate is None or gate["probability"] >= gate["threshold"]:
        return found
    share = gate["probability"] / gate["threshold"]
    return {number: confidence * share for number, confidence in found.items()}


def locate_liver(volume: Volume, stage: Stage, options: Options, progress: Progress) -> Located | None:
    """Finds the liver on the whole volume; None where nothing plausible is found."""
    import torch

    probability, grid = stage.locate(volume, progress)
    mask = _plausible_component(probability.numpy(), grid, options.min_liver_ml)
    if mask is None:
        return None
    # What the network was unsure of around the component stays; other components are gone.
    reach = [2 * round(15 / s) + 1 for s in grid.spacing[::-1]]
    near = torch.from_numpy(mask).float()[None, None]
    for axis, size in enumerate(reach):
        kernel = [size if a == axis else 1 for a in range(3)]
        near = torch.nn.functional.max_pool3d(near, kernel, 1, [n // 2 for n in kernel])
    return Located(probability * near[0, 0], mask, grid, Box.around(mask))


def _plausible_component(probability: np.ndarray, grid: Grid, min_ml: float) -> np.ndarray | None:
    """The component with the most probability mass, if it is large enough for a liver or a part of one."""
    numbers, sizes = components(probability > 0.5)
    if not sizes.size:
        return None
    mass = np.bincount(numbers.ravel(), weights=probability.ravel())[1:]
    best = int(np.argmax(mass))
    if sizes[best] * grid.voxel_volume_mm3 / 1000 < min_ml:
        return None
    return numbers == best + 1


def _evidence(part: np.ndarray, fused: Answer, crop: Grid) -> dict[int, dict[str, float]]:
    """What speaks for each lesion of ``part``, the cleaned labels on ``crop``."""
    # Cleaning takes lesions away and adds none, so that these voxels are all that there are.
    where = np.flatnonzero(fused.classes == LESION_CLASS)
    doubt = fused.lesion_doubt
    spread = doubt[:, 1] if doubt.shape[1] > 1 else None
    halo = halo_means(fused.lesion, fused.classes > 0)
    labels, likely, halo = (values.reshape(-1)[where] for values in (part, fused.lesion, halo))
    return evidence(labels, likely, doubt[:, 0], crop, spread, halo)


def _paste(part: np.ndarray, lesions: Sequence[Lesion], box: Box, grid: Grid) -> tuple[np.ndarray, tuple[Lesion, ...]]:
    """Labels of the box back on the input grid, and the lesions' boxes with them."""
    labels = np.zeros(grid.shape, part.dtype)
    labels[box.slices] = part
    moved = []
    for lesion in lesions:
        start, stop = (np.array(corner) + box.start for corner in (lesion.box.start, lesion.box.stop))
        moved.append(replace(lesion, box=Box(tuple(start.tolist()), tuple(stop.tolist()))))
    return labels, tuple(moved)


_NOT_SEGMENTED = Finding(
    "not-segmented",
    Severity.WARNING,
    "Nothing was segmented, because the values are not those of a CT. Force it (--force) only if you know better.",
)


def _no_liver(options: Options) -> Finding:
    return Finding(
        "no-liver",
        Severity.WARNING,
        f"No liver was found: nothing on this scan looks like at least {options.min_liver_ml:.0f} mL of liver. "
        "Check that it is a CT of the abdomen with its patient orientation intact.",
    )


def _identity(volume: Volume) -> dict[str, Any]:
    """What tells the input from every other one."""
    return {
        **volume.source,
        "size": volume.grid.size,
        "ijk_to_ras": volume.grid.ijk_to_ras.tolist(),
        "voxels_sha256": exhausted(volume.sha256_steps()),
    }


def _provenance(cascade: Cascade, options: Options, identity: dict[str, Any]) -> dict[str, Any]:
    """Everything that is needed to say later how a result came about."""
    versions = {"LiverCascade": __version__, "Python": platform.python_version()}
    for package in ("torch", "monai", "SimpleITK", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    calibration = cascade.refine.manifest.calibration
    models = [
        {
            "id": stage.manifest.id,
            "role": stage.manifest.role,
            "version": stage.manifest.version,
            "sha256": stage.manifest.weights_sha256,
            "device": stage.device,
            "overlap": getattr(stage, "overlap", None),
            "windows": getattr(stage, "windows", None),
            "forward_seconds": round(getattr(stage, "forward_seconds", 0.0), 3),
        }
        for stage in (*cascade.stages, *([] if cascade.gate is None else [cascade.gate]))
    ]
    return {
        "models": models,
        "software": versions,
        "parameters": asdict(options),
        "input": identity,
        "confidence": None if calibration is None else calibration.identity(),
    }
