"""What decides a classification run: a YAML file in sections, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LiverCascadeLib.models.manifest import LEVELS, MASKS

from ..lesions import LesionRanges
from ..names import SettingError, check_name, check_number
from ..training.config import ModelSection, load_settings, write_yaml
from ..training.reading import plain, settings_from

ROLE = "classify"
# Blocks of each stage, and whether they are bottlenecks (He et al. 2016, arXiv:1512.03385, table 1).
RESNETS = {
    "resnet10": ((1, 1, 1, 1), "basic"),
    "resnet18": ((2, 2, 2, 2), "basic"),
    "resnet34": ((3, 4, 6, 3), "basic"),
    "resnet50": ((3, 4, 6, 3), "bottleneck"),
}


@dataclass(frozen=True)
class NetworkSection:
    """A ResNet; nothing is fetched, it begins with random weights.

    Attributes:
        name: 'resnet10', 'resnet18', 'resnet34' or 'resnet50'; of 2D filters for slices, of 3D filters for cases.
        width: channels of the first stage; each further stage has twice as many.
        context: slices on either side that the network sees with each; 0 for cases.
        fine: begin without halving the resolution twice, for coarse grids, on which small lesions are a few voxels;
            several times slower.
    """

    name: str = "resnet18"
    width: int = 64
    context: int = 1
    fine: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, RESNETS, "ResNet")
        check_number(self.width, "width", 1, whole=True)
        check_number(self.context, "context", 0, 8, whole=True)


@dataclass(frozen=True)
class GridSection:
    """The block around the liver that is judged.

    Attributes:
        spacing_mm, patch_size: of the block along (R, A, S); a liver that does not fit in is cut, which is told.
        window_hu: clipped to and scaled to 0…1.
    """

    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 5.0)
    patch_size: tuple[int, int, int] = (144, 128, 48)
    window_hu: tuple[float, float] = (-75.0, 225.0)

    def __post_init__(self) -> None:
        for value in self.spacing_mm:
            check_number(value, "spacing_mm", 0.3, 20)
        for value in self.patch_size:
            check_number(value, "patch_size", 8, whole=True)
        if self.window_hu[0] >= self.window_hu[1]:
            raise SettingError(f"window_hu is {list(self.window_hu)}, expected two rising numbers.")


@dataclass(frozen=True)
class LabelSection:
    """When something counts as holding a lesion.

    Attributes:
        least_lesion_mm2: slices with less lesion than this, but some, are neither trained on nor judged.
        least_lesion_ml: the same for cases.
        top: the mean of so many highest slices is a liver's figure.
    """

    least_lesion_mm2: float = 20.0
    least_lesion_ml: float = 0.05
    top: int = 3

    def __post_init__(self) -> None:
        check_number(self.least_lesion_mm2, "least_lesion_mm2", 0)
        check_number(self.least_lesion_ml, "least_lesion_ml", 0)
        check_number(self.top, "top", 1, whole=True)


@dataclass(frozen=True)
class SyntheticSection:
    """Livers of synthetic bodies, and of real healthy CTs, with and without synthetic lesions.

    Attributes:
        use: whether there are any.
        livers: looks of each body; every second one has lesions.
        lesions: their sizes and counts; ``chance`` has no meaning here.
        shares: of the patients in training, validation and test.
        exclude: names of bodies (prefixes) that are not used.
    """

    use: bool = False
    livers: int = 2
    lesions: LesionRanges = field(default_factory=LesionRanges)
    shares: tuple[float, float, float] = (0.6, 0.15, 0.25)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_number(self.livers, "livers", 2, whole=True)
        for value in self.shares:
            check_number(value, "shares", 0, 1)
        if abs(sum(self.shares) - 1) > 1e-6 or not self.shares[0] or not self.shares[2]:
            raise SettingError(
                f"shares are {list(self.shares)}, expected three that add up to 1, for training and test above 0."
            )


@dataclass(frozen=True)
class TrainingSection:
    """How it is trained.

    Attributes:
        steps, batch_size, learning_rate, weight_decay: AdamW; the rate falls to 0 along a cosine.
        label_smoothing: of the cross entropy.
        turn_degrees, zoom, shift, gain, offset_hu, noise_hu: augmentation: largest turn about S, zoom and shift (share
            of the block), change of the liver's values; standard deviation of the noise at most.
        seed: of everything random; the further seeds of a comparison follow it.
        split_seed: decides which synthetic patients are in which part, the same for all seeds.
        deterministic: only algorithms that give the same bits each time.
    """

    steps: int = 4000
    batch_size: int = 16
    learning_rate: float = 0.0005
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    turn_degrees: float = 12.0
    zoom: float = 0.1
    shift: float = 0.06
    gain: float = 0.1
    offset_hu: float = 15.0
    noise_hu: float = 6.0
    seed: int = 2026
    split_seed: int = 2026
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            check_number(getattr(self, name), name, 1, whole=True)
        check_number(self.learning_rate, "learning_rate", 0, low_included=False)
        for name in ("weight_decay", "turn_degrees", "offset_hu", "noise_hu"):
            check_number(getattr(self, name), name, 0)
        for name in ("label_smoothing", "zoom", "shift", "gain"):
            check_number(getattr(self, name), name, 0, 1, high_included=False)
        for name in ("seed", "split_seed"):
            check_number(getattr(self, name), name, 0, whole=True)


@dataclass(frozen=True)
class GateSection:
    """The use as a gate.

    Attributes:
        sensitivity: share of the validation's livers with lesions that must stay above the threshold.
    """

    sensitivity: float = 0.95

    def __post_init__(self) -> None:
        check_number(self.sensitivity, "sensitivity", 0.5, 1)


@dataclass(frozen=True)
class ClassifyConfig:
    """A configuration; see the sections.

    Attributes:
        role: 'classify'.
        level: 'slice': a 2D network judges slices, and a case by its highest ones; 'case': a 3D network judges the
            whole liver at once.
        mask: 'soft' or 'binary': what a run without a comparison uses, and what is exported.
        prepared: whether prepared data sets are used.
    """

    role: str
    model: ModelSection
    level: str = "slice"
    mask: str = "soft"
    prepared: bool = True
    synthetic: SyntheticSection = field(default_factory=SyntheticSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    grid: GridSection = field(default_factory=GridSection)
    labels: LabelSection = field(default_factory=LabelSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    gate: GateSection = field(default_factory=GateSection)

    def __post_init__(self) -> None:
        check_name(self.role, (ROLE,), "role")
        check_name(self.level, LEVELS, "level")
        check_name(self.mask, MASKS, "mask")
        if not self.prepared and not self.synthetic.use:
            raise SettingError("prepared and synthetic.use are both false: there is nothing to train on.")

    @property
    def context(self) -> int:
        """Slices on either side that the network sees; none where it sees the whole liver."""
        return self.network.context if self.level == "slice" else 0

    def architecture(self) -> tuple[str, dict[str, Any]]:
        """Architecture and arguments, for the manifest and the engine's ``build_network``."""
        blocks, kind = RESNETS[self.network.name]
        return "ResNet", {
            "block": kind,
            "layers": list(blocks),
            "block_inplanes": [self.network.width * 2**stage for stage in range(4)],
            "spatial_dims": 2 if self.level == "slice" else 3,
            "n_input_channels": 2 * self.context + 1,
            "conv1_t_size": 3 if self.network.fine else 7,
            "conv1_t_stride": 1 if self.network.fine else 2,
            "no_max_pool": self.network.fine,
            "num_classes": 2,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values with every default written out."""
        return plain(self)

    def save(self, path: Path) -> None:
        """Writes the configuration in full."""
        write_yaml(path, self.as_dict())


def config_from(content: Mapping[str, Any]) -> ClassifyConfig:
    """A configuration from plain values.

    Raises:
        SettingError: unknown, missing, of another type, or out of range.
    """
    return settings_from(ClassifyConfig, content)


def load_config(path: Path | str) -> ClassifyConfig:
    """Reads a YAML configuration; errors as :func:`..training.config.load_settings` raises them."""
    return load_settings(ClassifyConfig, path)
