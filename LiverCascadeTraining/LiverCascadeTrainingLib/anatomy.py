"""From a multi-organ label map to a whole body: every voxel gets a tissue.

The label maps say where organs are; everything around them (body wall, fat, lungs, heart, spine, ribs, bowel, arms,
table) is invented here, at random but in plausible places, because a network that has only ever seen organs on an
empty background finds livers everywhere else.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy import ndimage


class Tissue(IntEnum):
    """Tissue classes; the first fourteen are the BTCV organ labels."""

    AIR = 0
    SPLEEN = 1
    KIDNEY_RIGHT = 2
    KIDNEY_LEFT = 3
    GALLBLADDER = 4
    OESOPHAGUS = 5
    LIVER = 6
    STOMACH = 7
    AORTA = 8
    VENA_CAVA = 9
    PORTAL_VEIN = 10
    PANCREAS = 11
    ADRENAL_RIGHT = 12
    ADRENAL_LEFT = 13
    SUBCUTANEOUS_FAT = 14
    VISCERAL_FAT = 15
    MUSCLE = 16
    BONE = 17
    MARROW = 18
    DISC = 19
    LUNG = 20
    HEART = 21
    BOWEL = 22
    BOWEL_GAS = 23
    TABLE = 24


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Band-limited noise of zero mean and unit variance; ``scale`` is the correlation length in voxels."""
    coarse = rng.standard_normal([max(3, int(np.ceil(n / scale)) + 3) for n in shape]).astype(np.float32)
    zoomed = ndimage.zoom(coarse, [(n + scale) / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    start = [int(rng.integers(0, z - n + 1)) if z > n else 0 for n, z in zip(shape, zoomed.shape, strict=True)]
    noise = zoomed[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    noise = ndimage.zoom(noise, [n / m for n, m in zip(shape, noise.shape, strict=True)], order=1)
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def invent_body(organs: np.ndarray, spacing_mm: float, rng: np.random.Generator, border: int = 20) -> np.ndarray:
    """Completes an organ label map to a tissue map.

    Args:
        organs: BTCV labels, [k, j, i] along (S, A, R), isotropic.
        spacing_mm: voxel size.
        rng: source of all randomness.
        border: voxels of air that are added on each side of i and j.

    Returns:
        uint8 :class:`Tissue` map, [k, j + 2 border, i + 2 border].
    """
    organs = np.pad(organs, ((0, 0), (border, border), (border, border)))
    builder = _Body(organs, spacing_mm, rng)
    builder.wall()
    builder.bowel()
    builder.lungs_and_heart()
    builder.spine()
    builder.ribs()
    builder.outside()
    tissue = builder.tissue
    tissue[organs > 0] = organs[organs > 0]
    return tissue


class _Body:
    """The steps of :func:`invent_body`; each paints onto ``tissue`` what the later ones may cover."""

    def __init__(self, organs: np.ndarray, spacing: float, rng: np.random.Generator):
        self.organs, self.spacing, self.rng = organs, spacing, rng
        self.tissue = np.zeros(organs.shape, np.uint8)
        k, j, i = (np.arange(n, dtype=np.float32) * spacing for n in organs.shape)
        self.z, self.y, self.x = k[:, None, None], j[None, :, None], i[None, None, :]
        occupied = np.argwhere(organs > 0) * spacing
        self.low, self.high = occupied.min(axis=0), occupied.max(axis=0)
        self.liver_top = np.argwhere(organs == Tissue.LIVER)[:, 0].max() * spacing
        self.liver_bottom = np.argwhere(organs == Tissue.LIVER)[:, 0].min() * spacing
        self.spine_x, self.spine_y = self._spine_course()

    def _spine_course(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre of the vertebral bodies for every k, in mm: behind and a little to the right of the aorta."""
        heights, xs, ys = [], [], []
        for k in range(self.organs.shape[0]):
            j, i = np.nonzero(self.organs[k] == Tissue.AORTA)
            if len(i) > 3:
                heights.append(k)
                xs.append(i.mean() * self.spacing)
                ys.append(j.min() * self.spacing)
        rows = np.arange(self.organs.shape[0])
        offset_x, offset_y = self.rng.uniform(8, 18), self.rng.uniform(12, 20)
        x = ndimage.gaussian_filter1d(np.interp(rows, heights, xs), 12) + offset_x
        y = ndimage.gaussian_filter1d(np.interp(rows, heights, ys), 12) - offset_y
        return x[:, None, None].astype(np.float32), y[:, None, None].astype(np.float32)

    def wall(self) -> None:
        """Skin, fat, muscle and the cavity: nested superellipses that hold all organs and the spine."""
        rng = self.rng
        x_center = (self.low[2] + self.high[2]) / 2
        y_back, y_front = min(self.low[1], float(self.spine_y.min())) - rng.uniform(12, 25), self.high[1]
        y_front = y_front + rng.uniform(2, 25)
        y_center = (y_back + y_front) / 2
        half_x = (self.high[2] - self.low[2]) / 2 + rng.uniform(8, 18)
        half_y = (y_front - y_back) / 2
        exponent = rng.uniform(2.1, 2.8)
        wave = 1 + 0.03 * smooth_noise(self.organs.shape[:1], 40, rng)[:, None, None]
        self.dx, self.dy = (self.x - x_center) / (half_x * wave), (self.y - y_center) / (half_y * wave)
        self.radius = (np.abs(self.dx) ** exponent + np.abs(self.dy) ** exponent) ** (1 / exponent)
        fat = rng.gamma(2.0, 9.0) + 3
        skin_x, skin_y = half_x + fat * rng.uniform(0.7, 1.1), half_y + fat * rng.uniform(0.5, 1.0)
        body = (
            np.abs((self.x - x_center) / (skin_x * wave)) ** exponent
            + np.abs((self.y - y_center) / (skin_y * wave)) ** exponent
        ) < 1
        near_organs = ndimage.uniform_filter((self.organs > 0).astype(np.float32), 7) > 0.02
        body |= near_organs
        self.body = body
        self.tissue[body] = Tissue.SUBCUTANEOUS_FAT
        self.tissue[body & (self.radius < 1)] = Tissue.MUSCLE
        self.cavity = (self.radius < 1 - rng.uniform(8, 16) / half_x) | near_organs
        self.tissue[self.cavity] = Tissue.VISCERAL_FAT

    def bowel(self) -> None:
        """Loops in the free space of the abdomen, some with gas."""
        noise = smooth_noise(self.organs.shape, 24 / self.spacing, self.rng)
        free = self.cavity & (self.z < self.liver_top - 30)
        self.tissue[free & (noise > self.rng.uniform(-0.4, 1.0))] = Tissue.BOWEL
        self.tissue[free & (noise > self.rng.uniform(1.0, 2.5))] = Tissue.BOWEL_GAS

    def lungs_and_heart(self) -> None:
        """Everything above the dome of liver, spleen and stomach is chest."""
        rng, shape = self.rng, self.organs.shape
        under = np.isin(
            self.organs, (Tissue.LIVER, Tissue.SPLEEN, Tissue.STOMACH, Tissue.KIDNEY_LEFT, Tissue.PANCREAS)
        )
        under |= self.organs == Tissue.KIDNEY_RIGHT
        top = np.where(under.any(axis=0), shape[0] - 1 - under[::-1].argmax(axis=0), -1e3).astype(np.float32)
        reach = 25
        yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        dome = ndimage.grey_dilation(top, structure=-((xx**2 + yy**2) / rng.uniform(12, 30)).astype(np.float32))
        dome = np.maximum(ndimage.gaussian_filter(dome, 1.5), (self.liver_top - rng.uniform(70, 120)) / self.spacing)
        chest = (np.arange(shape[0])[:, None, None] > dome[None] + rng.uniform(0, 2)) & (self.radius < 0.93)
        self.chest = chest
        self.tissue[chest] = Tissue.LUNG
        midline = self.spine_x - rng.uniform(20, 40)
        heart_y = self.low[1] + 0.72 * (self.high[1] - self.low[1])
        heart_z = self.liver_top + rng.uniform(10, 45)
        a, b, c = rng.uniform(42, 62), rng.uniform(38, 55), rng.uniform(40, 60)
        heart = ((self.x - midline) / a) ** 2 + ((self.y - heart_y) / b) ** 2 + ((self.z - heart_z) / c) ** 2 < 1
        mediastinum = (np.abs(self.x - self.spine_x + 12) < rng.uniform(15, 28)) & (self.y > self.spine_y)
        self.tissue[chest & mediastinum] = Tissue.VISCERAL_FAT
        self.tissue[chest & heart] = Tissue.HEART
        if rng.random() < 0.15:  # pleural effusion, in the dependent part
            level = self.low[1] + rng.uniform(0, 50)
            self.tissue[chest & (self.y < level) & (self.tissue == Tissue.LUNG)] = Tissue.BOWEL

    def spine(self) -> None:
        """Vertebral bodies with a cortex, discs, canal, arches, and the muscles beside them."""
        rng = self.rng
        a, b = rng.uniform(19, 25), rng.uniform(15, 19)
        dx, dy = self.x - self.spine_x, self.y - self.spine_y
        for side in (-1, 1):
            muscle = ((dx - side * 32) / 26) ** 2 + ((dy + 28) / 20) ** 2 < 1
            self.tissue[muscle & self.body] = Tissue.MUSCLE
        arch = (np.abs(dx) < 22) & (dy < -b) & (dy > -b - 26) & (np.abs(dx) + 0.8 * np.abs(dy + b + 10) < 24)
        self.tissue[arch & self.body] = Tissue.BONE
        level = np.mod(self.z + rng.uniform(0, 32), rng.uniform(28, 36))
        radius = (dx / a) ** 2 + (dy / b) ** 2
        body = (radius < 1) & self.body
        self.tissue[body] = Tissue.BONE
        self.tissue[body & (radius < 0.8)] = Tissue.MARROW
        self.tissue[body & (level < rng.uniform(4, 8))] = Tissue.DISC
        canal = (dx / 10) ** 2 + ((dy + b + 8) / 8) ** 2 < 1
        self.tissue[canal & self.body] = Tissue.DISC

    def ribs(self) -> None:
        """Rings in the body wall that fall toward the front, from the liver's lower edge upward."""
        rng = self.rng
        shell = (self.radius > 0.90) & (self.radius < 0.985)
        phase = np.mod(self.z + rng.uniform(30, 55) * self.dy + rng.uniform(0, 30), rng.uniform(22, 30))
        height = self.z > self.liver_bottom + rng.uniform(-20, 60) + 60 * self.dy
        ribs = shell & (phase < rng.uniform(7, 11)) & height & self.body
        self.tissue[ribs] = Tissue.BONE
        self.tissue[ribs & (self.radius > 0.925) & (self.radius < 0.96)] = Tissue.MARROW

    def outside(self) -> None:
        """The table, and now and then the arms beside the body."""
        rng = self.rng
        rows = np.nonzero(self.body.any(axis=(0, 2)))[0]
        back = rows[0] * self.spacing
        curve = back - rng.uniform(3, 15) + rng.uniform(0, 6e-4) * (self.x - self.x.mean()) ** 2
        table = (self.y < curve) & (self.y > curve - rng.uniform(4, 10)) & (self.z >= 0)
        if rng.random() < 0.8:
            self.tissue[table & (self.tissue == Tissue.AIR)] = Tissue.TABLE
        if rng.random() < 0.25:
            columns = np.nonzero(self.body.any(axis=(0, 1)))[0] * self.spacing
            for edge, side in ((columns[0], -1), (columns[-1], 1)):
                x = edge + side * rng.uniform(25, 45)
                radius = np.hypot(self.x - x, self.y - self.y.mean() - rng.uniform(-40, 20))
                arm = (radius < rng.uniform(28, 42)) & (self.tissue == Tissue.AIR) & (self.z >= 0)
                self.tissue[arm] = Tissue.MUSCLE
                self.tissue[arm & (radius < 11)] = Tissue.BONE
