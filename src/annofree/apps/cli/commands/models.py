"""``annofree models``: what the weights are, and how they come to this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.help import PlainCommand, PlainGroup
from annofree.apps.cli.tables import console
from annofree.errors import AnnofreeError, InputError

if TYPE_CHECKING:
    from annofree.hub.cards import Card

__all__ = ["models"]

models = typer.Typer(help="Show, fetch, check and carry model weights.", no_args_is_help=True, cls=PlainGroup)

_Names = Annotated[list[str], typer.Argument(help="Models or presets, as `list` shows them.", metavar="NAME")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.command("list", cls=PlainCommand)
def list_models(
    as_json: _Json = False,
    markdown: Annotated[bool, typer.Option(help="Print the page docs/models.md.")] = False,
) -> None:
    """List all known models and presets: kind, supervision tier, licence, size, and whether they are on this machine.

    Example: annofree models list
    """
    from annofree.hub.store import all_cards

    if markdown:
        from annofree.apps.cli.commands.models_page import page

        print(page(), end="")
    elif as_json:
        print(json.dumps([_summary(card) for card in all_cards().values()], indent=2))
    else:
        _table(list(all_cards().values()))


@models.command(cls=PlainCommand)
def show(
    name: Annotated[str, typer.Argument(help="A model or a preset.")],
    as_json: _Json = False,
) -> None:
    """Show all that is known of a model, or what a preset holds.

    Example: annofree models show tiny
    """
    from annofree.hub.presets import presets

    known = presets().get(name)
    about = {"preset": name, "about": known.about, "use": known.use, "settings": _settings(name)} if known else None
    cards = _cards([name])
    if as_json:
        details = [_details(card) for card in cards]
        print(json.dumps({**about, "models": details} if about else details[0], indent=2))
        return
    if known:
        print(f"{name}: {known.about}")
        for method, chosen in _settings(name).items():
            print(f"settings of {method}: {_text(chosen)}")
    for card in cards:
        print(("\n" if known else "") + "\n".join(f"{key}: {_text(value)}" for key, value in _details(card).items() if value))


@models.command(cls=PlainCommand)
def pull(
    names: _Names,
    renew: Annotated[bool, typer.Option("--renew", help="Trust anew what the hub has now, changed or not.")] = False,
) -> None:
    """Fetch models, or all of a preset, and check them; what is here already is checked only.

    Example: annofree models pull fast
    """
    from annofree.hub.download import fetch, present
    from annofree.hub.download import renew as renewed

    cards = _cards(names)
    by_hand = [card for card in cards if not card.hub and present(card) is None and card.name not in names]
    cards = [card for card in cards if card not in by_hand]
    for local in [renewed(card) for card in cards] if renew else fetch(cards):
        print(f"{local.card.name}: {local.folder}")
    for card in by_hand:
        print(f"{card.name}: on no hub; take it from {card.link}, then `annofree models add --from DIR --name {card.name}`")


@models.command(cls=PlainCommand)
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="All on this machine, unless named.", metavar="NAME")] = None,
) -> None:
    """Read every file again and compare it with its card and with its first fetch; exit code 1 when any is another.

    Example: annofree models verify tiny-clip
    """
    from annofree.hub.download import find
    from annofree.hub.store import all_cards

    bad = 0
    for card in _cards(names) if names else all_cards().values():
        try:
            local = find(card, again=True)
        except AnnofreeError as problem:
            print(f"{card.name}: {problem}")
            bad += 1
            continue
        if local is not None:
            print(f"{card.name}: as it should be ({len(local.card.files)} files in {local.folder})")
        elif names:
            print(f"{card.name}: not on this machine")
            bad += 1
    raise typer.Exit(1 if bad else 0)


@models.command(cls=PlainCommand)
def bundle(names: _Names, out: Annotated[Path, typer.Option(help="The tar file to write.", show_default=False)]) -> None:
    """Write models into one file with their hashes, for a machine without network; fetches what is missing.

    Example: annofree models bundle fast --out fast.tar
    """
    from annofree.hub.bundles import write_bundle
    from annofree.hub.cards import size_text
    from annofree.hub.download import fetch

    write_bundle(fetch(_cards(names)), out)
    print(f"{out} ({size_text(out.stat().st_size)}); there: annofree models add --from {out.name}")


@models.command(cls=PlainCommand)
def add(
    source: Annotated[Path, typer.Option("--from", help="A bundle, or a model's folder.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Which known model a folder without card.json is.")] = None,
) -> None:
    """Add models from a bundle or a folder; their hashes are checked first.

    Example: annofree models add --from fast.tar
    """
    from annofree.hub.bundles import add_bundle, is_bundle
    from annofree.hub.store import add_folder, stored

    if is_bundle(source):
        if name is not None:
            raise InputError("expected --name with a folder only; a bundle names its models itself")
        cards = add_bundle(source)
    else:
        cards = [add_folder(source, name)]
    for card in cards:
        print(f"{card.name}: {stored(card.name)}")


def _cards(names: list[str]) -> list[Card]:
    """The cards of models and presets, each once, in the order given."""
    from annofree.errors import unknown_name
    from annofree.hub.presets import preset_named, presets
    from annofree.hub.store import all_cards, card_named

    known = all_cards()
    cards: dict[str, Card] = {}
    for name in names:
        if name in presets() or "+" in name:
            cards |= {card.name: card for card in preset_named(name).cards().values()}
        elif name in known or name.startswith("open_clip:"):
            cards[name] = card_named(name)
        else:
            raise unknown_name("model or preset", name, [*known, *presets()])
    return list(cards.values())


def _settings(preset: str) -> dict[str, dict[str, Any]]:
    """What was chosen with the models of a preset, by method, and on what."""
    from annofree.methods.policies import policy_of
    from annofree.methods.tuning import tuned, tuned_methods

    methods = {name: (tuned(preset, name), policy_of(preset, name)) for name in tuned_methods(preset)}
    told = {
        name: {
            **own.settings,
            **({"chosen on": own.chosen_on} if own.chosen_on else {}),
            "floor": policy.floor,
            "calibrated on": policy.calibration.fitted_on
            if policy.calibration
            else "nothing: scores rank, but are no probabilities",
        }
        for name, (own, policy) in methods.items()
    }
    return told or {"all methods": {"variant default": "as published; no floor, no calibration, nothing chosen on images"}}


def _summary(card: Card) -> dict[str, Any]:
    from annofree.hub.download import present

    return {
        "name": card.name,
        "kind": card.kind,
        "tier": card.tier,
        "licence": card.licence,
        "code_licence": card.code_licence or "unknown",
        "size": card.size,
        "gate": card.gate,
        "present": present(card) is not None,
    }


def _details(card: Card) -> dict[str, Any]:
    from dataclasses import asdict

    from annofree.hub.cards import TIERS
    from annofree.hub.download import present
    from annofree.hub.store import Seen

    seen, folder = Seen.of(card.name), present(card)
    files = {name: sha or seen.sha256(name) for name, sha in card.files.items()}
    pinned = (
        "" if card.pinned or not card.hub else f"{seen.revision} (since its first fetch)" if seen.revision else "not pinned"
    )
    return asdict(card) | {
        "tier": f"{card.tier}: {TIERS[card.tier]}",
        "files": files,
        "pinned": pinned,
        "folder": str(folder) if folder else None,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v) if v is not None else '(no hash before the first fetch)'}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _table(cards: list[Card]) -> None:
    from rich.table import Table

    from annofree.hub.cards import size_text
    from annofree.hub.presets import presets

    screen = console(140, markup=False, highlight=False)
    table = Table("name", "kind", "tier", "licence", "size", "here")
    for row in map(_summary, cards):
        terms = f"{row['licence']}{', terms to accept' if row['gate'] == 'terms' else ''}"
        cells = (row["name"], row["kind"], row["tier"], terms, size_text(row["size"]), "yes" if row["present"] else "no")
        table.add_row(*cells)
    screen.print(table)
    for name, preset in presets().items():
        screen.print(f"preset {name}: {' + '.join(card.name for card in preset.cards().values())}")
