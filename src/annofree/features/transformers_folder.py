"""Model folders in transformers' layout, filled strictly and from safetensors alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from annofree.errors import InputError, MissingError

__all__ = ["load_folder"]


def load_folder(folder: Path, kind: str, attention: str = "sdpa", unsaved: Collection[str] = (), config: Any = None) -> Any:
    """Build the transformers model ``kind`` of a folder in float32, in eval mode, every tensor from its file.

    ``unsaved`` names weights that the release leaves out, which keep their initial value; ``config`` stands for the
    ``config.json`` of a folder that has none.  Raises MissingError without weights and where transformers is too old, and
    InputError for pickles, for a folder that cannot be loaded and for weights that do not fit the model.
    """
    if not hasattr(transformers, kind):
        raise MissingError(f"{kind} is not in transformers {transformers.__version__}; pip install --upgrade transformers")
    _refuse_pickles(folder)
    try:
        with _quiet():
            model, report = getattr(transformers, kind).from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=attention,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **({} if config is None else {"config": config}),
            )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError, StrictDataclassError) as problem:
        raise InputError(
            f"expected a {kind} in {folder}, but it cannot be loaded: {problem}; fetch or train it again"
        ) from problem
    astray = {k: sorted(set(map(str, report[f"{k}_keys"])) - set(unsaved)) for k in ("missing", "unexpected", "mismatched")}
    said = "; ".join(f"{len(v)} {k}, such as {v[0]}" for k, v in astray.items() if v)
    if said:
        raise InputError(f"expected the weights in {folder} to fit a {kind} tensor by tensor, got {said}")
    return model.eval().requires_grad_(False)


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for suffix in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{suffix}"))
    if pickles:
        raise InputError(
            f"expected safetensors in {folder}, got {pickles[0]}; a pickle can run any code and is not read: "
            "save the model again with save_pretrained"
        )
    raise MissingError(f"expected model.safetensors in {folder}; there is none")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and warnings while a model loads; real problems are raised."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
