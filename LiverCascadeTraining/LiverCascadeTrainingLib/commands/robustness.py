"""``livercascade-train robustness``: what changing real scans does to the liver that is found."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import count


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "robustness",
        help="change real scans (flips, slices, noise, padding …) and measure the liver that is found",
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with the models 'locate' and 'refine'")
    parser.add_argument("--data", type=Path, required=True, help="folder with the real cases")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the table; what is there already is kept"
    )
    parser.add_argument("--cases", nargs="+", help="names of cases (default: those that the models may be tuned on)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of perturbations (default: all)")
    parser.add_argument("--apply", action="store_true", help="write table and pictures into the refine model's card")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=count, help="CPU threads of the networks")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import torch

    from ..proofs.failures import failures_of_robustness
    from ..proofs.pictures import into_model
    from ..proofs.robustness import BY_NAME, DEFAULT_CASES, TABLE_MD, Request, apply_robustness, run_robustness

    if options.threads:
        torch.set_num_threads(options.threads)
    request = Request(
        options.models,
        options.data,
        options.output,
        tuple(options.cases or DEFAULT_CASES),
        tuple(options.only or BY_NAME),
        options.device,
    )
    table = run_robustness(request, _say)
    if options.apply:
        pictures = failures_of_robustness(request, table, _say)
        apply_robustness(options.models, table)
        into_model(options.models, pictures)
    verdicts = [row["verdict"] for row in table["rows"]]
    told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    print(f"{len(verdicts)} perturbations of {len(table['cases'])} cases: {told}; {options.output / TABLE_MD}.")
    return EXIT_DONE


def _say(text: str) -> None:
    print(text, flush=True)
