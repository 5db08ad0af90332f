"""``livercascade-train prepare``: the cases of a data set, resampled once for the configurations that need them."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import add_data, teller


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("prepare", help="make the cache of prepared cases; goes on where it was stopped")
    add_data(parser)
    parser.add_argument("--cache", type=Path, required=True, help="where prepared cases go")
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="training configurations that they are prepared for"
    )
    parser.add_argument(
        "--split", type=Path, help="prepare the cases of this split only, or with --unlabeled these too"
    )
    parser.add_argument("--unlabeled", action="store_true", help="also prepare CTs without labels")
    parser.add_argument(
        "--unknown-size", action="store_true", help="take voxels without a size in their header as they are"
    )
    parser.add_argument(
        "--locate",
        type=Path,
        help="locate model whose probability is added to the cases of refine configurations, as located priors",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import dataclasses

    from ..data.cache import prepare
    from ..data.layouts import find_studies
    from ..data.splits import load_split
    from ..training.config import load_run_config

    studies = find_studies(options.data, options.layout, options.unlabeled)
    if options.split is not None:
        split = load_split(options.split)
        wanted = {name for fold in split.folds for names in fold.values() for name in names}
        studies = [study for study in studies if study.name in wanted or study.label is None]
    configs = [load_run_config(path) for path in options.config]
    code = EXIT_DONE
    done = set()
    for config in configs:
        settings = dataclasses.replace(config.prepare_settings(), unknown_size=options.unknown_size)
        if settings.key not in done:
            done.add(settings.key)
            report = prepare(studies, options.cache, settings, processes=options.processes, progress=teller(options))
            print(report.as_text(), end="")
            code = max(code, report.exit_code)
            if options.locate is not None and config.with_lesions:
                _add_priors(report, studies, options.locate)
    return code


def _add_priors(report, studies, model: Path) -> None:
    from ..data.cache import Cache, add_priors
    from ..training.priors import locating

    whole = {study.name: study for study in studies}
    names = [*report.made, *report.kept]
    added = add_priors(Cache(report.folder), names, locating(model), whole)
    print(f"{len(added)} cases got a located probability, {len(names) - len(added)} had one.")
