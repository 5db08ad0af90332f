"""``livercascade models``: what is embedded."""

from __future__ import annotations

import argparse
import json

from ..errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("models", help="list the embedded models", description="Lists the embedded models.")
    parser.add_argument("--json", action="store_true", help="print the manifests as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..models import load_manifest
    from ..resources import EMBEDDED_MODELS

    manifests = [load_manifest(EMBEDDED_MODELS / role) for role in ("locate", "refine")]
    if options.json:
        print(json.dumps([manifest.as_dict() for manifest in manifests]))
        return EXIT_DONE
    for manifest in manifests:
        spacing = " × ".join(f"{s:g}" for s in manifest.spacing_mm)
        print(f"{manifest.role:8} {manifest.id} (version {manifest.version}, {spacing} mm, {manifest.license})")
        print(f"         {manifest.intended_use}")
    return EXIT_DONE
