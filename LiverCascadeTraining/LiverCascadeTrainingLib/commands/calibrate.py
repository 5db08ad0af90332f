"""``livercascade-train calibrate``: how far the confidence of lesions can be trusted."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import count


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "calibrate", help="find out on held-out synthetic scans how far the confidence of lesions can be trusted"
    )
    parser.add_argument("models", type=Path, help="folder with the models 'locate' and 'refine'")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels_btcv and labels_lits_liver")
    parser.add_argument("--cases", type=int, default=60, help="scans")
    parser.add_argument("--seed", type=int, default=4711, help="of the scans")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for calibration.json; what is there already is kept"
    )
    parser.add_argument("--apply", action="store_true", help="write it into manifest and card of the refine model")
    parser.add_argument("--threads", type=count, help="CPU threads of the networks")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..calibration import CALIBRATION, apply_calibration, calibrate_models

    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    calibration = calibrate_models(options.models, options.data, options.output, options.cases, options.seed)
    if options.apply:
        apply_calibration(options.models, calibration)
    print(
        f"{calibration.lesions_tested} lesions of {calibration.cases} scans tested: calibration error "
        f"{calibration.expected_calibration_error:.3f}, area under the curve {calibration.area_under_curve:.3f}; "
        f"{options.output / CALIBRATION}."
    )
    return EXIT_DONE
