"""The models of others that are installed for this user.

The folder is the user's own for application data, or ``LIVERCASCADE_MODELS``:

* ``stages/ID/stage.json`` beside the files of a model
* ``cascades/ID/cascade.json``
* ``downloads/`` what has arrived of a download that is not finished
* ``checksums.json`` of the zips that were downloaded, so that a second download is held against the first
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError, OutputError
from ..progress import Progress
from ..resources import EMBEDDED_MODELS
from .cascade_file import CASCADE_NAME, SCHEMA_VERSION, read_cascade, write_json
from .catalogue import Catalogue, load_catalogue
from .download import digest_of, discard
from .stage_file import STAGE_NAME, StageFile, read_stage_file

FOLDER_VARIABLE = "LIVERCASCADE_MODELS"
EMBEDDED = "embedded"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


def models_folder() -> Path:
    """Where this user's models are."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "LiverCascade" / "models"


@dataclass(frozen=True)
class KnownCascade:
    """A cascade of the catalogue, or one that the user put together.

    Attributes:
        id, title, intended_use: for people.
        members: ids of its models, the one that locates first.
        missing: those that are not installed.
    """

    id: str
    title: str
    intended_use: str
    members: tuple[str, ...]
    missing: tuple[str, ...]


class Library:
    """The installed models.

    Args:
        root: the folder; None takes this user's.
        catalogue: what can be installed; None takes the one that comes with the program.
    """

    def __init__(self, root: Path | None = None, catalogue: Catalogue | None = None):
        self.root = (root or models_folder()).absolute()
        self.catalogue = catalogue or load_catalogue()
        self.stages, self.downloads = self.root / "stages", self.root / "downloads"
        self._cascades, self._checksums = self.root / "cascades", self.root / "checksums.json"

    def installed(self) -> tuple[StageFile, ...]:
        """All models that are installed and can be read, by id; damaged ones are found by :meth:`problems`."""
        found = []
        for folder in self._folders(self.stages, STAGE_NAME):
            try:
                found.append(read_stage_file(folder))
            except ModelError:
                continue  # damaged() names it
        return tuple(found)

    def damaged(self) -> tuple[str, ...]:
        """Ids of models whose ``stage.json`` cannot be read."""
        readable = {model.folder for model in self.installed()}
        return tuple(folder.name for folder in self._folders(self.stages, "") if folder not in readable)

    def find(self, model_id: str) -> StageFile | None:
        """The installed model with this id; None where there is none.

        Raises:
            ModelError: it is there and damaged.
        """
        folder = self.stages / checked_id(model_id)
        return read_stage_file(folder) if folder.is_dir() else None

    def problems(self, model: StageFile, progress: Progress | None = None) -> list[str]:
        """What is wrong with the files of an installed model: missing, or not what was installed."""
        found = []
        for name, expected in model.files_sha256.items():
            path = model.folder / name
            if not path.is_file():
                found.append(f"{name} is missing")
            elif digest_of(path, "sha256", progress or Progress()) != expected:
                found.append(f"{name} has changed since it was installed")
        return found

    def remove(self, name: str, forget: bool = False) -> list[str]:
        """Removes a model or a cascade; a cascade of the catalogue goes with those models that no other one needs.

        Args:
            name: id of a model or a cascade.
            forget: also forget the recorded checksum of the download.

        Returns:
            The ids that were removed.

        Raises:
            ModelError: nothing with this id is installed, or a cascade that the user put together needs it.
            OutputError: a file cannot be removed.
        """
        checked_id(name)
        models, cascades = self._doomed(name)
        needed = [c.id for c in self.cascades() if self._is_users(c.id) and set(c.members) & set(models)]
        needed = [cascade_id for cascade_id in needed if cascade_id not in cascades]
        if needed:
            raise ModelError(f"{name} is needed by {', '.join(needed)}. Remove that first.")
        entry = self.catalogue.cascade(name)
        concerned = models if entry is None else [m for m in entry.members if m in models or self.find(m) is None]
        traces = [model_id for model_id in {name, *concerned} if self._forget_download(model_id, forget)]
        if not models and not cascades and not traces:
            raise ModelError(f"{name} is not installed, so nothing was removed.")
        for folder in (*(self._cascades / c for c in cascades), *(self.stages / m for m in models)):
            _remove_tree(folder)
        self._drop_incomplete()
        return list(dict.fromkeys([*models, *cascades, *traces]))

    def clear(self, model_id: str) -> None:
        """Makes room for a model: removes the folder of that id, if there is one.

        Raises:
            OutputError: a file cannot be removed.
        """
        _remove_tree(self.stages / checked_id(model_id))

    def cascades(self) -> tuple[KnownCascade, ...]:
        """Those of the catalogue, and those that the user put together."""
        there = {model.id for model in self.installed()}
        known = []
        for entry in self.catalogue.cascades:
            missing = tuple(name for name in entry.members if name not in there)
            known.append(KnownCascade(entry.id, entry.title, entry.intended_use, entry.members, missing))
        for folder in self._folders(self._cascades, CASCADE_NAME):
            if self.catalogue.cascade(folder.name) is None:
                known.append(self._users_cascade(folder, there))
        return tuple(known)

    def path_of(self, cascade_id: str) -> Path:
        """Where the ``cascade.json`` of a cascade is, once it is complete."""
        return self._cascades / cascade_id / CASCADE_NAME

    def cascade_path(self, cascade_id: str) -> Path:
        """The ``cascade.json`` of a cascade all of whose models are installed.

        Raises:
            ModelError: a model is missing; the text says which, and how to install it.
        """
        known = next((cascade for cascade in self.cascades() if cascade.id == cascade_id), None)
        if known is None:
            names = ", ".join(cascade.id for cascade in self.cascades())
            raise ModelError(f"There is no cascade {cascade_id!r}. There are: {names}.")
        if known.missing:
            raise ModelError(
                f"The cascade {cascade_id} lacks {', '.join(known.missing)}. Install what is missing with "
                f"'livercascade models install {cascade_id}', or import it with 'livercascade models import'."
            )
        entry = self.catalogue.cascade(cascade_id)
        if entry is not None:
            self._write_cascade(entry.id, entry.title, entry.intended_use, entry.members)
        return self.path_of(cascade_id)

    def combine(self, cascade_id: str, title: str, locate: str, refine: Sequence[str]) -> Path:
        """Puts installed models together.

        Args:
            cascade_id, title: of the new cascade; one of the user's own with this id is replaced.
            locate: id of a model that locates, or 'embedded'.
            refine: ids of models that refine, or 'embedded'.

        Returns:
            The path of its ``cascade.json``.

        Raises:
            ModelError: a model is not installed or has another role.
        """
        checked_id(cascade_id)
        taken = self.catalogue.model(cascade_id) or self.catalogue.cascade(cascade_id)
        if taken or (self.stages / cascade_id).exists():
            raise ModelError(f"{cascade_id} is already the id of something else. Choose another one.")
        for name, role in [(locate, "locate"), *((name, "refine") for name in refine)]:
            model = None if name == EMBEDDED else self.find(name)
            if name != EMBEDDED and model is None:
                raise ModelError(f"The model {name} is not installed. 'livercascade models' lists what is.")
            if model is not None and model.role != role:
                raise ModelError(f"The model {name} has the role {model.role}, expected {role}.")
        return self._write_cascade(cascade_id, title, "", (locate, *refine))

    def recorded_sha256(self, model_id: str) -> str | None:
        """Checksum of the zip when it was first downloaded; None where it never was."""
        return self._recorded().get(model_id)

    def record_sha256(self, model_id: str, digest: str) -> None:
        """Remembers the checksum of a zip that was downloaded and installed."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self._checksums, {**self._recorded(), model_id: digest})

    def _recorded(self) -> dict[str, str]:
        if not self._checksums.exists():
            return {}
        try:
            content = json.loads(self._checksums.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"The checksums of earlier downloads in {self._checksums} cannot be read: {error}. Move the file away "
                "if you trust the next download."
            ) from None
        return content if isinstance(content, dict) else {}

    def _forget_download(self, model_id: str, forget: bool) -> bool:
        """Removes what has arrived of a model, and the checksum where that is wanted; True if there was something."""
        entry = self.catalogue.model(model_id)
        found = False
        if entry is not None:
            name = Path(entry.file).name
            found = (self.downloads / f"{name}.part").exists()
            discard(name, self.downloads)
        recorded = self._recorded()
        if forget and recorded.pop(model_id, None) is not None:
            write_json(self._checksums, recorded)
            found = True
        return found

    def _doomed(self, name: str) -> tuple[list[str], list[str]]:
        """Ids of the models and of the cascades that go with ``name``."""
        entry = self.catalogue.cascade(name)
        if entry is None:
            folder = self._cascades / name
            return ([name] if (self.stages / name).exists() else [], [name] if folder.exists() else [])
        others = [c for c in self.cascades() if c.id != name and not c.missing]
        kept = {member for cascade in others for member in cascade.members}
        models = [m for m in entry.members if (self.stages / m).exists() and m not in kept]
        return models, [name] if (self._cascades / name).exists() else []

    def _drop_incomplete(self) -> None:
        """A cascade.json of the catalogue whose models are gone leads nowhere."""
        for cascade in self.cascades():
            if cascade.missing and not self._is_users(cascade.id) and (self._cascades / cascade.id).exists():
                _remove_tree(self._cascades / cascade.id)

    def _is_users(self, cascade_id: str) -> bool:
        return self.catalogue.cascade(cascade_id) is None

    def _users_cascade(self, folder: Path, there: set[str]) -> KnownCascade:
        try:
            found = read_cascade(folder / CASCADE_NAME)
        except ModelError as error:
            return KnownCascade(folder.name, folder.name, str(error), (), ("a cascade.json that is valid",))
        members = [member.resolve() for member in (found.locate, *found.refine)]
        names = [EMBEDDED if EMBEDDED_MODELS.resolve() in member.parents else member.name for member in members]
        # The embedded models that refine are one for the user.
        names = (names[0], *dict.fromkeys(names[1:]))
        missing = tuple(name for name in names if name != EMBEDDED and name not in there)
        return KnownCascade(folder.name, found.title or folder.name, "", names, missing)

    def _write_cascade(self, cascade_id: str, title: str, intended_use: str, members: Sequence[str]) -> Path:
        embedded = read_cascade(EMBEDDED_MODELS)

        def where(name: str, own: Sequence[Path]) -> list[str]:
            return [str(folder) for folder in own] if name == EMBEDDED else [f"../../stages/{name}"]

        content = {
            "schema_version": SCHEMA_VERSION,
            "id": cascade_id,
            "title": title,
            "intended_use": intended_use,
            "locate": where(members[0], [embedded.locate])[0],
            "refine": [folder for name in members[1:] for folder in where(name, embedded.refine)],
            "classify": None,
        }
        path = self.path_of(cascade_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.") from None
        return path

    @staticmethod
    def _folders(parent: Path, marker: str) -> list[Path]:
        """Folders of ``parent`` with a file ``marker``, sorted; hidden ones are work in progress."""
        if not parent.is_dir():
            return []
        return sorted(f for f in parent.iterdir() if not f.name.startswith(".") and (f / marker).exists())


def checked_id(text: str) -> str:
    """``text``, if it can be an id and a folder's name on every system.

    Raises:
        ModelError: it cannot.
    """
    if not _ID.fullmatch(text) or text in ("con", "prn", "aux", "nul", EMBEDDED):
        raise ModelError(f"{text!r} is no id: use up to 60 small letters, digits and hyphens, and no other signs.")
    return text


def models_argument(choice: Path | None, library: Callable[[], Library] = Library) -> Path | None:
    """What ``--model`` means: a folder or file that exists, or the id of a cascade.

    Raises:
        ModelError: it is neither, or the id of a cascade that is not complete, or of a single model.
    """
    if choice is None or choice.exists() or len(choice.parts) != 1:
        return choice
    name, known = str(choice), library()
    if any(cascade.id == name for cascade in known.cascades()):
        return known.cascade_path(name)
    if known.catalogue.model(name) is not None or (_ID.fullmatch(name) and known.find(name) is not None):
        fitting = [cascade.id for cascade in known.cascades() if name in cascade.members]
        raise ModelError(
            f"{name} is one model, expected a cascade. Choose {' or '.join(fitting) or 'one'}, or make one with "
            f"'livercascade models combine'."
        )
    names = ", ".join(cascade.id for cascade in known.cascades() if not cascade.missing)
    raise ModelError(
        f"There is no folder {name}, and no cascade of that name. Installed cascades: {names or 'none'}. "
        "'livercascade models' lists what can be installed."
    )


def _remove_tree(folder: Path) -> None:
    """Removes a folder; it is renamed first, so that what is left of a failed removal does not look installed."""
    if not folder.exists():
        return
    hidden = folder.with_name(f".removed-{folder.name}-{os.getpid()}")
    try:
        folder.replace(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be removed: {error.strerror or error}. Close the programs that use it and try again."
        ) from None
