"""What decides a training run: a YAML file in sections, checked before anything is computed."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import ARCHITECTURES

from ..data.augmentation import AugmentationSpec
from ..data.cache import PrepareSettings
from ..data.patches import PatchSpec
from ..data.sampling import SamplingSpec
from ..lesions import LesionRanges
from ..looks import SampleSpec
from ..losses import build_loss
from ..names import SettingError, check_name, check_number
from ..networks import build, labels_of
from ..optimizers import OPTIMIZERS, build_schedule, optimizer_settings
from .reading import Settings, plain, settings_from

ROLES = ("locate", "refine")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
MONITORS = ("dice", "dice_liver", "dice_lesion")
METHODS = ("none", "mean-teacher", "pseudo-labels")


@dataclass(frozen=True)
class ModelSection:
    """The model's manifest.

    Attributes:
        id, title, version, license: as in the manifest.
        training_data: one line for each source of training data, with its license.
    """

    id: str
    title: str
    version: str = "1"
    license: str = "not stated"
    training_data: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkSection:
    """The network, by preset or in full.

    Attributes:
        preset: name of a preset (:data:`..networks.PRESETS`), whose arguments ``arguments`` change.
        architecture: instead: name from the engine's allow-list, whose arguments ``arguments`` are.
        arguments: see above; with a preset also ``levels`` and ``context``.
    """

    preset: str | None = None
    architecture: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.architecture is None):
            raise SettingError("name either a preset or an architecture.")
        if self.architecture is not None:
            check_name(self.architecture, ARCHITECTURES, "architecture")


@dataclass(frozen=True)
class GridSection:
    """What the network sees.

    Attributes:
        spacing_mm, patch_size: along (R, A, S).
        window_hu, margin_mm, overlap, min_lesion_peak, min_lesion_confidence, input_spacing_mm: as in the manifest.
        liver_contrast: refine models: a third channel shows densities around the liver's own.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float] = (-175.0, 250.0)
    margin_mm: float = 15.0
    overlap: float = 0.5
    min_lesion_peak: float = 0.0
    min_lesion_confidence: float = 0.0
    input_spacing_mm: tuple[tuple[float, float], ...] = ((0.5, 3.0), (0.5, 3.0), (0.5, 7.0))
    liver_contrast: bool = False

    def __post_init__(self) -> None:
        for value in self.spacing_mm:
            check_number(value, "spacing_mm", 0.1, 20)
        for value in self.patch_size:
            check_number(value, "patch_size", 8, whole=True)
        if self.window_hu[0] >= self.window_hu[1]:
            raise SettingError(f"window_hu is {list(self.window_hu)}, expected two rising numbers.")
        check_number(self.margin_mm, "margin_mm", 0)
        check_number(self.overlap, "overlap", 0, 1, high_included=False)
        check_number(self.min_lesion_peak, "min_lesion_peak", 0, 1, high_included=False)
        check_number(self.min_lesion_confidence, "min_lesion_confidence", 0, 1, high_included=False)


@dataclass(frozen=True)
class PreparedSection:
    """Samples from prepared data sets.

    Attributes:
        share: of the samples; the shares of the sources need not add up to 1.
        around_liver_mm: how ``prepare`` cuts the cases; None keeps whole scans.
        sampling, augmentation, synthetic_chance, lesions, prior: see :class:`..data.patches.PatchSpec`.
        gentle_prior_steps: steps in which imitated priors are nearly right.
    """

    share: float = 1.0
    around_liver_mm: float | None = None
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    synthetic_chance: float = 0.0
    lesions: LesionRanges = field(default_factory=LesionRanges)
    prior: str = "imitated"
    gentle_prior_steps: int = 0

    def __post_init__(self) -> None:
        check_number(self.share, "share", 0)
        check_number(self.gentle_prior_steps, "gentle_prior_steps", 0, whole=True)


