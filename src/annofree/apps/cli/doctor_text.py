"""What ``annofree doctor`` prints, a line a thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["format_doctor"]


def format_doctor(found: Mapping[str, Any]) -> str:
    """Say what a machine has, and what it lacks."""
    from annofree.hub.cards import format_size

    packages = ", ".join(f"{name} {number or 'is not installed'}" for name, number in found["packages"].items())
    rows = [("python", f"{found['python']} on {found['platform']}"), ("packages", packages)]
    for device in found["devices"]:
        room = f", {format_size(device['memory'])}" if device["memory"] else ""
        rows.append(("device", f"{device['device']} ({device['name']}{room})"))
    rows.append(("memory", format_size(found["memory"] or 0)))
    rows += [("cache", _cache(name, place, format_size(place["free"]))) for name, place in found["caches"].items()]
    font = found["emoji_font"] or "none; only drawing the emoji world needs it (NotoColorEmoji.ttf)"
    rows += [("emoji font", font), ("models", ", ".join(found["models"]) or "none")]
    for name, lack in found["presets"].items():
        missing = [f"would fetch about {format_size(lack['bytes'])}: {', '.join(lack['missing'])}"] if lack["missing"] else []
        by_hand = [f"to be added by hand: {', '.join(lack['by_hand'])}"] if lack["by_hand"] else []
        rows.append(("preset", f"{name}: {'; '.join(missing + by_hand) or 'all here'}"))
    return "\n".join(f"{what + ':':<14}{text}" for what, text in rows)


def _cache(name: str, place: Mapping[str, Any], free: str) -> str:
    ways = ["" if place["writable"] else ", CANNOT BE WRITTEN TO", ", HF_HUB_OFFLINE is set" if place.get("offline") else ""]
    return f"{name.replace('_', ' ')}: {place['path']}, {free} free{''.join(ways)}"
