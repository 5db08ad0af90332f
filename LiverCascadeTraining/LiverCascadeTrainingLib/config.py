"""Training configurations: YAML files, validated, with every default written out beside the trained weights."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .lesions import LesionRanges
from .looks import SampleSpec


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run.

    Attributes:
        model_id, title, role, version: as in the manifest.
        architecture, arguments: as in the manifest.
        spacing_mm, patch_size: along (R, A, S).
        window_hu: see :class:`LiverCascadeLib.models.Manifest`.
        margin_mm, overlap, min_lesion_peak, input_spacing_mm: written into the manifest.
        steps: optimizer steps.
        batch_size: samples per step.
        learning_rate: peak of the one-cycle schedule (linear warm-up, cosine decay).
        weight_decay, gradient_clip: of AdamW; largest norm of the gradient.
        ema_decay: of the exponential moving average of the weights, which is what is exported.
        seed: of everything random.
        checkpoint_every, log_every: steps.
        real_share, negative_share, centered_share, lesion_radius_mm, lesion_chance: of the samples.
        lesion_bright_chance, lesion_patchy_chance, false_lesion_weight: see :class:`.lesions.LesionRanges` and
            :func:`.losses.cascade_loss`.
        gentle_prior_steps: steps in which the imitated prior is nearly right; see
            :func:`.priors.imitate_prior`.
        located_share, vessel_contrast_chance: see :class:`.looks.SampleSpec`.
        located_looks: how often the locate network looks at each synthetic case for the priors; four times as often
            at each real one.
        located_seed: of these looks.
        exclude: names of cases (prefixes) that are not trained on.
    """

    model_id: str
    title: str
    role: str
    architecture: str
    arguments: dict[str, Any]
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    version: str = "1"
    window_hu: tuple[float, float] = (-175.0, 250.0)
    margin_mm: float = 15.0
    overlap: float = 0.5
    min_lesion_peak: float = 0.0
    input_spacing_mm: tuple[tuple[float, float], ...] = ((0.5, 3.0), (0.5, 3.0), (0.5, 7.0))
    steps: int = 2000
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 5.0
    ema_decay: float = 0.998
    seed: int = 2026
    checkpoint_every: int = 100
    log_every: int = 20
    real_share: float = 0.4
    negative_share: float = 0.05
    centered_share: float = 0.8
    gentle_prior_steps: int = 0
    lesion_radius_mm: tuple[float, float] = (2.5, 42.0)
    lesion_chance: float = 0.75
    lesion_bright_chance: float = 0.15
    lesion_patchy_chance: float = 0.0
    located_share: float = 0.0
    located_looks: int = 2
    located_seed: int = 2028
    vessel_contrast_chance: float = 0.0
    false_lesion_weight: float = 0.0
    exclude: tuple[str, ...] = field(default=())

    @property
    def with_lesions(self) -> bool:
        """Refine models tell lesions from liver; locate models do not."""
        return self.role == "refine"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The network's channels, as in the manifest."""
        return ("ct", "liver_probability") if self.role == "refine" else ("ct",)

    @property
    def labels(self) -> dict[str, int]:
        """The network's output channels, as in the manifest."""
        return {"background": 0, "liver": 1, "lesion": 2} if self.with_lesions else {"background": 0, "liver": 1}

    def sample_spec(self) -> SampleSpec:
        """The samples that this configuration trains on."""
        return SampleSpec(
            spacing_mm=self.spacing_mm,
            patch_size=self.patch_size,
            window_hu=self.window_hu,
            with_prior="liver_probability" in self.inputs,
            with_lesions=self.with_lesions,
            real_share=self.real_share,
            negative_share=self.negative_share,
            centered_share=self.centered_share,
            gentle_prior_until=self.gentle_prior_steps * self.batch_size,
            lesions=LesionRanges(
                self.lesion_radius_mm,
                self.lesion_chance,
                bright_chance=self.lesion_bright_chance,
                patchy_chance=self.lesion_patchy_chance,
            ),
            located_share=self.located_share,
            vessel_contrast_chance=self.vessel_contrast_chance,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def load_config(path: Path | str) -> TrainingConfig:
    """Reads a YAML configuration.

    Raises:
        ValueError: unknown or missing keys; the message names the nearest known key.
    """
    import yaml

    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a YAML mapping of settings.")
    known = {f.name: f for f in fields(TrainingConfig)}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: unknown setting {key!r}.{hint}")
    try:
        return TrainingConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
