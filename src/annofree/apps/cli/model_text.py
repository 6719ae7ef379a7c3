"""What the commands of ``annofree models`` print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from annofree.apps.cli.tables import open_console

if TYPE_CHECKING:
    from annofree.hub.cards import Card
    from annofree.hub.catalogue import ModelStatus, PullResult
    from annofree.methods.show_model import ModelDetails

__all__ = ["format_details", "print_models", "pull_text", "tell_by_hand"]


def print_models(models: Sequence[ModelStatus], as_json: bool, markdown: bool) -> None:
    """Print models as the page docs/models.md, as JSON, or as a table with the presets below it."""
    if markdown:
        from annofree.hub.models_page import render_models_page

        print(render_models_page(), end="")
    elif as_json:
        print(json.dumps([asdict(model) for model in models], indent=2))
    else:
        _print_table(models)


def _print_table(models: Sequence[ModelStatus]) -> None:
    from rich.table import Table

    from annofree.hub.cards import format_size
    from annofree.hub.presets import list_presets

    screen = open_console(140, markup=False, highlight=False)
    table = Table("name", "kind", "tier", "licence", "size", "here")
    for model in models:
        terms = f"{model.licence}{', terms to accept' if model.gate == 'terms' else ''}"
        table.add_row(model.name, model.kind, model.tier, terms, format_size(model.size), "yes" if model.present else "no")
    screen.print(table)
    for name, preset in list_presets().items():
        screen.print(f"preset {name}: {' + '.join(card.name for card in preset.find_cards().values())}")


def format_details(details: ModelDetails) -> str:
    """Say all that is known of a model, or of a preset and its models."""
    blocks = ["\n".join(f"{key}: {_value(value)}" for key, value in model.items() if value) for model in details.models]
    if details.preset is None:
        return "\n".join(blocks)
    settings = [f"settings of {method}: {_value(chosen)}" for method, chosen in (details.settings or {}).items()]
    return "\n\n".join(["\n".join([f"{details.preset}: {details.about}", *settings]), *blocks])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v) if v is not None else '(no hash before the first fetch)'}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def pull_text(pulled: PullResult) -> str:
    """Say where models are, and how those come that no hub has."""
    return "\n".join([*(f"{local.card.name}: {local.folder}" for local in pulled.models), *tell_by_hand(pulled.by_hand)])


def tell_by_hand(cards: Sequence[Card]) -> list[str]:
    """Say how models come that no hub has, a line each."""
    return [f"{card.name}: on no hub; {card.explain_adding()}" for card in cards]
