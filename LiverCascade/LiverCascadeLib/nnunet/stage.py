"""An nnU-Net model as a stage of the cascade."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ModelError
from ..fusing import COUINAUD, Answer, answer_of
from ..geometry import Box, Grid, resample
from ..ladder import Laddered, MemoryLadder
from ..located import Located
from ..models import Manifest, build_network
from ..models.stage_file import StageFile
from ..orientation import oriented
from ..predictor import autocast_dtype
from ..progress import Progress
from ..separable import Matrices, iter_resampled
from ..stages import Wishes
from ..volume import Volume
from ..windows import iter_blended, touching, window_starts, windows_at_once, windows_over
from .checkpoint import fitting, folds_in, read_checkpoint
from .plans import Plan, read_plan
from .preprocessing import new_shape, normalize, resample_image, resampling_matrices

if TYPE_CHECKING:
    import torch

# nnU-Net's own distance of windows, and the share of a patch by which the fast mode has them overlap at least.
FAITHFUL_OVERLAP, FAST_OVERLAP = 0.5, 0.33
# Of more outputs than this, the fast mode keeps those that are asked for, and the best of the others.
MOST_OUTPUTS = 16
# A logit that decides; what no window sees is background.
NEVER = 20.0
# Where the located liver with its margin has less than this share of a voxel, nothing is drawn.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class _Input:
    """The network's image and the way back.

    Attributes:
        image: normalized, float32 [k, j, i] on ``grid``.
        grid: the network's.
        inner: what nnU-Net's crop leaves of the turned voxels of the box, as slices.
        back: from the network's grid to ``inner``.
    """

    image: torch.Tensor
    grid: Grid
    inner: tuple[slice, slice, slice]
    back: Matrices


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What stands on the voxels of the box, [k, j, i].

    Attributes:
        labels: the model's own values, uint8.
        lesion: probability of lesion, float16; None where the model does not tell lesions apart.
        entropy: of the classes, 0…1, float16; None where nobody asks.
    """

    labels: np.ndarray
    lesion: np.ndarray | None
    entropy: np.ndarray | None


