"""A MONAI bundle or a TorchScript model as a stage of the cascade."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ModelError
from ..fusing import COUINAUD, Answer, answer_of
from ..geometry import Box, Grid, resample
from ..ladder import Laddered, MemoryLadder
from ..located import Located
from ..models import Manifest
from ..models.stage_file import StageFile
from ..orientation import oriented
from ..predictor import autocast_dtype
from ..progress import Progress
from ..separable import Matrices, iter_resampled, iter_slabs
from ..stages import Wishes
from ..volume import Volume
from ..windows import iter_blended, touching, windows_at_once
from .grids import spaced, window_starts, window_weight
from .networks import open_network
from .outputs import Outputs
from .plan import Described, Plan, Rescale, Step
from .reading import read_bundle
from .settings import read_settings

if TYPE_CHECKING:
    import torch

# Where the located liver with its margin has less than this share of a voxel, nothing is drawn.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class _Input:
    """The network's image and the way back.

    Attributes:
        image: float32, on ``grid``, along the network's axes.
        grid: the network's.
        back: from ``grid`` to the turned voxels of the box.
    """

    image: torch.Tensor
    grid: Grid
    back: Matrices


class BundleStage(Laddered):
    """Runs a MONAI bundle or a TorchScript model.

    Voxels, values and windows are those of MONAI's own transforms and sliding window. 'Faithful' computes in float32
    on the CPU, otherwise precision is reduced where that is native. Windows far from the located liver are passed
    over. Probabilities are brought back to the voxels of the box and decided there.

    Args:
        model: the model and how it is used.
        device: 'cpu', 'cuda' or 'cuda:N'.
        faithful: see above.
        overlap: of neighboring windows, as a share of a patch; None takes the model's.

    Raises:
        ModelError: the files are missing, altered, damaged, or of a kind that is not run here.
    """

    def __init__(self, model: StageFile, device: str = "cpu", faithful: bool = False, overlap: float | None = None):
        model.verify()
        described = _described(model)
        plan = described.plan
        self.plan: Plan = plan if overlap is None else replace(plan, overlap=(overlap,) * 3)
        self.faithful = faithful
        self.manifest = _manifest(model, described)
        self._outputs = Outputs(self.plan, _known_values(model, described))
        root = model.folder if model.format == "torchscript" else model.path
        self._network = open_network(model, root, described.network).to(device)
        # A bundle does not say how many features its finest level has.
        batch = windows_at_once(device, self.plan.patch_size, max(32, self.plan.outputs))
        self.ladder = MemoryLadder(model.title, device, batch, self._network.to)

    def locate(self, volume: Volume, progress: Progress) -> tuple[torch.Tensor, Grid]:
        """See :meth:`.Stage.locate`. Lesions and segments of the liver are liver."""
        given = self._input(volume, Box((0, 0, 0), volume.grid.size))
        shares = self.ladder.run(lambda: self._shares(given.image, None, progress))
        return self._outputs.probability(shares, "liver", "lesion", COUINAUD).cpu(), given.grid

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """See :meth:`.Stage.refine`."""
        region = located.near(self.manifest.margin_mm).float()
        labels, lesion, entropy = self._drawn(volume, box, (region, located.grid), wishes, progress)
        near = (resample(region, located.grid, volume.grid.crop(box), 0.0) >= _LEAST_SHARE).numpy()
        return answer_of(labels, near, self._outputs.names, lesion, entropy, wishes.entropy)

    def labels(self, volume: Volume, progress: Progress | None = None) -> np.ndarray:
        """The model's own label values on the voxels of ``volume``, uint8 [k, j, i]; of more than
        :data:`.outputs.MOST_OUTPUTS` only those of the structures."""
        whole = Box((0, 0, 0), volume.grid.size)
        return self._drawn(volume, whole, None, Wishes(), progress or Progress())[0]

    def _drawn(
        self,
        volume: Volume,
        box: Box,
        region: tuple[torch.Tensor, Grid] | None,
        wishes: Wishes,
        progress: Progress,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Labels, probability of lesion and entropy on the voxels of the box; None for what nobody asks for."""
        given = self._input(volume, box)
        near = None if region is None else resample(*region, given.grid, 0.0) >= _LEAST_SHARE
        shares = self.ladder.run(lambda: self._shares(given.image, near, progress))
        progress.stage("fuse")
        outputs, crop = self._outputs, volume.grid.crop(box)
        knows_lesions = "lesion" in outputs.names.values()
        parts = (
            np.zeros(crop.shape, np.uint8),
            np.zeros(crop.shape, np.float16) if knows_lesions else None,
            np.zeros(crop.shape, np.float16) if knows_lesions or wishes.entropy else None,
        )
        labels, lesion, entropy = (None if part is None else self._turned(part, crop)[0] for part in parts)
        for where, slab in iter_resampled(shares, given.back):
            labels[where] = outputs.decided(slab).cpu().numpy()
            if lesion is not None:
                lesion[where] = outputs.probability(slab, "lesion").half().cpu().numpy()
            if entropy is not None:
                entropy[where] = outputs.doubt(slab).half().cpu().numpy()
        return parts

    def _turned(self, array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
        return oriented(array, grid, self.plan.orientation, self.plan.transpose)

    def _input(self, volume: Volume, box: Box) -> _Input:
        import torch

        whole, whole_grid = self._turned(volume.array, volume.grid)
        view, grid = self._turned(volume.array[box.slices], volume.grid.crop(box))
        network_grid, there, back = spaced(grid, self.plan.spacing)
        before: list[Step] = []
        for step in self.plan.before:
            before.append(step.measured(iter_slabs(whole, (None,) * 3, _chain(before))) if step.is_open else step)
        image = torch.cat(list(iter_slabs(view, there, _chain(before))))
        after: list[Step] = []
        for step in self.plan.after:
            if step.is_open:
                # Mean, range and deviation are those of the scan, not of a part of it.
                scan = [image]
                if view.shape != whole.shape:
                    _, whole_there, _ = spaced(whole_grid, self.plan.spacing)
                    scan = map(_chain(after), iter_slabs(whole, whole_there, _chain(before)))
                step = step.measured(scan)
            after.append(step)
            image = step.apply(image)
        return _Input(image, network_grid, back)

    def _shares(self, image: torch.Tensor, region: torch.Tensor | None, progress: Progress) -> torch.Tensor:
        """Probabilities of the kept outputs, float32 [c, k, j, i]; what no window sees is background."""
        inner = Box((0, 0, 0), tuple(image.shape)[::-1])
        if self.plan.crop_above_zero:
            inner = Box.around((image > 0).numpy()) or inner
        shares = self._blended(image[inner.slices], None if region is None else region[inner.slices], progress)
        if inner.size == tuple(image.shape)[::-1]:
            return shares
        # As MONAI: nothing speaks for anything there, which is background, and pulls nothing towards it at the border.
        total = shares.new_zeros((len(shares), *image.shape))
        total[(slice(None), *inner.slices)] = shares
        return total

    def _blended(self, image: torch.Tensor, region: torch.Tensor | None, progress: Progress) -> torch.Tensor:
        import torch

        plan, store = self.plan, self.ladder.store
        padding = [max(0, p - n) for p, n in zip(plan.patch_size, image.shape, strict=True)]
        pads = [side for p in reversed(padding) for side in (p // 2, p - p // 2)]
        value = {"value": plan.padding_value} if plan.padding == "constant" else {}
        padded = torch.nn.functional.pad(image.to(store)[None, None], pads, plan.padding, **value)[0]
        starts = [
            window_starts(n, p, share)
            for n, p, share in zip(padded.shape[1:], plan.patch_size, plan.overlap, strict=True)
        ]
        corners = list(itertools.product(*starts))
        if region is not None:
            corners = touching(torch.nn.functional.pad(region, pads).numpy(), corners, plan.patch_size)
        weight = torch.from_numpy(window_weight(plan)).to(store)
        depth = plan.patch_size[0] if self._outputs.leaves_out else None
        blend = iter_blended(padded, corners, weight, plan.outputs, self._forward, self.ladder, progress.update, depth)
        shares = torch.cat([self._outputs.shares(mean, unseen) for _, mean, unseen in blend], dim=1)
        self.windows += len(corners)
        inner = tuple(slice(p // 2, p // 2 + n) for p, n in zip(padding, image.shape, strict=True))
        return shares[(slice(None), *inner)]

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        """The network's answer, float32 [batch, c, k, j, i]."""
        import torch

        device = self.device
        dtype = autocast_dtype(device)
        if self.faithful:
            # As MONAI: half precision on a GPU where the bundle asks for it, none on the CPU.
            dtype = torch.float16 if device.startswith("cuda") and self.plan.half else None
        windows = windows.to(device)
        with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype, enabled=dtype is not None):
            started = time.perf_counter()
            answer = self._network(windows)
            if device != "cpu":
                torch.cuda.synchronize(device)
            self.forward_seconds += time.perf_counter() - started
        self._check(answer, windows.shape)
        return answer.float()

    def _check(self, answer: object, shape: Sequence[int]) -> None:
        """A network that answers otherwise than it says is not understood.

        Raises:
            ModelError: it does.
        """
        import torch

        expected = (shape[0], self.plan.outputs, *shape[2:])
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        if found != expected:
            raise ModelError(
                f"The network of the model {self.manifest.id} answers windows of shape {tuple(shape)} with {found}, "
                f"expected {expected}: one value per voxel for each of {self.plan.outputs} outputs."
            )


def _described(model: StageFile) -> Described:
    if model.format == "torchscript":
        return read_settings(model)
    unknown = sorted(set(model.settings) - {"overrides"})
    overrides = model.settings.get("overrides", {})
    if unknown or not isinstance(overrides, dict):
        raise ModelError(f"The settings of the model {model.id} may hold 'overrides', values by id, and nothing else.")
    return read_bundle(model.path, overrides)


def _chain(steps: Sequence[Step]):
    """All steps, one after the other."""
    fixed = list(steps)

    def apply(image: torch.Tensor) -> torch.Tensor:
        for step in fixed:
            image = step.apply(image)
        return image

    return apply


def _known_values(model: StageFile, described: Described) -> dict[int, str]:
    """Structures by label value.

    Raises:
        ModelError: the model has no such label.
    """
    names = {value: name for name, values in model.structures.items() for value in values}
    missing = sorted(value for value in names if value > described.plan.most)
    if missing:
        told = ", ".join(f"{name} = {value}" for value, name in sorted(described.labels.items()))
        raise ModelError(
            f"The model {model.id} has no label {missing[0]} for '{names[missing[0]]}'; its last is "
            f"{described.plan.most}. {f'It has {told}.' if told else ''}".strip()
        )
    return names


def _manifest(model: StageFile, described: Described) -> Manifest:
    """Who the model is, in the words of the project's own models."""
    plan, network = described.plan, described.network
    window = next((step for step in (*plan.before, *plan.after) if isinstance(step, Rescale)), None)
    back = 1 if plan.transpose == (2, 1, 0) else -1
    return Manifest(
        id=model.id,
        role=model.role,
        title=model.title,
        architecture=network.architecture or "TorchScript",
        arguments=dict(network.arguments or {}),
        inputs=("ct",),
        labels={"background": 0, **{name: n for n, name in enumerate(model.structures, start=1)}},
        spacing_mm=(plan.spacing or (0.0,) * 3)[::back],
        patch_size=plan.patch_size[::back],
        window_hu=(window.low, window.high) if window else (0.0, 0.0),
        weights_file=network.weights,
        weights_sha256=model.sha256,
        version=model.version,
        license=model.license,
        intended_use=model.intended_use,
        overlap=max(plan.overlap),
        margin_mm=model.margin_mm,
        folder=model.folder,
    )
