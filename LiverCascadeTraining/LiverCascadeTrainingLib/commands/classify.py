"""``livercascade-train classify``: does this liver hold lesions; soft and binary masks compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import add_machine, add_places, count, machine_of, places_of


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "classify", help="train a network that says whether a liver holds lesions; compare soft and binary masks"
    )
    parser.add_argument("config", type=Path, help="YAML configuration")
    parser.add_argument(
        "--run", type=Path, required=True, dest="folder", help="folder of runs; this one becomes RUN/classify"
    )
    parser.add_argument("--compare-masks", action="store_true", help="train with the soft and with the binary mask")
    parser.add_argument("--seeds", type=count, default=1, help="networks for each mask, with consecutive seeds")
    add_places(parser)
    add_machine(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from LiverCascadeLib.models.manifest import MASKS

    from ..classification.config import load_config
    from ..classification.livers import gather
    from ..classification.run import run

    config = load_config(options.config)
    machine = machine_of(options)
    livers = gather(config, places_of(options), _say)
    masks = MASKS if options.compare_masks else (config.mask,)
    folder = options.folder / config.role
    content = run(config, livers, folder, masks, options.seeds, machine, _say)
    for line in lines_of(content):
        print(line)
    print(f"The run is in {folder}, with ROC curves, every score and the model with the {config.mask} mask.")
    return EXIT_DONE


def _say(text: str) -> None:
    print(text, flush=True)


def lines_of(content: dict) -> list[str]:
    """The figures of a run for a reader."""
    lines = [f"* {remark}" for remark in content["remarks"]]
    count = len(content["seeds"])
    for mask, found in content["masks"].items():
        for unit in ("slices", "cases"):
            if unit in found:
                figures = found[unit]
                lines.append(
                    f"{mask:6} {unit:6} AUC {_interval(figures['auc'])}, {count} seeds, {figures['rows']} "
                    f"({figures['positives']} with lesions) of {figures['patients']} patients"
                )
    for unit, found in content.get("difference", {}).items():
        lines.append(
            f"soft − binary, {unit}: {_interval(found, '+')}; seeds that favor soft {found['seeds_for_soft']}, "
            f"binary {found['seeds_for_binary']}"
        )
    return lines


def _interval(found: dict, sign: str = "") -> str:
    values = [found[key] for key in ("value", "low", "high")]
    if values[0] is None or values[0] != values[0]:
        return "not defined"
    ends = ["?" if v is None or v != v else f"{v:{sign}.3f}" for v in values]
    return f"{ends[0]} ({ends[1]} to {ends[2]})"