class NnUnetStage(Laddered):
    """Runs an nnU-Net model.

    'Faithful' computes what ``nnUNetPredictor`` computes on the same voxels: float32 on the CPU, windows half a patch
    apart, all labels, mirrored copies where its owners use them. 'Fast' computes in reduced precision where that is
    native, lays as few windows as cover the region, and keeps the labels that are asked for. Either passes over
    windows far from the located liver, and fuses logits: where windows disagree, a mean of probabilities decides
    otherwise than nnU-Net.

    Args:
        model: the model and how it is used.
        device: 'cpu', 'cuda' or 'cuda:N'.
        faithful: see above.
        thorough: also average over mirrored copies where the model was trained for it, in the fast mode too.
        overlap: of neighboring windows, 0 ≤ overlap < 1; None takes the mode's.

    Raises:
        ModelError: the files are missing, altered, damaged, or of a kind that is not run here.
    """

    def __init__(
        self,
        model: StageFile,
        device: str = "cpu",
        faithful: bool = False,
        thorough: bool = False,
        overlap: float | None = None,
    ):
        import torch

        from ..models.memory_order import fastest_order

        model.verify()
        paths = folds_in(model.path, model.checkpoint, model.folds)
        checkpoints = [read_checkpoint(path) for path in paths]
        configuration = model.configuration or checkpoints[0].configuration or model.path.name.rpartition("__")[2]
        self.plan = read_plan(model.path, configuration)
        self.faithful = faithful
        usual = FAITHFUL_OVERLAP if faithful else FAST_OVERLAP
        self.overlap = usual if overlap is None else overlap
        wanted = thorough or (faithful and model.mirror)
        self.mirror_axes = checkpoints[0].mirror_axes if wanted else ()
        self.manifest = _manifest(model, self.plan)
        self._model = model
        self._values = _known_values(model, self.plan)
        network = build_network(self.plan.architecture, self.plan.arguments)
        self._folds = [fitting(c.weights, network, path) for c, path in zip(checkpoints, paths, strict=True)]
        network.load_state_dict(self._folds[0])
        if len(self._folds) == 1:
            self._folds = [{}]  # the network has them; what is read through the file's pages counts as memory
        # Sums over channels that come last round otherwise than nnU-Net's.
        exact = faithful and device == "cpu"
        self._layout = torch.contiguous_format if exact else fastest_order(network, device)
        self._network = network.eval().requires_grad_(False).to(device, memory_format=self._layout)
        self._loaded = 0
        batch = windows_at_once(device, self.plan.patch_size, self.plan.arguments["features_per_stage"][0])
        self.ladder = MemoryLadder(model.title, device, batch, self._network.to)

    def locate(self, volume: Volume, progress: Progress) -> tuple[torch.Tensor, Grid]:
        """See :meth:`.Stage.locate`. Lesions and segments of the liver are liver."""
        whole = Box((0, 0, 0), volume.grid.size)
        given = self._input(volume, whole)
        channels = self.ladder.run(lambda: self._channels(given.image, None, progress))
        liver = [channel for part in ("liver", "lesion", COUINAUD) for channel in self._channels_of(part)]
        return _probability(channels, liver, self.plan).cpu(), given.grid

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """See :meth:`.Stage.refine`."""
        region = located.near(self.manifest.margin_mm)
        drawn = self._drawn(volume, box, located, region, wishes, progress)
        near = (resample(region.float(), located.grid, volume.grid.crop(box), 0.0) >= _LEAST_SHARE).numpy()
        return answer_of(drawn.labels, near, self._values, drawn.lesion, drawn.entropy, wishes.entropy)

    def labels(self, volume: Volume, progress: Progress | None = None) -> np.ndarray:
        """The model's own label values on the voxels of ``volume``, [k, j, i], as nnU-Net would write them."""
        whole = Box((0, 0, 0), volume.grid.size)
        return self._drawn(volume, whole, None, None, Wishes(), progress or Progress()).labels

    def _drawn(
        self,
        volume: Volume,
        box: Box,
        located: Located | None,
        region: torch.Tensor | None,
        wishes: Wishes,
        progress: Progress,
    ) -> _Drawn:
        given = self._input(volume, box)
        wanted = None
        if region is not None:
            wanted = resample(region.float(), located.grid, given.grid, 0.0) >= _LEAST_SHARE
        channels = self.ladder.run(lambda: self._channels(given.image, wanted, progress))
        progress.stage("fuse")
        lesions = self._channels_of("lesion")
        crop = volume.grid.crop(box)
        drawn = _Drawn(
            np.zeros(crop.shape, np.uint8),
            np.zeros(crop.shape, np.float16) if lesions else None,
            np.zeros(crop.shape, np.float16) if lesions or wishes.entropy else None,
        )
        labels, lesion, entropy = (
            None
            if part is None
            else oriented(part, crop, self._model.orientation, self.plan.transpose)[0][given.inner]
            for part in (drawn.labels, drawn.lesion, drawn.entropy)
        )
        table = self._table()
        for where, slab in iter_resampled(channels, given.back):
            labels[where] = table[_decided(slab, self.plan).cpu().numpy()]
            if lesion is not None:
                lesion[where] = _probability(slab, lesions, self.plan).half().cpu().numpy()
            if entropy is not None:
                entropy[where] = _doubt(slab, self.plan).half().cpu().numpy()
        return drawn

    def _input(self, volume: Volume, box: Box) -> _Input:
        import torch

        plan = self.plan
        array, grid = volume.array[box.slices], volume.grid.crop(box)
        view, grid = oriented(array, grid, self._model.orientation, plan.transpose)
        # nnU-Net cuts away what is exactly 0 around the scan.
        found = Box.around(view != 0) or Box((0, 0, 0), grid.size)
        view, grid = view[found.slices], grid.crop(found)
        image = np.array(view, np.float32, order="C")
        normalize(image, plan.normalization, volume.array)
        spacing = grid.spacing[::-1].tolist()
        shape = new_shape(image.shape, spacing, plan.spacing)
        there = resampling_matrices(image.shape, shape, spacing, plan.spacing, plan.image_resampling)
        back = resampling_matrices(shape, image.shape, plan.spacing, spacing, plan.logits_resampling)
        resampled = resample_image(torch.from_numpy(image).to(self.ladder.store), there)
        return _Input(resampled, grid.with_size(shape[::-1]), found.slices, back)

    def _channels(self, image: torch.Tensor, region: torch.Tensor | None, progress: Progress) -> torch.Tensor:
        """Logits of the kept channels, float32 [c, k, j, i], the mean over all folds."""
        import torch

        patch = self.plan.patch_size
        padding = [max(0, p - n) for p, n in zip(patch, image.shape, strict=True)]
        # nnU-Net pads with 0 after normalization, with what is odd at the end.
        pads = [side for p in reversed(padding) for side in (p // 2, p - p // 2)]
        image = image.to(self.ladder.store)
        padded = (torch.nn.functional.pad(image, pads) if any(pads) else image)[None]
        shown = None if region is None else torch.nn.functional.pad(region, pads).numpy()
        corners = self._corners(padded.shape[1:], shown)
        weight = torch.from_numpy(window_weight(patch)).to(self.ladder.store)
        total = None
        for fold in range(len(self._folds)):
            self._load(fold)
            part = self._blended(padded, corners, weight, progress, fold)
            total = part if total is None else total.add_(part)
        if len(self._folds) > 1:
            total /= len(self._folds)
        inner = tuple(slice(p // 2, p // 2 + n) for p, n in zip(padding, image.shape, strict=True))
        return total[(slice(None), *inner)]

    def _corners(self, shape: Sequence[int], region: np.ndarray | None) -> list[tuple[int, int, int]]:
        patch = self.plan.patch_size
        if self.faithful or region is None:
            starts = [window_starts(n, p, self.overlap) for n, p in zip(shape, patch, strict=True)]
            corners = list(itertools.product(*starts))
            return corners if region is None else touching(region, corners, patch)
        return windows_over(region, patch, self.overlap)

    def _blended(
        self,
        image: torch.Tensor,
        corners: Sequence[tuple[int, int, int]],
        weight: torch.Tensor,
        progress: Progress,
        fold: int,
    ) -> torch.Tensor:
        """The windows of one fold put together; what no window sees is background."""

        def update(share: float) -> None:
            progress.update((fold + share) / len(self._folds))

        kept = len(self._kept())
        ((_, total, unseen),) = iter_blended(image, corners, weight, kept, self._forward, self.ladder, update)
        self.windows += len(corners)
        total[:, unseen] = -NEVER
        if not self.plan.has_regions:
            total[0][unseen] = NEVER
        return total

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        """What is kept of the network's answer, float32 [batch, c, k, j, i]."""
        import torch

        device = self.device
        dtype = autocast_dtype(device)
        if self.faithful:
            # As nnU-Net: half precision on a GPU, none on the CPU.
            dtype = torch.float16 if device.startswith("cuda") else None
        windows = windows.to(device, memory_format=self._layout)
        with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype, enabled=dtype is not None):
            started = time.perf_counter()
            logits = self._mean_over_mirrors(windows)
            kept = self._reduced(logits)
            if device != "cpu":
                torch.cuda.synchronize(device)
            self.forward_seconds += time.perf_counter() - started
            return kept

    def _mean_over_mirrors(self, windows: torch.Tensor) -> torch.Tensor:
        total = self._network(windows).float()
        flips = [
            axes
            for count in range(1, len(self.mirror_axes) + 1)
            for axes in itertools.combinations([axis + 2 for axis in self.mirror_axes], count)
        ]
        for axes in flips:
            total += self._network(windows.flip(axes)).float().flip(axes)
        return total.div_(len(flips) + 1) if flips else total

    def _reduced(self, logits: torch.Tensor) -> torch.Tensor:
        """The kept channels of the network's answer [batch, outputs, k, j, i]."""
        import torch

        kept = self._kept()
        if len(kept) == logits.shape[1]:
            return logits
        others = [channel for channel in range(logits.shape[1]) if channel not in kept[1:]]
        return torch.cat([logits[:, others].amax(dim=1, keepdim=True), logits[:, kept[1:]]], dim=1)

    def _kept(self) -> list[int]:
        """The network's outputs that are kept; where not all are, the first stands for all others."""
        if self.faithful or self.plan.has_regions or self.plan.outputs <= MOST_OUTPUTS:
            return list(range(self.plan.outputs))
        return [0, *sorted(self._values)]

    def _table(self) -> np.ndarray:
        """Label values by kept channel, or by class for models of regions."""
        if self.plan.has_regions:
            return np.arange(256).astype(np.uint8)
        return np.array(self._kept(), np.uint8)

    def _channels_of(self, structure: str) -> list[int]:
        """Kept channels of the structures whose names begin so; of a region those that write one of its values."""
        values = [value for value, name in self._values.items() if name.startswith(structure)]
        written = self.plan.class_order or self._kept()
        return [channel for channel, value in enumerate(written) if value in values]

    def _load(self, fold: int) -> None:
        if fold != self._loaded:
            self._network.load_state_dict(self._folds[fold])
            self._loaded = fold


def window_weight(patch: Sequence[int]) -> np.ndarray:
    """How much each voxel of a window says, float32: nnU-Net's Gaussian with σ = patch / 8, rounded as it does."""
    from scipy import ndimage

    profiles = []
    for size in patch:
        impulse = np.zeros(size)
        impulse[size // 2] = 1
        profiles.append(ndimage.gaussian_filter1d(impulse, size / 8, mode="constant"))
    weight = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
    weight = (weight / weight.max() * 10).astype(np.float16)
    weight[weight == 0] = weight[weight > 0].min()
    return weight.astype(np.float32)


def _decided(logits: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Kept channel of each voxel; for models of regions the label value."""
    import torch

    if not plan.has_regions:
        return logits.argmax(dim=0)
    labels = torch.zeros(logits.shape[1:], dtype=torch.int64, device=logits.device)
    for channel, value in zip(logits, plan.class_order, strict=True):
        labels[channel > 0] = value
    return labels


def _probability(logits: torch.Tensor, wanted: Sequence[int], plan: Plan) -> torch.Tensor:
    """Probability that a voxel belongs to the wanted channels: their sum, or for regions the largest."""
    import torch

    if not wanted:
        return torch.zeros(logits.shape[1:], device=logits.device)
    if plan.has_regions:
        return torch.sigmoid(logits[list(wanted)]).amax(dim=0)
    return torch.softmax(logits, dim=0)[list(wanted)].sum(dim=0).clamp_(0, 1)


def _doubt(logits: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Entropy of the classes as a share of its highest value; of regions that of the least certain one."""
    import torch

    if plan.has_regions:
        shares = torch.sigmoid(logits)
        entropy = torch.special.entr(shares) + torch.special.entr(1 - shares)
        return entropy.amax(dim=0).div_(float(np.log(2)))
    entropy = torch.special.entr(torch.softmax(logits, dim=0)).sum(dim=0)
    return entropy.div_(float(np.log(len(logits)))).clamp_(0, 1)


def _known_values(model: StageFile, plan: Plan) -> dict[int, str]:
    """Structures by label value.

    Raises:
        ModelError: the model has no such label.
    """
    known = {value for values in plan.labels.values() for value in values} | set(plan.class_order)
    names = {value: name for name, values in model.structures.items() for value in values}
    missing = sorted(set(names) - known)
    if missing:
        labels = ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in plan.labels.items())
        raise ModelError(f"The model {model.id} has no label {missing[0]} for '{names[missing[0]]}'. It has {labels}.")
    return names


def _manifest(model: StageFile, plan: Plan) -> Manifest:
    """Who the model is, in the words of the project's own models; spacing and patch along the array's axes k, j, i."""
    return Manifest(
        id=model.id,
        role=model.role,
        title=model.title,
        architecture=plan.architecture,
        arguments=plan.arguments,
        inputs=("ct",),
        labels={"background": 0, **{name: n for n, name in enumerate(model.structures, start=1)}},
        spacing_mm=plan.spacing[::-1],
        patch_size=plan.patch_size[::-1],
        window_hu=(plan.normalization.low, plan.normalization.high),
        weights_file=model.checkpoint,
        weights_sha256=model.sha256,
        version=model.version,
        license=model.license,
        intended_use=model.intended_use,
        margin_mm=model.margin_mm,
        folder=model.folder,
    )
