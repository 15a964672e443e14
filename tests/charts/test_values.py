"""values.yaml is the source of the schema and the README's tables, and says what the templates use."""

import json
import re
from typing import Any

import pytest

from charts import values as source
from tests.charts.renderings import BUNDLED, NAMES, merged, nested, values
from tests.support.helm import CHART, Helm, RefusedError

VALUES = source.read(source.VALUES.read_text())
LEAVES = {leaf.path: leaf for value in VALUES for leaf in value.leaves()}
CHECKED = """
# A name.
# @pattern ^[a-z]+$
name: wafer
# How many.
# @minimum 1
count: 1
# One or three.
# @enum 1 3
servers: 1
# The user's own.
# @items string
labels: {}
# Whatever.
# @items any
resources: {limits: {cpu: 1}}
# A part.
part:
  # How large.
  # @everywhere
  size: 1
other: {size: 2}
""".replace("other:", "# Another part.\nother:")


def test_the_schema_and_the_readme_are_made_from_the_values() -> None:
    made = "run `python charts/values.py`"
    assert source.SCHEMA.read_text() == source.schema_file(VALUES), made
    readme = source.README.read_text()
    assert readme == source.readme_file(readme, VALUES), made


def test_the_comments_become_checks_of_the_schema() -> None:
    schema = source.schema(source.read(CHECKED))
    properties = schema["properties"]
    assert properties["name"] == {"description": "A name.", "type": "string", "pattern": "^[a-z]+$"}
    assert properties["count"]["minimum"] == 1
    assert properties["servers"]["enum"] == [1, 3]
    assert properties["labels"]["additionalProperties"] == {"type": "string"}
    assert properties["resources"]["additionalProperties"] is True
    assert properties["part"]["additionalProperties"] is False
    assert properties["other"]["properties"]["size"] == {"description": "How large.", "type": "integer"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1", "a has no comment above it"),
        ("# A part.\npart: {size: 1}", "part.size has no comment above it"),
        ("# Of the user.\na: {}", "a is empty by default: its comment must say by @items what it may hold"),
        ("# A.\n# @maximum 3\na: 1", "the comment of a has @maximum, which charts/values.py does not know"),
        ("# @minimum 3\na: 1", "the comment of a checks the value and does not say what it is"),
        ("", "there are no values"),
    ],
)
def test_a_value_without_a_comment_or_with_an_unknown_check_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(source.CommentError, match=re.escape(sentence)):
        source.read(text)


def test_the_templates_name_no_value_that_is_not_there() -> None:
    def paths(all_values: tuple[source.Value, ...]) -> set[str]:
        return {path for value in all_values for path in ({value.path} | paths(value.members))}

    there = paths(tuple(VALUES))
    named = {
        (file.name, path)
        for file in (CHART / "templates").rglob("*.*")
        for path in re.findall(r"\.Values\.([\w.]+)", file.read_text())
    }
    assert len(named) > 30
    assert {(name, path) for name, path in named if path not in there} == set()


# What else has to change with a value, so that it makes sense.
TOGETHER: dict[str, dict[str, Any]] = {
    "mqtt.tls.enabled": {"mqtt": {"tls": {"existingSecret": "mqtt-tls"}}},
    "postgresql.enabled": {"externalDatabase": {"url": "postgresql://db/wafers"}},
}


def other(leaf: source.Value) -> Any:
    """A value that is not the default."""
    match leaf.default:
        case bool():
            return not leaf.default
        case int():
            return 3 if leaf.default != 3 else 4
        case str() if choices := leaf.comment.checks.get("enum"):
            return next(choice for choice in choices.split() if choice != leaf.default)
        case str():
            return {"size": "999Gi", "digest": "sha256:" + "1" * 64}.get(leaf.name, "changed")
        case list():
            return [{"name": "changed"}] if leaf.comment.checks["items"] == "object" else ["changed"]
        case _:
            return {"changed": "yes"}


@pytest.fixture(scope="module")
def installed(helm: Helm) -> dict[str, str]:
    """What each of the files installs."""
    return {name: helm.text(values(name)) for name in NAMES}


@pytest.mark.parametrize("path", list(LEAVES))
def test_each_value_changes_what_is_installed(helm: Helm, installed: dict[str, str], path: str) -> None:
    changed = merged(nested(path, other(LEAVES[path])), TOGETHER.get(path, {}))
    refused = []
    for name, before in installed.items():
        try:
            if helm.text(merged(values(name), changed), "--skip-schema-validation") != before:
                return
        except RefusedError as error:  # this value makes no sense among those
            refused.append(str(error))
    pytest.fail(f"{path} changes nothing in any of {NAMES} {refused}")


def test_a_chart_that_is_part_of_another_takes_its_global_values(helm: Helm) -> None:
    assert helm.text(merged(BUNDLED, {"global": {"any": 1}}))


def test_the_schema_refuses_all_that_it_does_not_know() -> None:
    def open_maps(schema: dict[str, Any], path: str) -> list[str]:
        found = [path] if schema.get("type") == "object" and "additionalProperties" not in schema else []
        for name, below in schema.get("properties", {}).items():
            found += open_maps(below, f"{path}.{name}")
        return found

    assert open_maps(json.loads(source.SCHEMA.read_text()), "") == [".global"]
