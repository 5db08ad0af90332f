"""The house rules: who imports whom, and that the lists which Slicer's build reads agree with the tree."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "LiverCascade" / "LiverCascadeLib"
TRAINING = ROOT / "LiverCascadeTraining" / "LiverCascadeTrainingLib"
TRAINING_PANEL = ROOT / "LiverCascadeTraining" / "LiverCascadeTrainingPanel"
MODULES = ("LiverCascade", "LiverCascadeTraining")

# The only rooms that know Slicer: scene.py MRML, panel/ Qt.
SCENE_MODULES = {"slicer", "vtk", "vtkmodules", "MRMLCore"}
SLICER_MODULES = SCENE_MODULES | {"qt", "ctk"}
# Scripted modules of Slicer and of the PyTorch extension, which the panel may import where it needs them.
SCRIPTED_MODULES = {"SampleData", "PyTorchUtils"}
# No arrow points from left to right in either row, not even by way of others.
ORDER = (
    "geometry",
    "volume",
    "models",
    "predictor",
    "cascade",
    "worker",
    "scene",
    "panel",
    "commands",
    "cli",
    "__main__",
)
RESULTS_ORDER = ("geometry", "volume", "lesions", "followup", "report", "dicom", "scene", "study", "commands", "cli")
# What the extension index's reviewers accept at file scope in a file that Slicer loads.
AT_FILE_SCOPE = sys.stdlib_module_names | SLICER_MODULES | {"SimpleITK", "numpy", "scipy"}

# Files that hold nothing but networks and their parts. Others import them inside the function that needs them.
NETWORK_FILES = {"memory_order.py", "nnunet_networks.py"}

APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def files_below(folder: Path) -> list[Path]:
    """Files below ``folder`` that belong to the project: neither caches nor hidden files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path
        for path in files
        if not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
    )


