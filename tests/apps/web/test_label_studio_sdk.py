"""Predictions as Label Studio's own package sees them: it checks them against the labeling interface, and unpacks brushes.

The package asks for older libraries than this project, so it runs in an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.support.label_studio import APART, BRUSH, KnownService, build_config, build_region, draw_mask, write_picture

from annofree.apps.web.label_studio.backend import Backend
from annofree.apps.web.label_studio.labeling import parse_labeling
from annofree.apps.web.label_studio.pictures import Pictures

RUN = ("uv", "run", "--quiet", "--offline", "--no-project", "--with", "label-studio-sdk", "python", "-c")

THEIRS = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

told = []
for config, prediction in json.load(sys.stdin):
    interface = LabelInterface(config)
    brushes = [r["value"] for r in prediction["result"] if "rle" in r["value"]]
    told.append({
        "errors": interface.validate_prediction(prediction, return_errors=True),
        "labels": {name: sorted(tag.labels or []) for name, tag in interface._controls.items()},
        "brushes": [decode_rle(value["rle"]).reshape(-1, 4)[:, 3].tolist() for value in brushes],
    })
json.dump(told, sys.stdout)
"""

TAGS = ("BrushLabels", "PolygonLabels", "RectangleLabels")


def ask_their_package(pairs: list[tuple[str, Any]]) -> Any:
    done = None
    if shutil.which("uv") is not None:
        done = subprocess.run([*RUN, THEIRS], input=json.dumps(pairs), capture_output=True, text=True)
    if done is None or "not cached" in done.stderr or "network connectivity is disabled" in done.stderr:
        pytest.skip("label-studio-sdk is not there to compare with")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_their_package_finds_no_fault_and_the_same_masks(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    backend = Backend(cast(Any, KnownService()), Pictures(tmp_path))
    task = {"id": 1, "data": {"image": "/data/local-files/?d=a.png"}}
    point = build_region("keypointlabels", {"x": 50, "y": 25, "width": 1, "keypointlabels": ["cat"]})
    configs = [BRUSH, APART, *map(build_config, TAGS)]
    pairs = []
    for config in configs:
        for context in (None, {"result": [point]}):
            body = {"tasks": [task], "label_config": config, "params": {"context": context}}
            (answer,) = backend.predict(body)["results"]
            pairs.append((config, answer))
    told = ask_their_package(pairs)
    assert [one["errors"] for one in told] == [[]] * len(pairs)
    assert np.array_equal(np.reshape(told[0]["brushes"][0], draw_mask().shape), draw_mask() * 255)
    for (config, _), one in zip(pairs, told, strict=True):
        labeling = parse_labeling(config)
        control = labeling.controls[0]
        assert one["labels"][control.labels or control.name] == sorted(labeling.labels)
