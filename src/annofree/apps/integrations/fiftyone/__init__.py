"""A source of models for FiftyOne's zoo: this folder, ``manifest.json`` and the calls that FiftyOne makes of a source.

FiftyOne copies the folder, so nothing here is imported from beside this file; annofree itself has to be installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.apps.integrations.finder import Finder
from annofree.io.atomic import write_json
from annofree.ops.rle import decode_rle
from annofree.structures import Detections

__all__ = ["download_model", "load_model", "parse_parameters", "resolve_input"]

_DEFAULT = "fast"


def download_model(model_name: str, model_path: str) -> None:
    """Note that the model is there: its weights are fetched by annofree when it is first asked, by the preset chosen."""
    write_json(Path(model_path), {"model": model_name, "weights": "those of the preset, see `annofree models list`"})


def load_model(
    model_name: str,
    model_path: str,
    classes: Any = "object",
    preset: str = _DEFAULT,
    method: str | None = None,
    device: str = "auto",
    policy: str = "answer",
    min_score: float = 0.0,
    **more: Any,
) -> Any:
    """Make a ``fiftyone`` model that finds ``classes``, text such as "dog, cat: kitten | tabby" or a list of such.

    Raises InputError for names, a preset or a method that cannot be.
    """
    import fiftyone.core.models as models

    finder = Finder(classes, preset, method=method, device=device, policy=policy, min_score=min_score)

    class AnnofreeModel(models.Model):  # type: ignore[misc]  # FiftyOne tells no types
        """Answers one image after another."""

        media_type = "image"
        ragged_batches = True
        transforms = None
        preprocess = False

        def predict(self, arg: npt.NDArray[np.uint8]) -> Any:
            """The instances in an image (H, W, 3) uint8 RGB, as ``fiftyone.Detections``."""
            return _convert(finder.find(np.asarray(arg)))

    return AnnofreeModel()


def _convert(found: Detections) -> Any:
    """Detections in FiftyOne's words: boxes x y w h from 0 to 1, masks cut to them."""
    import fiftyone.core.labels as labels

    height, width = found.size
    rows = zip(found.labels.tolist(), found.boxes.tolist(), found.scores.tolist(), map(decode_rle, found.rles), strict=True)
    return labels.Detections(
        detections=[
            labels.Detection(
                label=name,
                bounding_box=[x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
                mask=mask[int(y0) : int(y1), int(x0) : int(x1)],
                confidence=score,
            )
            for name, (x0, y0, x1, y1), score, mask in rows
        ]
    )


def resolve_input(model_name: str, ctx: Any) -> Any:
    """What FiftyOne's page asks before it loads the model."""
    import fiftyone.operators.types as types

    inputs = types.Object()
    inputs.str("classes", required=True, label="Classes", description="such as: dog, cat: kitten | tabby")
    inputs.str("preset", default=_DEFAULT, label="Preset", description="which models; see `annofree models list`")
    inputs.float("min_score", default=0.0, min=0.0, max=1.0, label="Least score")
    return types.Property(inputs)


def parse_parameters(model_name: str, ctx: Any, params: dict[str, Any]) -> None:
    """Leave out what was left empty on FiftyOne's page, so that the defaults hold."""
    for name in [name for name, value in params.items() if value is None or value == ""]:
        del params[name]
