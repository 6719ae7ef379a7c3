"""``annofree doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["doctor"]

_PACKAGES = ("annofree", "torch", "torchvision", "open_clip_torch", "transformers", "timm", "huggingface_hub", "safetensors")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has: Python, devices, memory, disk, caches, fonts, models, and what each preset would fetch.

    Example: annofree doctor --json
    """
    found = {
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
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)


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
    return [*devices, {"device": "cpu", "name": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads", "memory": None}]


def _memory() -> int | None:
    """Bytes of main memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _caches() -> dict[str, dict[str, Any]]:
    from huggingface_hub import constants

    from annofree.hub.download import cache_folder
    from annofree.hub.store import home

    places = {"hugging_face": cache_folder(), "annofree": home()}
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
    from annofree.hub.download import present
    from annofree.hub.store import all_cards

    return [card.name for card in all_cards().values() if present(card) is not None]


def _presets() -> dict[str, dict[str, Any]]:
    """For each preset the models that would have to be fetched, and about how many bytes they are."""
    from annofree.hub.download import present
    from annofree.hub.presets import presets

    lacks = {n: [c for c in preset.cards().values() if present(c) is None] for n, preset in presets().items()}
    return {
        name: {
            "missing": [c.name for c in cards if c.hub],
            "by_hand": [c.name for c in cards if not c.hub],
            "bytes": sum(c.size for c in cards if c.hub),
        }
        for name, cards in lacks.items()
    }


def _show(found: dict[str, Any]) -> None:
    from annofree.hub.cards import size_text

    def line(name: str, text: str) -> None:
        print(f"{name + ':':<14}{text}")

    line("python", f"{found['python']} on {found['platform']}")
    line("packages", ", ".join(f"{name} {number or 'is not installed'}" for name, number in found["packages"].items()))
    for device in found["devices"]:
        room = f", {size_text(device['memory'])}" if device["memory"] else ""
        line("device", f"{device['device']} ({device['name']}{room})")
    line("memory", size_text(found["memory"] or 0))
    for name, place in found["caches"].items():
        ways = [
            "" if place["writable"] else ", CANNOT BE WRITTEN TO",
            ", HF_HUB_OFFLINE is set" if place.get("offline") else "",
        ]
        line("cache", f"{name.replace('_', ' ')}: {place['path']}, {size_text(place['free'])} free{''.join(ways)}")
    line("emoji font", found["emoji_font"] or "none; only drawing the emoji world needs it (NotoColorEmoji.ttf)")
    line("models", ", ".join(found["models"]) or "none")
    for name, lack in found["presets"].items():
        missing = [f"would fetch about {size_text(lack['bytes'])}: {', '.join(lack['missing'])}"] if lack["missing"] else []
        by_hand = [f"to be added by hand: {', '.join(lack['by_hand'])}"] if lack["by_hand"] else []
        line("preset", f"{name}: {'; '.join(missing + by_hand) or 'all here'}")
