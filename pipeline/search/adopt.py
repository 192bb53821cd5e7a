# SPDX-License-Identifier: Apache-2.0
"""Winners become recipes of `params.yaml`; comments, order and all else of the file stay as they are."""

from __future__ import annotations

import difflib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.errors import ParamsError
from pipeline.files import write_text
from pipeline.params import Params, load_params
from pipeline.search.results import is_ours

__all__ = ["write_winners"]

_WIDTH = 4096
"""Of a line: lines as the user broke them stay unbroken."""


def _flow(value: Any) -> Any:
    """Mappings on one line, as people write the options of a pass."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, Mapping):
        mapped = CommentedMap({key: _flow(entry) for key, entry in value.items()})
        mapped.fa.set_flow_style()
        return mapped
    if isinstance(value, Sequence) and not isinstance(value, str):
        listed = CommentedSeq([_flow(entry) for entry in value])
        listed.fa.set_flow_style()
        return listed
    return value


def _recipe(passes: Sequence[Mapping[str, Any]]) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    entries = [CommentedMap({kind: _flow(options) for kind, options in entry.items()}) for entry in passes]
    recipe = CommentedSeq(entries)
    if not entries:
        recipe.fa.set_flow_style()
    return recipe


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _extend(names: Any, added: Sequence[str]) -> None:
    for name in [name for name in names if is_ours(name) and name not in added]:
        names.remove(name)
    for name in added:
        if name not in names:
            names.append(name)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))


def _shifted(lines: Sequence[str], by: int) -> list[str]:
    return [" " * max(0, _indent(text) + by) + text.lstrip(" ") for text in lines]


def _as_the_user_wrote(original: str, dumped: str) -> str:
    """Take back every line that differs in blanks alone: a round trip moves braces, comments and dashes."""
    old, new = original.splitlines(keepends=True), dumped.splitlines(keepends=True)
    bare = [["".join(text.split()) for text in lines] for lines in (old, new)]
    matcher = difflib.SequenceMatcher(a=bare[0], b=bare[1], autojunk=False)
    lines: list[str] = []
    moved = 0
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            lines += old[start:end]
            moved = _indent(old[end - 1]) - _indent(new[new_end - 1])
        else:
            lines += _shifted(new[new_start:new_end], moved if kind == "insert" else 0)
    merged = "".join(lines)
    return merged if _says_the_same(merged, dumped) else dumped


def _says_the_same(one: str, other: str) -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return bool(YAML(typ="safe", pure=True).load(one) == YAML(typ="safe", pure=True).load(other))
    except (YAMLError, ValueError):
        return False


def _changed(text: str, winners: Mapping[str, Mapping[str, Any]]) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(text)
    editor = YAML(typ="rt", pure=True)
    editor.preserve_quotes = True
    editor.width = _WIDTH
    editor.representer.add_representer(type(None), _null)
    offset = 2 if offset is None else offset
    editor.indent(mapping=2, sequence=max(indent or 4, offset + 2), offset=offset)
    content = editor.load(text)
    prune, quantize = content["prune"], content["quantize"]
    for name in [name for name in prune["recipes"] if is_ours(name) and name not in winners]:
        del prune["recipes"][name]
    for name, recipe in winners.items():
        prune["recipes"][name] = _recipe(recipe["passes"])
    _extend(prune["variants"], list(winners))
    for recipe in winners.values():
        if recipe["precision"] not in quantize["precisions"]:
            quantize["precisions"].append(recipe["precision"])
    stream = io.StringIO()
    editor.dump(content, stream)
    return _as_the_user_wrote(text, stream.getvalue())


def _expect_same_but(before: Params, text: str, winners: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Refuse a text that says anything else than what was to be changed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        after = load_params(copy)
    kept = {name: recipe for name, recipe in before.prune.recipes.items() if not is_ours(name)}
    came = {name: recipe for name, recipe in after.prune.recipes.items() if name not in winners}
    rest = {"prune", "quantize"}
    same = before.model_dump(exclude=rest) == after.model_dump(exclude=rest)
    if not same or came != kept or after.quantize.recipes != before.quantize.recipes:
        raise ParamsError(
            "expected to change recipes and variants alone, got a file that says something else",
            where=str(path),
            hint="nothing was written; copy the recipes from artifacts/search/trials.json by hand",
        )


def write_winners(path: Path, winners: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the winners into `params.yaml` as recipes and variants; those of an earlier search go.

    Args:
        path: The file; replaced whole or not at all.
        winners: Name to recipe: `passes`, and a `precision` that is added to `quantize.precisions`.

    Raises:
        ParamsError: if the file is wrong, or would say anything else afterwards.
        StorageError: if it cannot be written.
    """
    before = load_params(path)
    text = _changed(path.read_text(encoding="utf-8"), winners)
    _expect_same_but(before, text, winners, path)
    write_text(path, text)
