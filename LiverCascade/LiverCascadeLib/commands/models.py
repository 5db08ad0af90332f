"""``livercascade models``: what is embedded, installed and available; installation and removal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, LiverCascadeError, ModelError
from ..models.catalogue import CatalogueModel, in_megabytes, problems, read_catalogue
from ..models.download import Connection
from ..models.install import CONSENT, Description, import_model, install, license_text
from ..models.library import Library
from ..models.stage_file import ROLES, STRUCTURES, StageFile
from ..progress import Progress, cancel_on_signals
from .arguments import ProgressPrinter, count, not_negative

DESCRIPTION = """\
Lists the models that come with the program, those of others that are installed, and those that can be installed.
'install' is the only command of the program that uses the network, and only after the license was accepted."""
EPILOG = """\
examples:
  livercascade models
  livercascade models install totalsegmentator-liver
  livercascade models install totalsegmentator-liver --accept-license --mirror https://server/models
  livercascade models import Dataset003_Liver.zip --structure liver=1 --structure lesion=2
  livercascade models combine mine --locate embedded --refine dataset003-liver
  livercascade segment ct.nii.gz -o results/ --model totalsegmentator-liver

environment:
  LIVERCASCADE_MODELS  folder for the models (default: this user's folder for application data)
  LIVERCASCADE_MIRROR  the same as --mirror, for the panel in Slicer as well
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE  as for other programs; --proxy and --ca come first"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its actions."""
    parser = commands.add_parser(
        "models",
        help="list, install, import and remove models",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the manifests of the embedded models as JSON")
    parser.set_defaults(run=_run_embedded)
    actions = parser.add_subparsers(metavar="ACTION")
    _add_list(actions)
    _add_install(actions)
    _add_import(actions)
    _add_combine(actions)
    _add_remove(actions)
    _add_verify(actions)


def _action(actions: argparse._SubParsersAction, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument(
        "--json-progress", action="store_true", help="print progress and the end as JSON, one object on each line"
    )


def _add_list(actions: argparse._SubParsersAction) -> None:
    _action(actions, "list", "list all models, as JSON too", _run_list)


def _add_install(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "install", "download and install a model or a cascade of the catalogue", _run_install)
    parser.add_argument("id", metavar="ID", help="of a model or a cascade")
    parser.add_argument(CONSENT, action="store_true", help="the license was read and is accepted")
    parser.add_argument(
        "--mirror",
        default=os.environ.get("LIVERCASCADE_MIRROR"),
        metavar="URL",
        help="takes the place of the publisher's address; also file:// (default: LIVERCASCADE_MIRROR)",
    )
    parser.add_argument("--proxy", metavar="URL", help="such as http://proxy.hospital:3128")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust, in PEM format")
    parser.add_argument("--timeout", type=count, default=30, metavar="S", help="seconds to wait for a silent server")
    _add_progress(parser)


def _add_import(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "import", "install a model from a zip or a folder, without the network", _run_import)
    parser.add_argument("path", type=Path, metavar="PATH", help="nnU-Net v2 model or MONAI bundle, folder or zip")
    parser.add_argument("--id", metavar="ID", help="name for the model (default: from its data set)")
    parser.add_argument("--title", metavar="TEXT", help="name for people")
    parser.add_argument("--role", choices=ROLES, help="what it is to do (default: guessed from its labels)")
    parser.add_argument("--license", metavar="TEXT", help="the model's license")
    parser.add_argument(
        "--structure",
        type=_structure,
        action="append",
        metavar="NAME=LABELS",
        help=f"such as lesion=2 or liver=1,2, of {', '.join(STRUCTURES)} (default: guessed from the labels' names)",
    )
    parser.add_argument("--margin", type=not_negative, metavar="MM", help="tissue around the liver that it works on")
    parser.add_argument(
        "--mirror-test-time",
        action=argparse.BooleanOptionalAction,
        help="average over mirrored copies (default: as its trainer's name says)",
    )
    _add_progress(parser)


def _add_combine(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "combine", "make a cascade of installed models", _run_combine)
    parser.add_argument("id", metavar="ID", help="of the new cascade")
    parser.add_argument("--title", metavar="TEXT", help="name for people (default: the id)")
    parser.add_argument("--locate", required=True, metavar="ID", help="model that locates, or 'embedded'")
    parser.add_argument(
        "--refine", required=True, action="append", metavar="ID", help="model that refines; repeatable"
    )


def _add_remove(actions: argparse._SubParsersAction) -> None:
    text = "remove a model, or a cascade with the models that no other one needs"
    parser = _action(actions, "remove", text, _run_remove)
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "--forget", action="store_true", help="also forget the download's checksum, which the next one is held against"
    )


def _add_verify(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "verify", "hold the installed files against their checksums", _run_verify)
    parser.add_argument("id", nargs="?", metavar="ID", help="of a model (default: all)")


def _structure(text: str) -> tuple[str, list[int]]:
    name, _, numbers = text.partition("=")
    if name not in STRUCTURES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STRUCTURES)}")
    try:
        labels = [count(number) for number in numbers.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {name}=1 or {name}=1,2") from None
    return name, labels


def _run_embedded(options: argparse.Namespace) -> int:
    manifests = _embedded()
    if options.json:
        print(json.dumps([manifest.as_dict() for manifest in manifests]))
        return EXIT_DONE
    return _run_list(options)


def _embedded() -> list[Any]:
    from ..models import load_manifest
    from ..models.cascade_file import read_cascade
    from ..resources import EMBEDDED_MODELS

    return [load_manifest(folder) for folder in read_cascade(EMBEDDED_MODELS).folders]


def _run_list(options: argparse.Namespace) -> int:
    library = Library()
    if getattr(options, "json", False):
        print(json.dumps(_records(library)))
        return EXIT_DONE
    for manifest in _embedded():
        spacing = " × ".join(f"{s:g}" for s in manifest.spacing_mm)
        print(f"{manifest.role:8} {manifest.id} (version {manifest.version}, {spacing} mm, {manifest.license})")
        print(f"         {manifest.intended_use}")
    installed = library.installed()
    print(f"\nInstalled in {library.root}:" if installed else f"\nNothing is installed in {library.root}.")
    for model in installed:
        print(f"{model.role:8} {model.id} ({model.title}; {model.license})")
    for name in library.damaged():
        print(f"damaged  {name} (install it again, or remove it)")
    print("\nCascades, for --model:")
    for cascade in library.cascades():
        lacking = "installed" if not cascade.missing else f"lacks {', '.join(cascade.missing)}"
        print(f"         {cascade.id} ({cascade.title}; {lacking})")
    there = {model.id for model in installed}
    available = [entry for entry in library.catalogue.models if entry.id not in there]
    print("\nAvailable, with 'livercascade models install':" if available else "")
    for entry in available:
        commercial = "commercial use allowed" if entry.commercial_use else "no commercial use"
        size = in_megabytes(entry.size_bytes)
        print(f"{entry.role:8} {entry.id} ({entry.title}; {entry.license}, {commercial}; {size})")
    return EXIT_DONE


def _records(library: Library) -> dict[str, Any]:
    there = {model.id for model in library.installed()}
    return {
        "folder": str(library.root),
        "embedded": [manifest.as_dict() for manifest in _embedded()],
        "installed": [_record(model) for model in library.installed()],
        "damaged": list(library.damaged()),
        "cascades": [
            {"id": c.id, "title": c.title, "members": list(c.members), "missing": list(c.missing)}
            for c in library.cascades()
        ],
        "available": [_available(entry) for entry in library.catalogue.models if entry.id not in there],
    }


def _record(model: StageFile) -> dict[str, Any]:
    return {**asdict(model), "folder": str(model.folder)}


def _available(entry: CatalogueModel) -> dict[str, Any]:
    names = (
        "id",
        "title",
        "role",
        "version",
        "license",
        "license_url",
        "commercial_use",
        "size_bytes",
        "intended_use",
    )
    return {**{name: getattr(entry, name) for name in names}, "citation": list(entry.citation), "url": entry.url}


class _Reporter:
    """Tells how far it is: a bar for people, or one JSON object per line for a program."""

    def __init__(self, options: argparse.Namespace):
        self.lines = options.json_progress
        self.printer = ProgressPrinter(sys.stderr, options.quiet or self.lines)
        cancelled = cancel_on_signals()
        self.progress = Progress(self._tell, lambda: bool(cancelled))
        self.title = ""
        self._stage, self._told = "", 0.0

    def event(self, name: str, **values: Any) -> None:
        if self.lines:
            print(json.dumps({"event": name, **values}), flush=True)

    def _tell(self, stage: str, fraction: float) -> None:
        self.printer(stage, fraction)
        now = time.monotonic()
        if stage != self._stage or fraction == 1 or now - self._told > 0.2:
            self._stage, self._told = stage, now
            self.event("progress", title=self.title, stage=stage, fraction=fraction)


def _reported(options: argparse.Namespace, work: Any) -> int:
    """Does ``work(reporter)``, which gives what to say and what to print as JSON; errors become events as well."""
    reporter = _Reporter(options)
    try:
        sentences, record = work(reporter)
    except LiverCascadeError as error:
        reporter.printer.close()
        reporter.event("error", kind=type(error).__name__, message=str(error), exit_code=error.exit_code)
        raise
    reporter.printer.close()
    reporter.event("done", sentences=sentences, **record)
    if getattr(options, "json", False):
        print(json.dumps(record))
    elif not options.quiet and not reporter.lines:
        print("\n".join(sentences))
    return EXIT_DONE


def _run_install(options: argparse.Namespace) -> int:
    return _reported(options, lambda reporter: _install(options, reporter))


def _install(options: argparse.Namespace, reporter: _Reporter) -> tuple[list[str], dict[str, Any]]:
    library = Library()
    entries = library.catalogue.members(options.id)
    connection = Connection(options.proxy, options.ca, options.mirror, options.timeout)
    there = {model.id for model in library.installed()}
    accepted = options.accept_license or _asked([entry for entry in entries if entry.id not in there], options)
    models = []
    for number, entry in enumerate(entries, 1):
        reporter.title = f"{entry.title} ({number} of {len(entries)})" if len(entries) > 1 else entry.title
        models.append(install(entry, library, connection, reporter.progress, accepted))
    sentences = [f"Installed: {model.id} in {model.folder}" for model in models]
    if library.catalogue.cascade(options.id) is not None:
        sentences.append(f"Use it with --model {options.id}.")
    return sentences, {"installed": [model.id for model in models]}


def _asked(entries: list[CatalogueModel], options: argparse.Namespace) -> bool:
    """Shows the licenses and asks, where there is somebody to ask."""
    if not entries or options.json_progress or not sys.stdin.isatty():
        return False
    for entry in entries:
        print(license_text(entry) + "\n")
    return input("Do you accept these licenses? [y/N] ").strip().lower() in ("y", "yes")


def _run_import(options: argparse.Namespace) -> int:
    return _reported(options, lambda reporter: _import(options, reporter))


def _import(options: argparse.Namespace, reporter: _Reporter) -> tuple[list[str], dict[str, Any]]:
    description = Description(
        id=options.id,
        title=options.title,
        role=options.role,
        license=options.license,
        structures=dict(options.structure) if options.structure else None,
        mirror=options.mirror_test_time,
        margin_mm=options.margin,
    )
    reporter.title = options.path.name
    imported = import_model(options.path, Library(), description, reporter.progress)
    model = imported.model
    sentences = [*imported.notes, f"Installed: {model.id} in {model.folder}"]
    return sentences, {"installed": [model.id], "notes": list(imported.notes), "stage": _record(model)}


def _run_combine(options: argparse.Namespace) -> int:
    path = Library().combine(options.id, options.title or options.id, options.locate, options.refine)
    return _say(options, [f"Use it with --model {options.id}."], {"id": options.id, "path": str(path)})


def _run_remove(options: argparse.Namespace) -> int:
    removed = Library().remove(options.id, options.forget)
    return _say(options, [f"Removed: {', '.join(removed)}"], {"removed": removed})


def _run_verify(options: argparse.Namespace) -> int:
    library = Library()
    wrong = [f"catalogue: {problem}" for problem in problems(read_catalogue())]
    for model in _chosen(library, options.id):
        wrong += [f"{model.id}: {problem}" for problem in library.problems(model)]
    if options.id is None:
        wrong += [f"{name}: its stage.json cannot be read" for name in library.damaged()]
    if wrong:
        raise ModelError("Not everything is as it was installed: " + "; ".join(wrong) + ". Install it again.")
    return _say(options, ["Everything is as it was installed."], {"problems": []})


def _chosen(library: Library, model_id: str | None) -> tuple[StageFile, ...]:
    if model_id is None:
        return library.installed()
    model = library.find(model_id)
    if model is None:
        raise ModelError(f"The model {model_id} is not installed. 'livercascade models' lists what is.")
    return (model,)


def _say(options: argparse.Namespace, sentences: list[str], record: dict[str, Any]) -> int:
    print(json.dumps(record) if getattr(options, "json", False) else "\n".join(sentences))
    return EXIT_DONE
