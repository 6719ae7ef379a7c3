"""Public functions and methods of src/annofree begin with a verb, so that a reader knows what a call does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/annofree"
FILES = sorted(SOURCE.rglob("*.py"))

WORDS = """
acquire act add adjust advance align answer append apply ask assert assign attempt average begin blend blur bootstrap
bridge build bundle call cap catch center change check choose classify clean clear clip close cluster collate collect
combine compare compose compress compute concatenate confine convert copy count crop cut decide decode denoise derive
describe detect dilate discover divide do download draw drop embed encode end enter escape estimate evaluate exclude
execute exit explain export extract fetch fill filter find finetune finish fit fix flush fold forget format gather get
group guess hash hide hold import index infer initialize inset inspect install interpolate invert iterate jitter join
keep label lay learn limit link list load locate lock log look make map mark mask match measure memoize merge mirror
move name normalize note number offer open order orient pack pad paint parse pass paste pick place plan plot pool
predict prepare preprocess print process project propose pseudo publish pull quantize rank read record reduce refine
refresh refuse register relabel remap remove render renew replace report reproduce require rescale rescue reset resize
resolve restart restore resume retrieve review run sample save say scale schedule score search segment select set settle
shade shift shorten show silence size skip smooth solve sort split stack standardize start stitch stop store stream
stretch strip subtract sum summarize suppress sweep switch synchronize take tell test time trace track train transfer
transform transpose trim truncate trust unlock unpack update upload use validate verify vote wait warn weigh wrap write
"""
VERBS = set(WORDS.split())
PREFIXES = {"as", "from", "has", "is", "to", "with", "without"}
"""``to_json_dict``, ``as_table``, ``is_bundle``, ``with_background``: conversions, questions and changed copies."""

FUNCTIONS = {"annofree", "doctor", "main"}
"""What the command line is called."""

METHODS = {"forward", "to", "instances", "semantic", "remarks"} | {"rescaled", "transposed", "local_slice"}
"""PyTorch's, those of the protocols of methods, and changed copies as numpy names them."""

SCREAM = "expected a verb first in the name of {0}: start it with a verb, or add the verb to VERBS"


def is_free(node: ast.FunctionDef) -> bool:
    """Whether a method may be a noun: properties, constructors, overloads and what is registered as a command."""
    marks = " ".join(ast.unparse(d) for d in node.decorator_list)
    return any(word in marks for word in ("property", "classmethod", "staticmethod", "overload", ".command(", ".callback("))


def is_verb(name: str) -> bool:
    first = name.split("_")[0]
    return name.startswith("_") or first in VERBS or (first in PREFIXES and "_" in name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_functions_and_methods_begin_with_a_verb(path: Path) -> None:
    if any(f"apps/cli/{room}" in path.as_posix() for room in ("commands", "look_commands", "model_commands", "train_commands")):
        return  # called as the commands are
    wrong = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not is_verb(node.name) and node.name not in FUNCTIONS and not is_free(node):
            wrong.append(f"{path.name}:{node.lineno} {node.name}")
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not is_verb(method.name) and method.name not in METHODS:
                    wrong += [] if is_free(method) else [f"{path.name}:{method.lineno} {node.name}.{method.name}"]
    assert not wrong, SCREAM.format(", ".join(wrong))


def test_the_verbs_are_in_order_and_each_once() -> None:
    words = WORDS.split()
    assert words == sorted(VERBS) and 100 < len(words) < 250