@dataclass(frozen=True)
class SyntheticSection:
    """Samples from synthetic bodies and from real CTs with synthetic lesions.

    Attributes:
        share: of the samples; the shares of the sources need not add up to 1.
        real_share, negative_share, centered_share, vessel_contrast_chance, located_share, located_errors,
            lesions_beside_unknown, neighbor_contrast_chance, least_lesion_contrast: see :class:`..looks.SampleSpec`.
        real_weights: how often single real cases come, against 1 for those that are not named.
        lesions: sizes and counts.
        gentle_prior_steps: steps in which imitated priors are nearly right.
        located_looks, located_seed: how often the locate network looks at each synthetic case for the priors (four
            times as often at each real one), and with which seed.
        exclude: names of cases (prefixes) that are not trained on.
    """

    share: float = 0.0
    real_share: float = 0.4
    negative_share: float = 0.05
    centered_share: float = 0.8
    vessel_contrast_chance: float = 0.0
    lesions: LesionRanges = field(default_factory=LesionRanges)
    gentle_prior_steps: int = 0
    located_share: float = 0.0
    located_errors: float = 1.0
    located_looks: int = 2
    located_seed: int = 2028
    exclude: tuple[str, ...] = ()
    lesions_beside_unknown: bool = False
    neighbor_contrast_chance: float = 0.0
    least_lesion_contrast: float = 0.0
    real_weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number(self.share, "share", 0)
        for name in (
            "real_share",
            "negative_share",
            "centered_share",
            "vessel_contrast_chance",
            "located_share",
            "located_errors",
            "neighbor_contrast_chance",
        ):
            check_number(getattr(self, name), name, 0, 1)
        check_number(self.least_lesion_contrast, "least_lesion_contrast", 0)
        check_number(self.gentle_prior_steps, "gentle_prior_steps", 0, whole=True)
        check_number(self.located_looks, "located_looks", 1, whole=True)
        for name, weight in self.real_weights.items():
            check_number(weight, f"real_weights.{name}", 0)


