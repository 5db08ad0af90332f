"""A bundle's configuration as data: references are followed, nothing is evaluated and nothing is imported.

MONAI runs texts that begin with '$' as Python and makes an object of whatever '_target_' names. Here a component is
a name with arguments, to be compared with a list of what is known; of the expressions a few exact forms are read,
and any other is refused where its value is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError

_ID = r"\w+(?:(?:#|::)\w+)*"
_REFERENCE = re.compile(rf"@({_ID})")
_LITERAL = r"""(?:\[[-+\d.,\s]*\]|[-+\d.]+|True|False|'[^'"\\]*'|"[^'"\\]*")"""
# The expressions that are read: a choice between two literals, the length of a list, and a path put together.
_CHOICE = re.compile(rf"\$\s*({_LITERAL})\s+if\s+@({_ID})\s+else\s+({_LITERAL})\s*")
_LENGTH = re.compile(rf"\$\s*len\(\s*@({_ID})\s*\)\s*")
_PATH_TERM = rf"""(?:@{_ID}|'[^'"\\]*'|"[^'"\\]*")"""
_PATH = re.compile(rf"\$\s*{_PATH_TERM}(?:\s*\+\s*{_PATH_TERM})*\s*")
# References to references end here; a file that goes deeper was made to go on forever.
_DEEPEST = 20


@dataclass(frozen=True)
class Component:
    """Something that MONAI would make an object of.

    Attributes:
        name: of the class, without the modules before it.
        path: as the configuration writes it.
        arguments: as they stand in the configuration, references included.
        place: where it stands, for messages.
    """

    name: str
    path: str
    arguments: Mapping[str, Any]
    place: str


class Config:
    """The content of ``inference.json``.

    Args:
        content: as it was read.
        overrides: values by id, such as ``{"displayable_configs#highres": False}``, instead of those of the file.

    Raises:
        ModelError: an override names nothing that there is, or is an expression itself.
    """

    def __init__(self, content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None):
        self._content = content
        self._overrides: dict[str, Any] = {}
        for name, value in (overrides or {}).items():
            if not self.has(name):
                raise ModelError(f"its stage.json overrides '{name}', which its configuration does not have.")
            if isinstance(value, str) and value[:1] in ("$", "@", "%"):
                raise ModelError(f"its stage.json overrides '{name}' with {value!r}; only plain values are taken.")
            self._overrides["#".join(_parts(name))] = value

    def has(self, name: str) -> bool:
        """Whether there is something under an id such as 'inferer' or 'preprocessing#transforms#0'."""
        node: Any = self._content
        for part in _parts(name):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif _is_list(node) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                return False
        return True

    def raw(self, name: str) -> Any:
        """What stands under an id.

        Raises:
            ModelError: nothing stands there.
        """
        if not self.has(name):
            raise ModelError(f"its configuration refers to '{name}', which it does not have.")
        node: Any = self._content
        path: list[str] = []
        for part in _parts(name):
            path.append(part)
            node = node[part] if isinstance(node, Mapping) else node[int(part)]
            node = self._overrides.get("#".join(path), node)
        return node

    def plain(self, value: Any, place: str) -> Any:
        """``value`` with all references followed: numbers, texts, lists and mappings of them.

        Raises:
            ModelError: an expression or a component stands where a value is needed.
        """
        value = self._followed(value, place)
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise ModelError(f"its {place} is made by '{value['_target_']}', where only a plain value is taken.")
            return {key: self.plain(part, f"{place}#{key}") for key, part in value.items()}
        if _is_list(value):
            return [self.plain(part, f"{place}#{n}") for n, part in enumerate(value)]
        return value

    def items(self, value: Any, place: str) -> list[Any]:
        """The members of a list, as they stand.

        Raises:
            ModelError: it is no list.
        """
        value = self._followed(value, place)
        if not _is_list(value):
            raise ModelError(f"its {place} is {_shown(value)}, expected a list.")
        return list(value)

    def component(self, value: Any, place: str) -> Component:
        """What MONAI would make an object of.

        Raises:
            ModelError: it is none.
        """
        value = self._followed(value, place)
        if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
            raise ModelError(f"its {place} is {_shown(value)}, expected a component with a '_target_'.")
        path = value["_target_"]
        arguments = {key: part for key, part in value.items() if key not in ("_target_", "_desc_")}
        return Component(path.rpartition(".")[2], path, arguments, place)

    def path(self, value: Any, place: str) -> str:
        """A path below the bundle's root, which texts and references are put together to.

        Raises:
            ModelError: it is no such path.
        """
        return self._path(value, place, 0).lstrip("/")

    def _path(self, value: Any, place: str, depth: int) -> str:
        _check_depth(depth, place)
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
            # The root is where the bundle lies, whatever the file says of it.
            return "" if match.group(1) == "bundle_root" else self._path(self.raw(match.group(1)), place, depth + 1)
        if isinstance(value, str) and _PATH.fullmatch(value):
            terms = re.findall(_PATH_TERM, value)
            parts = [term[1:-1] if term[0] in "'\"" else self._path(term, place, depth + 1) for term in terms]
            return "".join(parts)
        value = self._followed(value, place)
        if not isinstance(value, str):
            raise ModelError(f"its {place} is {_shown(value)}, expected a path.")
        return value

    def _followed(self, value: Any, place: str, depth: int = 0) -> Any:
        """``value``, or where it is a reference or an expression that is read, what that stands for."""
        _check_depth(depth, place)
        if not isinstance(value, str) or value[:1] not in ("@", "$", "%"):
            return value
        if match := _REFERENCE.fullmatch(value):
            return self._followed(self.raw(match.group(1)), place, depth + 1)
        if match := _CHOICE.fullmatch(value):
            first, name, second = match.groups()
            chosen = self._followed(self.raw(name), place, depth + 1)
            if not isinstance(chosen, bool):
                raise ModelError(
                    f"its {place} depends on '{name}', which is {_shown(chosen)}, expected true or false."
                )
            return _literal(first if chosen else second, place)
        if match := _LENGTH.fullmatch(value):
            return len(self.items(f"@{match.group(1)}", place))
        raise ModelError(
            f"its {place} is {_shown(value)}: a program, not a value, and programs in a bundle are never run. Write "
            "the value itself there."
        )


def _parts(name: str) -> list[str]:
    return re.split("#|::", name)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_depth(depth: int, place: str) -> None:
    if depth > _DEEPEST:
        raise ModelError(f"its {place} refers to itself.")


def _literal(text: str, place: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ModelError(f"its {place} holds {text!r}, which is neither a number nor a list of numbers.") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
