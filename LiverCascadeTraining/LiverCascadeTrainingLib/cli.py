"""``livercascade-train``: prepare cases, train, export."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="livercascade-train", description="Trains the networks of LiverCascade. Research use only."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make the cache of training cases from label maps and real CTs")
    prepare.add_argument("--data", type=Path, required=True, help="folder with labels_btcv and the real CTs")
    prepare.add_argument("--cache", type=Path, required=True, help="where the prepared cases go")
    train = commands.add_parser("train", help="train, or go on training, from a YAML configuration")
    train.add_argument("config", type=Path)
    train.add_argument("--cache", type=Path, required=True)
    train.add_argument("--run", type=Path, required=True, help="run folder; an existing checkpoint is resumed")
    train.add_argument("--start-from", type=Path, help="run whose averaged weights a new run begins with")
    train.add_argument("--locate", type=Path, help="locate model whose probabilities become priors of a refine run")
    train.add_argument("--until", type=int, help="stop after this step; the schedule stays the configured one")
    train.add_argument("--device", default="cpu")
    train.add_argument("--workers", type=int, default=1, help="processes that make samples")
    train.add_argument("--threads", type=int, help="CPU threads of the network")
    export = commands.add_parser("export", help="write weights and manifest of a run")
    export.add_argument("config", type=Path)
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--to", type=Path, required=True, help="model folder")
    export.add_argument("--sources", type=Path, help="JSON list of training data lines for the manifest")
    example = commands.add_parser("example", help="make the embedded example: a synthetic abdomen with known truth")
    example.add_argument("--to", type=Path, required=True, help="folder for the CT and its truth")
    measure = commands.add_parser("measure", help="run a cascade on the labeled cases; writes figures and model cards")
    measure.add_argument("--models", type=Path, required=True, help="folder with the models 'locate' and 'refine'")
    measure.add_argument("--data", type=Path, required=True, help="folder with the real cases")
    evaluate = commands.add_parser(
        "evaluate", help="compare label maps (1 liver, 2 and above lesions) with references"
    )
    evaluate.add_argument("predicted", type=Path, help="a label map such as labels.nii.gz")
    evaluate.add_argument("reference", type=Path, help="the truth, in the same patient space")
    evaluate.add_argument("--liver-only", action="store_true", help="the reference does not tell lesions from liver")
    options = parser.parse_args(arguments)
    runs = {"prepare": _prepare, "train": _train, "export": _export, "example": _example}
    runs |= {"measure": _measure, "evaluate": _evaluate}
    try:
        return runs[options.command](options)
    except (FileNotFoundError, ValueError) as error:
        print(f"livercascade-train: {error}", file=sys.stderr)
        return 2


def _prepare(options: argparse.Namespace) -> int:
    from .cases import load_cases, prepare

    prepare(options.data, options.cache)
    print(f"{len(load_cases(options.cache))} cases are ready in {options.cache}.")
    return 0


def _trainer(options: argparse.Namespace, cases: list):
    import torch

    from .config import load_config
    from .training import Trainer

    if getattr(options, "threads", None):
        torch.set_num_threads(options.threads)
    config = load_config(options.config)
    device, workers = getattr(options, "device", "cpu"), getattr(options, "workers", 0)
    start_from, locate = getattr(options, "start_from", None), getattr(options, "locate", None)
    return Trainer(config, cases, options.run, device, workers, start_from, locate)


def _train(options: argparse.Namespace) -> int:
    from .cases import load_cases
    from .config import load_config

    cases = load_cases(options.cache, load_config(options.config).exclude)
    print(f"{len(cases)} cases: {', '.join(case.name for case in cases if case.kind == 'real')} and synthetic ones.")
    trainer = _trainer(options, cases)
    (options.run / "config.json").write_text(json.dumps(trainer.config.as_dict(), indent=2))
    trainer.train(options.until)
    print(f"Step {trainer.step} of {trainer.config.steps}; checkpoint in {options.run}.")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import export_model

    sources = json.loads(options.sources.read_text()) if options.sources else []
    manifest = export_model(_trainer(options, []), options.to, sources)
    print(f"{manifest.id} with weights {manifest.weights_sha256[:12]}… is in {options.to}.")
    return 0


def _example(options: argparse.Namespace) -> int:
    from .example import make_example

    make_example(options.to)
    print(f"The example is in {options.to}.")
    return 0


def _measure(options: argparse.Namespace) -> int:
    from .measure import measure_models

    measure_models(options.models, options.data)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from LiverCascadeLib.errors import InputError

    from .evaluation import compare_files

    try:
        print(json.dumps(compare_files(options.predicted, options.reference, not options.liver_only)))
    except InputError as error:
        raise ValueError(str(error)) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
