"""The schema of the chart's values and the table in its README, made from values.yaml: `python charts/values.py`.

The comment above a value says what it is. Lines of it that begin with @ say what is checked:

    @enum A B ...      one of these
    @pattern REGEX     a text that this regular expression finds
    @minimum N         a number from N on
    @items TYPE        a map or list of the user's own, with entries of this type of JSON Schema; `any` for all types
    @everywhere        values of the same name further down mean the same: they need no comment

Everything else comes from the default: its type, and for a map the values that it may have.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "fabwafer"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"

_BEGIN = "<!-- The rest of this file is made from values.yaml by charts/values.py. -->\n"
_HEADING = re.compile(r"# (?P<name>\S.*?) -{10,}")
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


class CommentError(ValueError):
    """A comment in values.yaml is missing or cannot be read. The text says which."""


@dataclass(frozen=True)
class Comment:
    """What stands above a value.

    Args:
        text: The comment without its checks, in one line.
        checks: The arguments of its lines that begin with @, by their names.
    """

    text: str
    checks: dict[str, str]


@dataclass(frozen=True)
class Value:
    """One value of the chart.

    Args:
        path: Its name, such as `nats.storage.size`.
        section: The heading that it stands under.
        default: Its default.
        comment: Its comment.
        members: The values in it, for a map of the chart's own.
    """

    path: str
    section: str
    default: Any
    comment: Comment
    members: tuple["Value", ...] = field(default=())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def leaves(self) -> Iterator["Value"]:
        """Yield the values that have no others in them: this one, or those in it."""
        if not self.members:
            yield self
        for member in self.members:
            yield from member.leaves()


def read(text: str) -> list[Value]:
    """Return the values at the top of a values.yaml.

    Raises:
        CommentError: A value has no comment, or one whose checks cannot be read.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise CommentError("there are no values")
    return list(_members(root, yaml.safe_load(text), _Source(text.splitlines()), ""))


class _Source:
    """The lines of a values.yaml, and the comments that hold further down."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.everywhere: dict[str, Comment] = {}

    def comment(self, mark: yaml.Mark, path: str) -> Comment:
        name = path.rpartition(".")[2]
        found = list(self._above(mark))
        if not found:
            if name in self.everywhere:
                return self.everywhere[name]
            raise CommentError(f"{path} has no comment above it, and no value of its name before it has @everywhere")
        comment = _read_comment(found, path)
        if "everywhere" in comment.checks:
            self.everywhere[name] = comment
        return comment

    def section(self, line: int) -> str:
        headings = (_HEADING.fullmatch(text) for text in reversed(self.lines[:line]))
        return next((found["name"] for found in headings if found), "")

    def _above(self, mark: yaml.Mark) -> Iterator[str]:
        indent = self.lines[mark.line][: mark.column]
        if indent.strip():
            return  # inside a map in braces
        first = mark.line
        while self.lines[first - 1].startswith(f"{indent}#") and first > 0:
            first -= 1
        yield from (line.strip().removeprefix("#").strip() for line in self.lines[first : mark.line])


def _read_comment(lines: list[str], path: str) -> Comment:
    checks = {}
    for line in lines:
        if line.startswith("@"):
            name, _, argument = line[1:].partition(" ")
            if name not in {"enum", "pattern", "minimum", "items", "everywhere"}:
                raise CommentError(f"the comment of {path} has @{name}, which charts/values.py does not know")
            checks[name] = argument
    text = " ".join(line for line in lines if not line.startswith("@"))
    if not text:
        raise CommentError(f"the comment of {path} checks the value and does not say what it is")
    return Comment(text, checks)


def _members(node: yaml.MappingNode, defaults: dict[str, Any], source: _Source, prefix: str) -> Iterator[Value]:
    for key, node_below in node.value:
        path, default = f"{prefix}{key.value}", defaults[key.value]
        comment = source.comment(key.start_mark, path)
        own = isinstance(default, dict) and "items" not in comment.checks
        if isinstance(default, dict | list) and not default and "items" not in comment.checks:
            raise CommentError(f"{path} is empty by default: its comment must say by @items what it may hold")
        members = tuple(_members(node_below, default, source, f"{path}.")) if own else ()
        yield Value(path, source.section(key.start_mark.line), default, comment, members)


def schema(values: list[Value]) -> dict[str, Any]:
    """Return the JSON Schema of the values. What it does not name is refused, as is a value of another type."""
    top = _map(values)
    # Helm adds these to the values of a chart that is part of another one.
    top["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **top}


def _map(values: list[Value] | tuple[Value, ...]) -> dict[str, Any]:
    properties = {value.name: _schema_of(value) for value in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema_of(value: Value) -> dict[str, Any]:
    found: dict[str, Any] = {"description": value.comment.text}
    if value.members:
        return found | _map(value.members)
    found["type"] = _TYPES[type(value.default)]
    for name, argument in value.comment.checks.items():
        if name == "enum":
            found["enum"] = [type(value.default)(word) for word in argument.split()]
        elif name == "pattern":
            found["pattern"] = argument
        elif name == "minimum":
            found["minimum"] = int(argument)
        elif name == "items":
            keyword = "items" if isinstance(value.default, list) else "additionalProperties"
            found[keyword] = True if argument == "any" else {"type": argument}
    return found


def tables(values: list[Value]) -> str:
    """Return the values as tables of Markdown, one for each section."""
    text = ""
    section = None
    for value in (leaf for top in values for leaf in top.leaves()):
        if value.section != section:
            section = value.section
            text += f"\n### {section}\n\n| value | default | what it is |\n|---|---|---|\n"
        default = json.dumps(value.default).replace("|", "\\|")
        meaning = value.comment.text.replace("|", "\\|")
        text += f"| `{value.path}` | `{default}` | {meaning} |\n"
    return text


def schema_file(values: list[Value]) -> str:
    """Return what values.schema.json is to hold."""
    return json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n"


def readme_file(readme: str, values: list[Value]) -> str:
    """Return what the README is to hold, from what it holds: what precedes the tables stays.

    Raises:
        ValueError: The line after which the tables begin is missing.
    """
    before, found, _ = readme.partition(_BEGIN)
    if not found:
        raise ValueError(f"{README} has no line {_BEGIN.strip()}")
    return before + found + tables(values)


def main() -> None:
    """Write the schema, and the tables of the README."""
    values = read(VALUES.read_text())
    SCHEMA.write_text(schema_file(values))
    README.write_text(readme_file(README.read_text(), values))


if __name__ == "__main__":
    main()
