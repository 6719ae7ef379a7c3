"""What this machine has, and what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["doctor"]

_PACKAGES = ("annofree", "torch", "torchvision", "open_clip_torch", "transformers", "timm", "huggingface_hub", "safetensors")


def doctor() -> dict[str, Any]:
    """Return what this machine has: Python, devices, memory, caches, emoji font, models, and what each preset would fetch.

    Sizes are in bytes.

    >>> doctor()["presets"]["tiny"]
    {'missing': [], 'by_hand': [], 'bytes': 0}
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": _devices(),
        "memory": _memory(),
        "caches": _caches(),
        "emoji_font": _font(),
        "presets": _presets(),
        "models": _models(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    devices: list[dict[str, Any]] = [
        {"device": f"cuda:{i}", "name": p.name, "memory": p.total_memory} for i, p in enumerate(cuda)
    ]
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": platform.processor(), "memory": None})
    name = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    fast = ", fast in bfloat16 (--precision)" if _knows_bfloat16() else ""
    return [*devices, {"device": "cpu", "name": name + fast, "memory": None}]


def _knows_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    import torch

    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def _memory() -> int | None:
    """Bytes of main memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _caches() -> dict[str, dict[str, Any]]:
    from huggingface_hub import constants

    from annofree.hub.download import find_cache_folder
    from annofree.hub.store import find_home

    places = {"hugging_face": find_cache_folder(), "annofree": find_home()}
    offline = {"offline": bool(constants.HF_HUB_OFFLINE)}
    return {name: _place(path) | (offline if name == "hugging_face" else {}) for name, path in places.items()}


def _place(path: Path) -> dict[str, Any]:
    existing = next(p for p in (path, *path.parents) if p.exists())
    return {"path": str(path), "free": shutil.disk_usage(existing).free, "writable": os.access(existing, os.W_OK)}


def _font() -> str | None:
    from annofree.datasets.emoji.world import find_font
    from annofree.errors import AnnofreeError

    try:
        return str(find_font())
    except AnnofreeError:
        return None


def _models() -> list[str]:
    from annofree.hub.download import find_present
    from annofree.hub.store import list_cards

    return [card.name for card in list_cards().values() if find_present(card) is not None]


def _presets() -> dict[str, dict[str, Any]]:
    """For each preset the models that would have to be fetched, and about how many bytes they are."""
    from annofree.hub.download import find_present
    from annofree.hub.presets import list_presets

    lacks = {n: [c for c in preset.find_cards().values() if find_present(c) is None] for n, preset in list_presets().items()}
    return {
        name: {
            "missing": [c.name for c in cards if c.hub],
            "by_hand": [c.name for c in cards if not c.hub],
            "bytes": sum(c.size for c in cards if c.hub),
        }
        for name, cards in lacks.items()
    }
