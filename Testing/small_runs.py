"""Small prepared data sets and configurations with which a training run takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataset_layouts import invented, lay_out_lits, write_nifti
from LiverCascadeTrainingLib.data.cache import prepare
from LiverCascadeTrainingLib.data.layouts import find_studies
from LiverCascadeTrainingLib.data.splits import make_split
from LiverCascadeTrainingLib.training.config import RunConfig, config_from
from LiverCascadeTrainingLib.training.sources import DataPlaces

SPACING = [8.0, 8.0, 8.0]


def small_content(role: str = "locate", **sections: dict[str, Any]) -> dict[str, Any]:
    """A configuration of a tiny network as YAML would give it; ``sections`` change single settings."""
    refine = role == "refine"
    content: dict[str, Any] = {
        "role": role,
        "model": {"id": f"small-{role}", "title": f"small {role} model"},
        "network": {
            "architecture": "UNet",
            "arguments": {
                "spatial_dims": 3,
                "in_channels": 2 if refine else 1,
                "out_channels": 3 if refine else 2,
                "channels": [4, 8],
                "strides": [2],
                "dropout": 0.1,
            },
        },
        "grid": {"spacing_mm": SPACING, "patch_size": [16, 16, 16]},
        "optimizer": {"name": "adamw", "arguments": {"learning_rate": 0.01}},
        "training": {
            "steps": 6,
            "batch_size": 2,
            "precision": "32",
            "checkpoint_every": 2,
            "log_every": 1,
            "deterministic": True,
        },
        "validation": {"every": 3, "cases": 2, "overlap": 0.0, "keep": 2},
    }
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values} if isinstance(values, dict) else values
    return content


def small_config(role: str = "locate", **sections: dict[str, Any]) -> RunConfig:
    """The same, checked."""
    return config_from(small_content(role, **sections))


def small_data(folder: Path, cases: int = 6, unlabeled: int = 0) -> DataPlaces:
    """Invented CTs laid out as LiTS, prepared at 8 mm and split."""
    data = lay_out_lits(folder / "data", [invented(seed, 4) for seed in range(cases)])
    for seed in range(unlabeled):
        item = invented(50 + seed, 4)
        write_nifti(data / f"test-volume-{seed}.nii", item.array, item.grid)
    settings = small_config().prepare_settings()
    report = prepare(data, folder / "cache", settings, unlabeled=unlabeled > 0)
    assert not report.failed, report.as_text()
    studies = [study for study in find_studies(data) if study.label is not None]
    make_split(studies, "50/35/15").save(folder / "split.json")
    return DataPlaces(folder / "cache", folder / "split.json")
