"""One network on one grid: windowing, patches, blending, and the ladder of devices."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from .channels import network_channels
from .errors import ResourceError
from .geometry import Grid
from .ladder import Laddered, MemoryLadder
from .models import Manifest, load_network
from .progress import Progress
from .stages import CanonicalStage
from .windows import gaussian_profile, window_starts

if TYPE_CHECKING:
    import torch


# A window that has less than this share of the blend wherever it sees something is not computed.
LEAST_SAY = 0.01


# 'Thorough' windows stand at this share of their usual distance.
THOROUGH_STEP = 0.75


def choose_device(wish: str = "auto") -> str:
    """'cuda' or 'cpu', from the user's wish.

    Args:
        wish: 'auto', 'cpu', 'cuda' or 'cuda:N'; 'gpu' means 'cuda'.

    Raises:
        ResourceError: a GPU was asked for and there is none.
    """
    import torch

    wish = "cuda" if wish == "gpu" else wish
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wish.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError("A GPU was asked for, but none can be used here. Choose --device cpu or --device auto.")
    return wish


def autocast_dtype(device: str) -> torch.dtype | None:
    """The reduced precision that pays on ``device``, or None for float32."""
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Without native bf16 instructions the CPU emulates them, slower than float32.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if native() else None


def _sum_of_windows(size: int, starts: list[int], profile: torch.Tensor) -> torch.Tensor:
    """What the weights of all windows add up to along one axis."""
    import torch

    total = torch.zeros(size)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total


def _corners_that_matter(
    occupied: torch.Tensor, starts: list[list[int]], profiles: list[torch.Tensor], norms: list[torch.Tensor]
) -> list[tuple[int, int, int]]:
    """First voxels of the windows that are not background for certain.

    Passed over are windows with nothing but air, windows far from the located liver, and those that have no say where
    there is something: their neighbors see it better, and make up all but LEAST_SAY of the blend there.

    Args:
        occupied: [c, k, j, i], where each of the network's channels holds something.
        starts, profiles, norms: of the windows, along k, j and i.
    """
    shares = [
        {start: profile / norm[start : start + len(profile)] for start in first}
        for first, profile, norm in zip(starts, profiles, norms, strict=True)
    ]
    corners = []
    for corner in itertools.product(*starts):
        k, j, i = (share[start] for share, start in zip(shares, corner, strict=True))
        heard = k[:, None, None] * j[:, None] * i > LEAST_SAY
        window = tuple(slice(start, start + len(p)) for start, p in zip(corner, profiles, strict=True))
        if (occupied[(slice(None), *window)] & heard).flatten(1).any(dim=1).all():
            corners.append(corner)
    return corners


class NetworkPredictor(Laddered, CanonicalStage):
    """A network from a manifest, run as a sliding window with Gaussian blending.

    Args:
        manifest: the model.
        device: 'cpu', 'cuda' or 'cuda:N'.
        overlap: overlap of neighboring windows, 0 ≤ overlap < 1; None takes the manifest's.
        batch: windows per forward pass.
        thorough: more overlap than the manifest's, unless ``overlap`` is given, and the mean over copies mirrored
            along the manifest's ``mirror_axes``.
        network: already in memory, such as one that is being trained; None loads the manifest's weights.

    Attributes:
        forward_seconds: time that the last prediction spent inside forward passes.
        windows: how many it computed.
        keep_spread: also keep how far mirrored copies disagree; without copies there is nothing to keep.
        spread: standard deviation of the last label's probability over the mirrored copies of the last prediction,
            float32 [k, j, i] on its grid; None where it was not kept.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: str = "cpu",
        overlap: float | None = None,
        batch: int = 1,
        thorough: bool = False,
        network: torch.nn.Module | None = None,
    ):
        from .models.memory_order import fastest_order

        self.manifest = manifest
        usual = 1 - THOROUGH_STEP * (1 - manifest.overlap) if thorough else manifest.overlap
        self.overlap = usual if overlap is None else overlap
        self.mirror_axes = manifest.mirror_axes if thorough else ()
        network = load_network(manifest) if network is None else network
        self._layout = fastest_order(network, device)
        self._network = network.to(device, memory_format=self._layout)
        self.ladder = MemoryLadder(manifest.title, device, batch, self._network.to)

    def predict(self, ct: torch.Tensor, prior: torch.Tensor | None, grid: Grid, progress: Progress) -> torch.Tensor:
        """See :meth:`.CanonicalStage.predict`. On an out-of-memory error the same run goes on with less memory."""
        self.forget()
        return self.ladder.run(lambda: self._predict(ct, prior, grid, progress))

    def forget(self) -> None:
        """Begins anew what is told about the last prediction; a run that does not come this far has none."""
        super().forget()
        self.spread = None

    def _predict(self, ct: torch.Tensor, prior: torch.Tensor | None, grid: Grid, progress: Progress) -> torch.Tensor:
        import torch

        model = self.manifest
        image = network_channels(model.inputs, model.window_hu, ct, prior, model.spacing_mm[::-1])
        patch = self.manifest.patch_size[::-1]
        padding = [max(0, p - n) for p, n in zip(patch, grid.shape, strict=True)]
        # Zero is air after windowing; padded on both sides so that the body stays in the middle of the window.
        pads = [side for p in reversed(padding) for side in (p // 2, p - p // 2)]
        image = torch.nn.functional.pad(image, pads)
        shape = image.shape[1:]
        starts = [window_starts(n, p, self.overlap) for n, p in zip(shape, patch, strict=True)]
        profiles = [torch.from_numpy(gaussian_profile(p)) for p in patch]
        # The sum of all windows' weights is separable.
        norms = [_sum_of_windows(n, first, profile) for n, first, profile in zip(shape, starts, profiles, strict=True)]
        corners = _corners_that_matter(image > 0.01, starts, profiles, norms)
        profiles = [profile.to(self.ladder.store) for profile in profiles]
        weight = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
        labels = len(self.manifest.labels) - 1
        with_spread = self.keep_spread and bool(self.mirror_axes)
        # Where it is kept, the variance over mirrored copies is blended as one more channel.
        total = torch.zeros((labels + with_spread, *shape), device=self.ladder.store)
        progress.update(0.0)
        for n in range(0, len(corners), self.ladder.batch):
            windows = [self._window(c, patch) for c in corners[n : n + self.ladder.batch]]
            probability = self._forward(torch.stack([image[w] for w in windows]), with_spread)
            for window, values in zip(windows, probability.to(self.ladder.store), strict=True):
                total[window].addcmul_(values, weight)
            self.windows += len(windows)
            progress.update((n + len(windows)) / len(corners))
        # Windows that were passed over voted for background.
        for axis, norm in enumerate(norms):
            total /= norm.to(self.ladder.store).reshape([-1 if a == axis else 1 for a in range(3)])
        inner = tuple(slice(p // 2, p // 2 + n) for p, n in zip(padding, grid.shape, strict=True))
        total = total[(slice(None), *inner)].cpu()
        if with_spread:
            self.spread, total = total[labels].clamp_(min=0).sqrt_(), total[:labels]
        return total

    @staticmethod
    def _window(corner: tuple[int, int, int], patch: tuple[int, int, int]) -> tuple[slice, ...]:
        return (slice(None), *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))

    def _forward(self, windows: torch.Tensor, with_spread: bool = False) -> torch.Tensor:
        """Foreground probabilities [batch, labels - 1, k, j, i] of windows [batch, channels, k, j, i].

        With the spread, the last label's variance over mirrored copies is one channel more.
        """
        import torch

        dtype = autocast_dtype(self.device)
        windows = windows.to(self.device, memory_format=self._layout)
        with torch.inference_mode(), torch.autocast(self.device.split(":")[0], dtype, enabled=dtype is not None):
            started = time.perf_counter()
            probability = self._mean_over_mirrors(windows, with_spread)
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            self.forward_seconds += time.perf_counter() - started
            return probability

    def _mean_over_mirrors(self, windows: torch.Tensor, with_spread: bool) -> torch.Tensor:
        """Foreground probabilities of windows [batch, channels, k, j, i], averaged over all mirrored copies.

        With the spread, the last channel is E[p²] − E[p]² of the last label.
        """
        import torch

        dims = [4 - "RAS".index(axis) for axis in self.mirror_axes]
        total, squares = None, None
        for count in range(len(dims) + 1):
            for flipped in itertools.combinations(dims, count):
                turned = windows.flip(flipped) if flipped else windows
                values = torch.softmax(self._network(turned).float(), dim=1)[:, 1:]
                values = values.flip(flipped) if flipped else values
                total = values if total is None else total + values
                if with_spread:
                    square = values[:, -1:].square()
                    squares = square if squares is None else squares + square
        mean = total / 2 ** len(dims)
        if not with_spread:
            return mean
        return torch.cat([mean, squares / 2 ** len(dims) - mean[:, -1:].square()], dim=1)
