"""The Python of the page on other tools runs; autodistill, which is not installed, by a stand-in for its classes."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "integrations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Ontology:
    """Prompts, and what they are called."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def prompts(self) -> list[str]:
        return list(self.names)


@dataclass
class BaseModel:
    """As autodistill has it: a data class with an ontology."""

    ontology: Ontology


@pytest.fixture
def autodistill(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("autodistill.detection")
    vars(module).update(CaptionOntology=Ontology, DetectionBaseModel=BaseModel)
    monkeypatch.setitem(sys.modules, "autodistill", ModuleType("autodistill"))
    monkeypatch.setitem(sys.modules, "autodistill.detection", module)


@pytest.mark.filterwarnings("ignore:OpenCV .* is not installed")
def test_the_python_of_the_page_runs(autodistill: None) -> None:
    supervision, distilled = blocks("python")
    names: dict[str, Any] = {}
    exec(supervision, names)
    assert len(names["detections"]) > 0 and set(names["detections"].data["class_name"]) == {"orange"}
    assert names["picture"].shape == (*names["found"].detections.size, 3)
    exec(distilled, names)
    pixels = np.array(PIL.Image.open("examples/scenes/oranges.jpg").convert("RGB"))
    assert np.array_equal(names["model"].predict(pixels[..., ::-1]).xyxy, names["detections"].xyxy)


def test_the_settings_of_a_program_are_json() -> None:
    (text,) = blocks("json")
    assert json.loads(text)["mcpServers"]["annofree"]["args"][0] == "mcp"