def project_files() -> list[Path]:
    """Files that git tracks, or would track; without git, those outside caches and environments."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        answer = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return files_below(ROOT)
    paths = (ROOT / os.fsdecode(name) for name in answer.stdout.split(b"\0") if name)
    return sorted(path for path in paths if path.is_file())


def is_text(path: Path) -> bool:
    """True for files that people read."""
    return b"\0" not in path.read_bytes()[:4096]


@cache
def syntax_tree(path: Path) -> ast.Module:
    """The parsed Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """Dotted name under which Python imports ``path``."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, nodes: Iterator[ast.AST] | None = None) -> set[str]:
    """Absolute dotted names that ``path`` imports, at file scope and inside functions."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    names = set()
    for node in ast.walk(syntax_tree(path)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def at_file_scope(path: Path) -> Iterator[ast.AST]:
    """Nodes that run when the file is imported: outside functions and outside ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [syntax_tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def engine_files() -> list[Path]:
    """All files of LiverCascadeLib."""
    return [path for path in files_below(ENGINE) if path.suffix == ".py"]


def room(path: Path) -> str:
    """The part of the engine that ``path`` belongs to: a file's stem, or the folder's name."""
    return path.relative_to(ENGINE).with_suffix("").parts[0]


@cache
def arrows() -> dict[str, set[str]]:
    """For each room of the engine: the rooms that it imports itself."""
    rooms = {room(path) for path in engine_files()}
    found: dict[str, set[str]] = {name: set() for name in rooms}
    for path in engine_files():
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "LiverCascadeLib" and len(parts) > 1 and parts[1] in rooms:
                found[room(path)].add(parts[1])
    return {name: targets - {name} for name, targets in found.items()}


def reachable(start: str) -> set[str]:
    """Rooms that ``start`` imports, itself or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows()[waiting.pop()] - seen
        seen |= new
        waiting.extend(new)
    return seen


@pytest.mark.parametrize("path", engine_files(), ids=lambda path: str(path.relative_to(ENGINE)))
def test_only_the_scene_knows_mrml_and_only_the_panel_knows_qt(path: Path):
    allowed = {"scene": SCENE_MODULES, "panel": SLICER_MODULES}.get(room(path), set())
    used = {name.split(".")[0] for name in imports_of(path)} & SLICER_MODULES
    assert used <= allowed, f"{path.name} imports {sorted(used - allowed)}: move that to scene.py or panel/"


@pytest.mark.parametrize("order", [ORDER, RESULTS_ORDER], ids=["from volume to labels", "from labels to results"])
def test_imports_in_the_engine_point_one_way(order: tuple[str, ...]):
    wrong = [
        f"{left} -> {right}"
        for index, left in enumerate(order)
        for right in order[index + 1 :]
        if left in arrows() and right in reachable(left)
    ]
    assert not wrong, f"these arrows point the wrong way: {wrong}"


def test_no_room_of_the_engine_imports_itself_through_others():
    assert not [name for name in arrows() if name in reachable(name)]


def test_training_imports_the_engine_and_never_the_other_way_round():
    loaded = [*engine_files(), ROOT / "LiverCascade" / "LiverCascade.py"]
    assert not [path.name for path in loaded if any(n.startswith("LiverCascadeTraining") for n in imports_of(path))]
    for path in files_below(TRAINING):
        if path.suffix == ".py":
            used = {name.split(".")[0] for name in imports_of(path)}
            assert not used & {"qt", "ctk", "slicer", "LiverCascadeTrainingPanel"}, path.name


@pytest.mark.parametrize(
    "path",
    [*engine_files(), *sorted(TRAINING_PANEL.glob("*.py")), *(ROOT / name / f"{name}.py" for name in MODULES)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_slicer_loads_imports_heavy_packages_lazily(path: Path):
    names = imports_of(path, at_file_scope(path))
    assert not {Path(file).stem for file in NETWORK_FILES} & {name.split(".")[-1] for name in names}
    allowed = AT_FILE_SCOPE | ({"torch"} if path.name in NETWORK_FILES else set())
    heavy = {name.split(".")[0] for name in names} - allowed
    heavy = {name for name in heavy if not name.startswith("LiverCascade")}
    assert not heavy, f"{path.name} imports {sorted(heavy)} at file scope: import inside the function that needs it"


def cmake_list(name: str, variable: str) -> set[str]:
    """The files that a module's CMakeLists.txt names in ``set(variable …)``."""
    text = (ROOT / name / "CMakeLists.txt").read_text(encoding="utf-8")
    text = re.sub(r"#.*", "", text).replace("${MODULE_NAME}", name)
    match = re.search(rf"set\({variable}\s+(.*?)\)", text, re.DOTALL)
    assert match, f"{name}/CMakeLists.txt does not set {variable}"
    entries = match.group(1).split()
    assert len(entries) == len(set(entries)), f"{name}/CMakeLists.txt names a file twice in {variable}"
    return set(entries)


@pytest.mark.parametrize("name", MODULES)
def test_cmake_lists_every_file_that_slicer_must_install(name: str):
    folder = ROOT / name
    tracked = {path.relative_to(folder).as_posix() for path in project_files() if path.is_relative_to(folder)}
    there = {
        "MODULE_PYTHON_SCRIPTS": {f for f in tracked if f.endswith(".py")},
        "MODULE_PYTHON_RESOURCES": {f for f in tracked if f.startswith("Resources/") and not f.endswith(".py")},
    }
    for variable, wanted in there.items():
        listed = cmake_list(name, variable)
        lines = [f"  add     {file}" for file in sorted(wanted - listed)]
        lines += [f"  remove  {file}" for file in sorted(listed - wanted)]
        assert not lines, f"\n{name}/CMakeLists.txt, set({variable}):\n" + "\n".join(lines)


def extension_setting(name: str) -> str:
    """A quoted string that the root CMakeLists.txt sets."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    match = re.search(rf'^set\({name} "([^"]*)"\)', text, re.MULTILINE)
    assert match, f"CMakeLists.txt does not set {name} to one quoted string"
    return match.group(1)


def catalog_entry() -> dict:
    """The content of the entry for Slicer's extension index."""
    return json.loads((ROOT / "LiverCascade.json").read_text(encoding="utf-8"))


def extension_description() -> dict[str, str]:
    """The content of the s4ext file."""
    lines = (ROOT / "LiverCascade.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    return {key: value.strip() for key, value in pairs}


def test_project_has_the_name_of_its_index_files():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    project = re.search(r"^project\((\w+)\)", text, re.MULTILINE).group(1)
    assert (ROOT / f"{project}.json").is_file() and (ROOT / f"{project}.s4ext").is_file()
    assert set(re.findall(r"^add_subdirectory\((\w+)\)", text, re.MULTILINE)) == set(MODULES)


def test_index_entry_follows_the_schema():
    entry = catalog_entry()
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    required = {"$schema", "category", "scm_url"}
    optional = {"scm_revision", "scm_type", "build_dependencies", "dicom_support_rule", "build_subdirectory"}
    assert required <= set(entry) <= required | optional | {"enabled", "tier"}
    assert entry["scm_url"].startswith("https://") and entry["scm_url"].split("/")[-1].startswith("Slicer")
    assert 1 <= entry["tier"] <= 5


def test_index_files_say_what_cmake_says():
    entry, description = catalog_entry(), extension_description()
    assert entry["build_dependencies"] == extension_setting("EXTENSION_DEPENDS").split()
    assert entry["category"] == extension_setting("EXTENSION_CATEGORY")
    keys = {"homepage", "contributors", "description", "iconurl", "screenshoturls", "depends", "category"}
    for key in keys:
        assert description[key] == extension_setting(f"EXTENSION_{key.upper()}"), key
    twins = {"scmurl": "scm_url", "scmrevision": "scm_revision", "build_subdirectory": "build_subdirectory"}
    for key, twin in twins.items():
        assert description[key] == entry[twin], key


@pytest.mark.parametrize("setting", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_in_the_index_exist(setting: str):
    for url in extension_setting(setting).split():
        path = url.split(f"/{catalog_entry()['scm_revision']}/", 1)[1]
        assert (ROOT / path).is_file(), f"{setting} names {path}, which does not exist"


def pyproject() -> dict:
    """The content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_python_package_is_installed():
    found = {"LiverCascadeLib.Resources", "LiverCascadeTrainingLib.Resources"}
    for folder in (ENGINE, TRAINING):
        found |= {module_name(path) for path in files_below(folder) if path.name == "__init__.py"}
        homeless = {p.parent for p in files_below(folder) if p.suffix == ".py"} - {
            p.parent for p in files_below(folder) if p.name == "__init__.py"
        }
        assert not homeless, f"these folders lack an __init__.py: {sorted(map(str, homeless))}"
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == found


def test_console_scripts_lead_to_functions():
    for target in pyproject()["project"]["scripts"].values():
        module, function = target.split(":")
        paths = [folder.parent / f"{module.replace('.', '/')}.py" for folder in (ENGINE, TRAINING)]
        path = next((path for path in paths if path.is_file()), None)
        assert path, f"{target}: there is no such module"
        assert function in {node.name for node in syntax_tree(path).body if isinstance(node, ast.FunctionDef)}


def requirement_lines(path: Path) -> list[Requirement]:
    """The requirements in a requirements or constraints file."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def test_slicer_gets_the_same_ranges_as_everybody_else():
    project = {r.name.lower(): r for r in map(Requirement, pyproject()["project"]["dependencies"])}
    in_slicer = requirement_lines(ROOT / "LiverCascade" / "Resources" / "requirements.txt")
    for requirement in in_slicer:
        assert project[requirement.name.lower()].specifier == requirement.specifier, requirement.name
        assert not any(spec.operator in ("==", "===") for spec in requirement.specifier), "ranges, not pins"
    # Slicer brings five of them; torch comes from the PyTorch extension.
    brought = {"numpy", "scipy", "pydicom", "simpleitk", "packaging", "torch"}
    assert {r.name.lower() for r in in_slicer} == set(project) - brought
    source = (ROOT / "LiverCascade" / "LiverCascade.py").read_text(encoding="utf-8")
    assert f'TORCH_RANGE = "{project["torch"].specifier}"' in source


def test_constraints_pin_everything_that_is_required():
    pins = {r.name.lower(): r.specifier for r in requirement_lines(ROOT / "constraints.txt")}
    for specifier in pins.values():
        assert [spec.operator for spec in specifier] == ["=="]
    project = pyproject()["project"]
    required = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    for requirement in map(Requirement, required):
        pin = next(iter(pins[requirement.name.lower()])).version
        assert "+" not in pin, f"{requirement.name}: a local build cannot be installed elsewhere"
        assert requirement.specifier.contains(pin), f"{requirement} is pinned to {pin}"


@pytest.mark.parametrize(("folder", "extras"), [(ENGINE, ()), (TRAINING, ("train",))], ids=["engine", "training"])
def test_every_imported_package_is_a_declared_dependency(folder: Path, extras: tuple[str, ...]):
    project = pyproject()["project"]
    declared = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"][e] for e in extras)]
    names = {Requirement(line).name.lower() for line in declared}
    distributions = {"PIL": "pillow", "yaml": "pyyaml"}
    known = SLICER_MODULES | SCRIPTED_MODULES
    files = [path for path in files_below(folder) if path.suffix == ".py"]
    roots = {name.split(".")[0] for path in files for name in imports_of(path)}
    foreign = {root for root in roots - sys.stdlib_module_names - known if not root.startswith("LiverCascade")}
    undeclared = {root for root in foreign if distributions.get(root, root).lower() not in names}
    assert not undeclared, f"add to pyproject.toml, or do without: {sorted(undeclared)}"


def test_license_is_apache_2_unmodified():
    assert hashlib.sha256((ROOT / "LICENSE.txt").read_bytes()).hexdigest() == APACHE_2_SHA256


def test_panel_uses_only_widgets_that_its_ui_file_has():
    path = ROOT / "LiverCascade" / "Resources" / "UI" / "LiverCascade.ui"
    document = ElementTree.parse(path)
    widgets = {element.get("name") for element in document.iter() if element.tag in ("widget", "action")}
    used = set(re.findall(r"self\.ui\.(\w+)", (ROOT / "LiverCascade" / "LiverCascade.py").read_text(encoding="utf-8")))
    assert used <= widgets, f"not in {path.name}: {sorted(used - widgets)}"
    for tag in ("sender", "receiver"):
        assert {element.text for element in document.iter(tag)} <= widgets
    custom = {element.text for element in document.findall("./customwidgets/customwidget/class")}
    classes = {element.get("class") for element in document.iter("widget")}
    assert {c for c in classes if not c.startswith("Q")} == custom


def test_texts_have_unix_line_ends_and_no_path_of_one_machine():
    home = re.compile("|".join(f"{start}[A-Za-z]" for start in ("(?<![.\\w])/work/", "/root/", "/home/", "/Users/")))
    temporary = re.compile("(?<![.\\w])/" + "tmp/|[A-Z]:" + r"\\\\?Users")
    for path in project_files():
        if not is_text(path) or path.suffix == ".svg":
            continue
        content = path.read_bytes()
        assert b"\r" not in content, f"{path.relative_to(ROOT)} has other line ends than LF"
        assert not content or content.endswith(b"\n"), f"{path.relative_to(ROOT)} does not end with a line end"
        if path.name != "test_house.py":
            for pattern in (home, temporary):
                match = pattern.search(content.decode("utf-8"))
                assert not match, f"{path.relative_to(ROOT)} names a path of one machine: {match.group()}…"


def test_links_in_the_documentation_lead_somewhere():
    dead = []
    for path in project_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)}: {target}")
    assert not dead, dead


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
