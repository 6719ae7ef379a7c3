"""The source of models for FiftyOne's zoo, called as FiftyOne calls it, with stand-ins for its classes.

FiftyOne itself is large and starts a database; with its own package the same calls were tried by hand (docs/integrations.md).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.apps.integrations import fiftyone as ours
from annofree.errors import InputError

FOLDER = Path(str(ours.__file__)).parent


class Label(SimpleNamespace):
    """Holds what it is made of, as FiftyOne's labels do."""


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"fiftyone": {}, "fiftyone.core": {}, "fiftyone.core.models": {"Model": type("Model", (), {})}}
    modules["fiftyone.core.labels"] = {"Detections": Label, "Detection": Label}
    for name, held in modules.items():
        module = ModuleType(name)
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, name, module)
    for parent, child in (("fiftyone", "core"), ("fiftyone.core", "models"), ("fiftyone.core", "labels")):
        setattr(sys.modules[parent], child, sys.modules[f"{parent}.{child}"])


def test_a_copy_of_the_folder_is_downloaded_and_loaded_and_finds_things(stand_ins: None, tmp_path: Path) -> None:
    (model,) = (manifest := json.loads((FOLDER / "manifest.json").read_text()))["models"]
    place = tmp_path / manifest["name"]
    assert manifest["name"] != "annofree", "FiftyOne imports the copy under this name, which would hide the package"
    shutil.copytree(FOLDER, place)
    spec = importlib.util.spec_from_file_location(manifest["name"], place / "__init__.py")
    assert spec is not None and spec.loader is not None
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    path = str(place / model["base_filename"])
    source.download_model(model["base_name"], path)
    assert Path(path).is_file()
    options = {"classes": "elephant, orange", "preset": "tiny", "device": "cpu", "policy": "all", "min_score": 0.3}
    loaded = source.load_model(model["base_name"], path, **options)
    pixels = np.asarray(PIL.Image.open("examples/scenes/oranges.jpg").convert("RGB"))
    assert not pixels.flags.writeable
    best = loaded.predict(pixels).detections[0]
    x, y, width, height = best.bounding_box
    assert best.label == "orange" and 0.3 <= best.confidence <= 1 and best.mask.any()
    assert 0 <= x < x + width <= 1 and 0 <= y < y + height <= 1
    assert best.mask.shape == (round(height * pixels.shape[0]), round(width * pixels.shape[1]))


def test_names_that_cannot_be_are_refused_before_any_image(stand_ins: None) -> None:
    with pytest.raises(InputError):
        ours.load_model("annofree", "", classes="", preset="tiny")


def test_what_is_left_empty_on_the_page_is_left_out() -> None:
    params: dict[str, Any] = {"classes": "dog", "preset": "", "min_score": None}
    ours.parse_parameters("annofree", None, params)
    assert params == {"classes": "dog"}
