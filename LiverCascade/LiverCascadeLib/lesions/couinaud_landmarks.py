"""The points that Couinaud's planes run through: what they are called, how they are read, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError

Point = tuple[float, float, float]

# Two landmarks closer than this cannot be two places; one farther from the liver than that is on another scan.
NEAREST_MM = 5.0
FARTHEST_MM = 60.0


@dataclass(frozen=True)
class LandmarkKind:
    """A place in or at the liver that a reader can find.

    Attributes:
        key: in dictionaries and files of the project.
        name: of the control points in Slicer.
        hint: where to click.
        aliases: other names that are understood; lower case.
    """

    key: str
    name: str
    hint: str
    aliases: tuple[str, ...]


MHV, RHV, PORTAL, FISSURE, GALLBLADDER, IVC = (
    "middle_hepatic_vein",
    "right_hepatic_vein",
    "portal_bifurcation",
    "umbilical_fissure",
    "gallbladder_fossa",
    "inferior_vena_cava",
)
KINDS: tuple[LandmarkKind, ...] = (
    LandmarkKind(IVC, "Inferior vena cava", "in its middle, where the hepatic veins join it", ("ivc", "vena cava")),
    LandmarkKind(
        GALLBLADDER, "Gallbladder fossa", "in the middle of the gallbladder's bed", ("gallbladder", "gb", "cantlie")
    ),
    LandmarkKind(MHV, "Middle hepatic vein", "in the vein, a few centimeters below its mouth", ("mhv",)),
    LandmarkKind(RHV, "Right hepatic vein", "in the vein, a few centimeters below its mouth", ("rhv",)),
    LandmarkKind(
        FISSURE,
        "Umbilical fissure",
        "where the left portal vein turns forward, before it divides (umbilical portion)",
        ("uf", "umbilical portion", "falciform ligament", "round ligament"),
    ),
    LandmarkKind(
        PORTAL,
        "Portal bifurcation",
        "where the portal vein divides into right and left",
        ("portal vein", "pv", "bifurcation"),
    ),
)
BY_KEY = {kind.key: kind for kind in KINDS}
_NAMES = {name: kind.key for kind in KINDS for name in (kind.key.replace("_", " "), kind.name.lower(), *kind.aliases)}


def kind_of(name: str) -> str | None:
    """The key of the landmark that a point of this name is, such as 'RHV-2' or 'Right hepatic vein 1'.

    None where it is no landmark.
    """
    plain = re.sub(r"[\s_\-]+", " ", name.strip().lower())
    return _NAMES.get(re.sub(r" ?\d+$", "", plain).strip())


_ESTIMATED = re.compile(r"estimated at (\S+) (\S+) (\S+)")


def estimated_text(position: Sequence[float]) -> str:
    """What is written beside a point that nobody placed, so that it is told from one that was moved."""
    return "estimated at " + " ".join(f"{n:.3f}" for n in position)


def is_estimated(text: str, position: Sequence[float]) -> bool:
    """Whether a point with this description still lies where it was estimated.

    Args:
        text: of :func:`estimated_text`, or anything else.
        position: RAS mm, in the coordinates that the text was made with.
    """
    match = _ESTIMATED.fullmatch(text.strip())
    if match is None:
        return False
    try:
        return bool(np.abs(np.subtract([float(n) for n in match.groups()], position)).max() < 0.05)
    except ValueError:
        return False


def known_names() -> str:
    """The names of all landmarks, for messages."""
    return ", ".join(f"'{kind.name}'" for kind in KINDS)


def check(landmarks: Mapping[str, Sequence[Point]], low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """The landmarks as arrays (n, 3), RAS mm; kinds without a point are left out.

    Args:
        landmarks: points by the keys of :data:`KINDS`.
        low, high: corners of the liver's box, RAS mm.

    Raises:
        InputError: an unknown key, a position that is not a number, a point far from the liver, or two landmarks at
            one place.
    """
    found = {}
    for key, points in landmarks.items():
        if key not in BY_KEY:
            raise InputError(f"There is no landmark '{key}'. Known are {', '.join(BY_KEY)}.")
        array = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if not len(array):
            continue
        name = BY_KEY[key].name
        if not np.isfinite(array).all():
            raise InputError(f"The landmark '{name}' has a position that is not a number. Place it again.")
        outside = np.linalg.norm(np.maximum(0, np.maximum(low - array, array - high)), axis=1).max()
        if outside > FARTHEST_MM:
            raise InputError(
                f"The landmark '{name}' lies {outside:.0f} mm outside the liver. Place it on this scan; if it comes "
                "from a file, check that the file belongs to this scan and says its coordinate system (RAS or LPS)."
            )
        found[key] = array
    _check_distances(found)
    return found


def _check_distances(found: dict[str, np.ndarray]) -> None:
    keys = list(found)
    for index, one in enumerate(keys):
        for other in keys[index + 1 :]:
            distance = float(np.linalg.norm(found[one].mean(axis=0) - found[other].mean(axis=0)))
            if distance < NEAREST_MM:
                raise InputError(
                    f"The landmarks '{BY_KEY[one].name}' and '{BY_KEY[other].name}' lie {distance:.1f} mm apart: no "
                    f"plane can be laid through them. Place them at least {NEAREST_MM:.0f} mm apart."
                )


def read_landmarks(path: Path | str) -> dict[str, list[Point]]:
    """Reads the landmarks of a file that Slicer's Markups module wrote.

    Points are told apart by their names (:func:`kind_of`); points that were not placed, and estimates that nobody
    moved, are left out.

    Args:
        path: ``.mrk.json`` or ``.fcsv``.

    Returns:
        points by the keys of :data:`KINDS`, RAS mm.

    Raises:
        InputError: there is no such file, it cannot be read, or a point has no known name.
    """
    path = Path(path)
    reader = {".json": _json_points, ".fcsv": _fcsv_points}.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"'{path.name}' is no file of landmarks. Give a .mrk.json or .fcsv that Slicer's Markups saved."
        )
    try:
        named = reader(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"There is no file of landmarks {path}. Check the path.") from error
    except OSError as error:
        raise InputError(f"The file of landmarks {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InputError(
            f"'{path.name}' is damaged or no file of landmarks. Save the points again in Slicer."
        ) from error
    found: dict[str, list[Point]] = {}
    for name, position in named:
        key = kind_of(name)
        if key is None:
            raise InputError(
                f"The point '{name}' in '{path.name}' is no known landmark. Name it one of {known_names()}."
            )
        found.setdefault(key, []).append(position)
    if not found:
        raise InputError(f"'{path.name}' holds no placed point. Place at least one of {known_names()}.")
    return found


def _json_points(text: str) -> list[tuple[str, Point]]:
    named = []
    for markup in json.loads(text)["markups"]:
        sign = _sign(markup.get("coordinateSystem", "LPS"))
        for point in markup.get("controlPoints", []):
            if point.get("positionStatus", "defined") == "defined" and point.get("position"):
                position = _point(point["position"], sign)
                if not is_estimated(str(point.get("description", "")), position):
                    named.append((str(point.get("label", "")), position))
    return named


def _fcsv_points(text: str) -> list[tuple[str, Point]]:
    lines = text.splitlines()
    if not lines or "Markups fiducial file" not in lines[0]:
        raise ValueError
    # Files from before Slicer 4.11 name no system or a number.
    sign = _sign(next((line.split("=")[1].strip() for line in lines if line.startswith("# CoordinateSystem")), "RAS"))
    rows = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    points = [(row[11], _point(row[1:4], sign), row[12] if len(row) > 12 else "") for row in rows]
    return [(name, position) for name, position, text in points if not is_estimated(text, position)]


def _sign(system: object) -> float:
    """What R and A are multiplied by."""
    return {"RAS": 1.0, "0": 1.0, "LPS": -1.0, "1": -1.0}[str(system)]


def _point(position: Sequence[object], sign: float) -> Point:
    x, y, z = (float(value) for value in position)
    if not np.isfinite((x, y, z)).all():
        raise ValueError
    return sign * x, sign * y, z