@dataclass(frozen=True)
class Choice:
    """Something chosen by name.

    Attributes:
        name: of it.
        arguments: settings that are to be others than its defaults.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSection:
    """How it is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: samples per pass, over all devices together: a run does not depend on their number.
        accumulate: passes per step.
        gradient_clip: largest norm of the gradient; 0 leaves it alone.
        precision: '32', 'bf16' or '16' (GPU only), mixed.
        ema_decay: of the exponential moving average of the weights, which is validated and exported.
        seed: of everything random.
        checkpoint_every, log_every: steps.
        deterministic: only algorithms that give the same bits each time; slower on a GPU.
        channels_last: memory order of the weights; up to three times as fast for strided 3D convolutions on the CPU.
    """

    steps: int = 20000
    batch_size: int = 2
    accumulate: int = 1
    gradient_clip: float = 5.0
    precision: str = "bf16"
    ema_decay: float = 0.998
    seed: int = 2026
    checkpoint_every: int = 100
    log_every: int = 20
    deterministic: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "log_every"):
            check_number(getattr(self, name), name, 1, whole=True)
        check_number(self.gradient_clip, "gradient_clip", 0)
        check_name(self.precision, PRECISIONS, "precision")
        check_number(self.ema_decay, "ema_decay", 0, 1, high_included=False)
        check_number(self.seed, "seed", 0, whole=True)


@dataclass(frozen=True)
class ValidationSection:
    """How it is judged on the way.

    Attributes:
        every: steps between validations: an epoch. ``training.steps`` is a multiple of it.
        cases: at most so many cases of the split's validation part, evenly chosen; 0 takes all.
        overlap: of the windows; less than for use, because it is only for comparing weights.
        monitor: what the best checkpoints are best at: 'dice' (mean of what there is), 'dice_liver', 'dice_lesion'.
        keep: so many best checkpoints are kept.
        patience: validations without a better one after which training stops early; 0 never stops.
        sweep: write an animated sweep through the first case at each validation.
    """

    every: int = 250
    cases: int = 0
    overlap: float = 0.25
    monitor: str = "dice"
    keep: int = 3
    patience: int = 0
    sweep: bool = True

    def __post_init__(self) -> None:
        check_number(self.every, "every", 1, whole=True)
        check_number(self.cases, "cases", 0, whole=True)
        check_number(self.overlap, "overlap", 0, 1, high_included=False)
        check_name(self.monitor, MONITORS, "figure to monitor")
        check_number(self.keep, "keep", 1, whole=True)
        check_number(self.patience, "patience", 0, whole=True)


@dataclass(frozen=True)
class UnlabeledSection:
    """What is learned from prepared CTs without labels.

    Attributes:
        method: 'none'; 'mean-teacher': the network agrees with its averaged weights under other noise and contrast
            (Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780); 'pseudo-labels': where the averaged weights are
            surer than ``threshold``, their answer counts as label.
        weight: of that part of the loss, reached after ``ramp_steps``.
        ramp_steps: the weight grows as exp(-5 (1 - t)²).
        threshold: see above.
        noise: standard deviation of the noise that only the student sees, of the windowed values 0…1.
    """

    method: str = "none"
    weight: float = 1.0
    ramp_steps: int = 2000
    threshold: float = 0.9
    noise: float = 0.05

    def __post_init__(self) -> None:
        check_name(self.method, METHODS, "method")
        check_number(self.weight, "weight", 0)
        check_number(self.ramp_steps, "ramp_steps", 0, whole=True)
        check_number(self.threshold, "threshold", 0.5, 1, high_included=False)
        check_number(self.noise, "noise", 0, 1)


@dataclass(frozen=True)
class RunConfig:
    """A configuration; see the sections.

    Attributes:
        role: 'locate' or 'refine'.
    """

    role: str
    model: ModelSection
    network: NetworkSection
    grid: GridSection
    prepared: PreparedSection = field(default_factory=PreparedSection)
    synthetic: SyntheticSection = field(default_factory=SyntheticSection)
    loss: Choice = field(default_factory=lambda: Choice("dice-ce"))
    optimizer: Choice = field(default_factory=lambda: Choice("adamw"))
    schedule: Choice = field(default_factory=lambda: Choice("cosine"))
    training: TrainingSection = field(default_factory=TrainingSection)
    validation: ValidationSection = field(default_factory=ValidationSection)
    unlabeled: UnlabeledSection = field(default_factory=UnlabeledSection)

    def __post_init__(self) -> None:
        check_name(self.role, ROLES, "role")
        if not self.prepared.share and not self.synthetic.share:
            raise SettingError("prepared.share and synthetic.share are both 0: there is nothing to train on.")
        if self.training.steps % self.validation.every:
            nearest = max(1, round(self.training.steps / self.validation.every)) * self.validation.every
            raise SettingError(
                f"training.steps is {self.training.steps}, expected a multiple of validation.every "
                f"({self.validation.every}) such as {nearest}."
            )
        if self.grid.liver_contrast and self.role != "refine":
            raise SettingError("grid.liver_contrast needs to know where the liver is: it is for refine models.")
        if self.couinaud and self.synthetic.share:
            raise SettingError("Synthetic bodies have no Couinaud segments: set synthetic.share to 0.")
        self.architecture()
        build_loss(self.loss.name, labels=self.channels, **self.loss.arguments)
        self.patch_spec()
        self._check_optimizer()
        build_schedule(self.schedule.name, self.training.steps, **self.schedule.arguments)

    def _check_optimizer(self) -> None:
        import torch

        from ..optimizers import build_optimizer

        check_name(self.optimizer.name, OPTIMIZERS, "optimizer")
        build_optimizer(self.optimizer.name, [torch.nn.Parameter(torch.zeros(1))], **self.optimizer.arguments)

    @property
    def with_lesions(self) -> bool:
        """Refine models tell lesions from liver; locate models do not."""
        return self.role == "refine"

    @property
    def channels(self) -> int:
        """Channels of the labels."""
        return 3 if self.with_lesions else 2

    @property
    def inputs(self) -> tuple[str, ...]:
        """The network's channels, as in the manifest."""
        if self.role != "refine":
            return ("ct",)
        return ("ct", "liver_probability", "liver_contrast")[: 3 if self.grid.liver_contrast else 2]

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels of a multi-level network; none for others."""
        architecture, arguments = self.architecture()
        while architecture == "SliceWise":
            architecture, arguments = arguments["architecture"], arguments["arguments"]
        return tuple(arguments["levels"]) if architecture == "MultiLevel" else ()

    @property
    def couinaud(self) -> bool:
        """Whether the network also answers with Couinaud segments."""
        return "couinaud" in self.levels

    @property
    def labels(self) -> dict[str, int]:
        """The network's output channels, as in the manifest."""
        return labels_of(("liver", "lesion") if self.with_lesions else ("liver",))

    def architecture(self) -> tuple[str, dict[str, Any]]:
        """Architecture and arguments, for the manifest and the engine's ``build_network``."""
        if self.network.architecture is not None:
            return self.network.architecture, self.network.arguments
        return build(
            self.network.preset,
            len(self.inputs),
            self.channels,
            self.grid.patch_size,
            self.grid.spacing_mm,
            **self.network.arguments,
        )

    def patch_spec(self, unlabeled: bool = False) -> PatchSpec:
        """Samples of prepared cases; of those without labels, which are taken anywhere."""
        prepared = self.prepared
        gentle = prepared.gentle_prior_steps * self.training.accumulate * self.training.batch_size
        return PatchSpec(
            patch_size=self.grid.patch_size,
            inputs=self.inputs,
            window_hu=self.grid.window_hu,
            sampling=SamplingSpec("random") if unlabeled else prepared.sampling,
            augmentation=prepared.augmentation,
            synthetic_chance=0.0 if unlabeled else prepared.synthetic_chance,
            lesions=prepared.lesions,
            prior="located" if unlabeled and self.with_lesions else prepared.prior,
            gentle_prior_until=gentle,
            couinaud=self.couinaud and not unlabeled,
        )

    def sample_spec(self) -> SampleSpec:
        """Samples of synthetic bodies."""
        synthetic = self.synthetic
        return SampleSpec(
            spacing_mm=self.grid.spacing_mm,
            patch_size=self.grid.patch_size,
            window_hu=self.grid.window_hu,
            inputs=self.inputs,
            with_lesions=self.with_lesions,
            real_share=synthetic.real_share,
            negative_share=synthetic.negative_share,
            centered_share=synthetic.centered_share,
            gentle_prior_until=synthetic.gentle_prior_steps * self.training.accumulate * self.training.batch_size,
            lesions=synthetic.lesions,
            located_share=synthetic.located_share,
            located_errors=synthetic.located_errors,
            vessel_contrast_chance=synthetic.vessel_contrast_chance,
            lesions_beside_unknown=synthetic.lesions_beside_unknown,
            neighbor_contrast_chance=synthetic.neighbor_contrast_chance,
            least_lesion_contrast=synthetic.least_lesion_contrast,
        )

    def prepare_settings(self) -> PrepareSettings:
        """How the cases of this run are prepared."""
        return PrepareSettings(self.grid.spacing_mm, self.prepared.around_liver_mm)

    def as_dict(self) -> dict[str, Any]:
        """Plain values with every default written out."""
        content = plain(self)
        content["optimizer"]["arguments"] = plain(
            {**optimizer_settings(self.optimizer.name), **self.optimizer.arguments}
        )
        return content

    def save(self, path: Path) -> None:
        """Writes the configuration in full."""
        write_yaml(path, self.as_dict())


