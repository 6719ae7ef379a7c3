"""Write docs/api.md: what ``import annofree`` offers, with signatures, docstrings and examples.

uv run python docs/make_api.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annofree
from annofree.pipelines.segment import SegmentOptions

PAGE = Path(__file__).with_name("api.md")
SUBJECTS: dict[str, tuple[str, ...]] = {
    "Find": ("segment", "learn", "relabel", "name_masks", "merge", "load", "list_methods"),
    "Look and check": ("report", "review", "explain", "compare", "evaluate", "reproduce"),
    "Write for other tools": ("export", "convert"),
    "Collect images": ("build_index", "retrieve", "mask_archive", "draw_emoji_world"),
    "Train": (
        *("pseudo_label", "train_detector", "finetune", "export_model", "train_zutis", "train_namedmask", "train_selfmask"),
        *("train_found", "train_tiny"),
    ),
    "Models": ("list_models", "show_model", "pull_models", "verify_models", "bundle_models", "add_models", "doctor"),
    "Nouns": ("Image", "Vocabulary", "Detections", "LabelMap", "Callbacks", "read_image"),
    "Errors": ("AnnofreeError", "InputError", "ImageError", "MissingError"),
}
"""Every public name by its subject."""

OPTIONS: dict[str, type] = {"segment": SegmentOptions}
"""Where the options of a call are explained, field by field."""

_HEAD = """# The Python API

What `import annofree` offers. Every command of the [command line](cli.md) is one of these calls, with the same options,
defaults and errors. All else in the package may change. Written by `uv run python docs/make_api.py`; a test fails when this
page is stale.
"""
_WIDTH = 100


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(part for subject, names in SUBJECTS.items() for part in _section(subject, names))])


def _section(subject: str, names: tuple[str, ...]) -> Iterator[str]:
    yield f"## {subject}\n"
    for name in names:
        yield f"### {name}\n"
        yield from _entry(name, getattr(annofree, name))


def _entry(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value) or not issubclass(value, Exception):
        yield f"```python\n{_signature(f'annofree.{name}', value)}\n```\n"
    yield from _docstring(value)
    if name in OPTIONS:
        yield "\n".join(_options(OPTIONS[name])) + "\n"
    if inspect.isclass(value) and not issubclass(value, Exception):
        yield "\n".join(_members(value)) + "\n"


def _signature(name: str, value: Any) -> str:
    """A call on one line where it fits, else a parameter a line."""
    signature = inspect.signature(value)
    words = [_parameter(p) for p in signature.parameters.values()]
    star = next((k for k, p in enumerate(signature.parameters.values()) if p.kind is p.KEYWORD_ONLY), None)
    words = words if star is None else [*words[:star], "*", *words[star:]]
    back = "" if inspect.isclass(value) else f" -> {_plain(signature.return_annotation)}"
    line = f"{name}({', '.join(words)}){back}"
    return line if len(line) <= _WIDTH else f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){back}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = f"{parameter.name}: {_plain(parameter.annotation)}"
    return text if parameter.default is parameter.empty else f"{text} = {_default(parameter.default)}"


def _default(value: Any) -> str:
    """A default as it is written; what has no short text is named by its class."""
    text = repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    return f"{type(value).__name__}()" if " at 0x" in text or len(text) > _WIDTH // 2 else text


def _plain(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return re.sub(r"\b(npt|typing|PIL\.Image)\.(?=[A-Z])", "", text)


def _docstring(value: Any) -> Iterator[str]:
    """The text as Markdown, its examples as code."""
    text = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(value) or "")
    for block in re.split(r"\n\n+", text):
        yield f"```python\n{block}\n```\n" if block.lstrip().startswith(">>>") else f"{block}\n"


def _options(kind: type) -> Iterator[str]:
    """The fields of a class, each with the comment above it, a line each."""
    for comment, name in re.findall(r"((?:^    # [^\n]*\n)+)^    (\w+):", inspect.getsource(kind), re.MULTILINE):
        yield f"- `{name}`: {' '.join(line.strip(' #') for line in comment.splitlines())}"


def _members(kind: type) -> Iterator[str]:
    """The public methods and properties of a class, a line each."""
    for name, member in vars(kind).items():
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not (callable(inner) or isinstance(inner, property)):
            continue
        first = re.split(r"\n\n|(?<=\.)\s", inspect.getdoc(inner) or "")[0].replace("\n", " ")
        call = "" if isinstance(inner, property) else "()"
        yield f"- `{name}{call}`: {re.sub('``', '`', first)}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
