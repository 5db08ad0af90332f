"""``livercascade-train held-out``: lesions found on a fixed set of synthetic scans."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import count


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "held-out", help="measure lesions by size, and false ones, on synthetic scans that nothing was trained on"
    )
    parser.add_argument("config", type=Path, help="the set: held-out.yaml")
    parser.add_argument("--models", type=Path, help="folder with the models 'locate' and 'refine'")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels_btcv and labels_lits_liver")
    parser.add_argument("-o", "--output", type=Path, help="folder for the figures; what is there already is kept")
    parser.add_argument("--count", type=count, help="only the first so many scans of the set")
    parser.add_argument("--scans", type=Path, help="folder in which the scans themselves are kept, for other models")
    parser.add_argument("--only-scans", action="store_true", help="make the scans and stop; needs --scans")
    parser.add_argument("--apply", action="store_true", help="write figures and pictures into the refine model's card")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=count, help="CPU threads")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import torch

    from ..names import SettingError
    from ..proofs.failures import failures_of_held_out
    from ..proofs.held_out_set import (
        SUMMARY_MD,
        Request,
        apply_held_out,
        load_config,
        make_scans,
        run_held_out,
        table_lines,
    )
    from ..proofs.pictures import into_model

    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_config(options.config)
    request = Request(
        options.models, options.data, options.output, config, options.count, options.scans, options.device
    )
    if options.only_scans:
        if options.scans is None:
            raise SettingError("--only-scans makes scans and keeps them: name a folder with --scans.")
        make_scans(request, _say)
        return EXIT_DONE
    if options.models is None or options.output is None:
        raise SettingError("Name the models (--models) and a folder for the figures (-o).")
    summary = run_held_out(request, _say)
    if options.apply:
        pictures = failures_of_held_out(request, _say)
        apply_held_out(options.models, summary)
        into_model(options.models, pictures)
    print("\n".join([*table_lines(summary), "", str(options.output / SUMMARY_MD)]))
    return EXIT_DONE


def _say(text: str) -> None:
    print(text, flush=True)