def config_from(content: Mapping[str, Any]) -> RunConfig:
    """A configuration from plain values.

    Raises:
        SettingError: unknown, missing, of another type, or out of range.
    """
    return settings_from(RunConfig, content)


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Writes settings, under a temporary name first."""
    import yaml

    part = path.with_name(path.name + ".part")
    part.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(part, path)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The content of a YAML file of settings.

    Raises:
        InputError: it cannot be read, or is no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration {path} is no valid YAML: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no YAML mapping of settings.")
    return content


def load_settings(kind: type[Settings], path: Path | str) -> Settings:
    """Reads a YAML configuration of any kind.

    Raises:
        InputError: it cannot be read.
        SettingError: a setting that cannot be used; the message names it, and the nearest known one.
    """
    try:
        return settings_from(kind, read_yaml(path))
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def load_run_config(path: Path | str) -> RunConfig:
    """Reads the YAML configuration of a run; errors as :func:`load_settings` raises them."""
    return load_settings(RunConfig, path)


def changes_from(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Settings and their values from 'setting=value|value'; values are read as YAML.

    Raises:
        SettingError: a text of another form.
    """
    import yaml

    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not name or not values:
            raise SettingError(f"The change {text!r} is not of the form setting=value|value.")
        try:
            grid[name.strip()] = [yaml.safe_load(value) for value in values.split("|")]
        except yaml.YAMLError as error:
            raise SettingError(f"The values of {name} cannot be read: {error}.") from None
    return grid


def changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's plain values with dotted settings replaced; empty sections are made."""
    result = copy.deepcopy(dict(content))
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingError(f"{name} lies in no section of settings.")
        place[key] = value
    return result


def changed_config(path: Path | str, changes: Sequence[str]) -> RunConfig:
    """Reads a YAML configuration, and changes single settings.

    Args:
        path: the file.
        changes: 'setting=value' each.

    Raises:
        InputError: it cannot be read.
        SettingError: a setting that cannot be used.
    """
    if not changes:
        return load_run_config(path)
    values = changes_from(changes)
    several = [name for name, entries in values.items() if len(entries) > 1]
    if several:
        raise SettingError(f"{', '.join(several)} has several values; a run takes one. 'ablate' tries several.")
    return config_from(changed(read_yaml(path), {name: entries[0] for name, entries in values.items()}))
