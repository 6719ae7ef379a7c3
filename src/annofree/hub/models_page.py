"""The page ``docs/models.md``, made from the cards."""

from __future__ import annotations

from collections.abc import Sequence

from annofree.hub.cards import KINDS, TIERS, Card, format_size, list_known_cards
from annofree.hub.license_policy import PERMISSIVE
from annofree.hub.presets import Preset, list_presets

__all__ = ["render_models_page"]

_TITLES = {
    "clip": "Clues and boundaries: CLIP",
    "sam": "Masks: Segment Anything",
    "dino": "Without text: DINO",
    "saliency": "Objectness",
    "segmenter": "Trained to segment: ZUTIS, TCL, GroupViT",
}
_HEAD = """# Models

Made by `annofree models list --markdown > docs/models.md` from the cards in `src/annofree/assets`; do not edit by hand.

Weights come from the Hugging Face hub into its own cache (`HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE` and tokens count), only
the files that a card names, never a pickle. They come by plain HTTP, as with `HF_HUB_DISABLE_XET=1`, because that goes on where
it stopped, after a break or a kill; what `hf download` brought by Xet is found as well.
Cards pin the commits and hashes below. Whatever has no pin is pinned by its first fetch, which writes down the commit and the
SHA-256 of each file (in `ANNOFREE_HOME`). Any later change is an error until `annofree models pull --renew NAME`, which trusts
what the hub has now. `HF_ENDPOINT` names a mirror; `uv run python benchmarks/compare_cards.py` compares all cards with a hub.

    annofree models list                       # what there is, and what is here
    annofree models pull fast                  # fetch a preset or a model
    annofree models verify                     # read everything again
    annofree models bundle --out m.tar paper   # one file for a machine without network
    annofree models add --from m.tar           # there
    annofree models add --from coco_vit_b_16.pt  # a file that its makers publish and no hub has
    annofree segment photos --classes "dog" --max-tier S2 --license permissive

`--models` takes a preset or models joined by `+`, such as `openai-rn50x64+openai-vit-b-16+sam-b`: of two CLIPs the ResNet gives
the boundaries and the transformer the clues. `open_clip:ARCH/TAG` is any weights that open_clip has as safetensors.
"""


def render_models_page() -> str:
    """Return the page as Markdown."""
    cards = list(list_known_cards().values())
    parts = [_HEAD, _tiers(), "## Presets\n", _table(_PRESETS, [_preset(p) for p in list_presets().values()]), _MEASURED]
    for kind in KINDS:
        parts += [f"## {_TITLES[kind]}\n", _table(_MODELS, [_model(c) for c in cards if c.kind == kind])]
    parts += [
        _PINS,
        _table(_PINNED, [_pin(c) for c in cards if c.pinned]),
        _NOTED,
        _table(_ONCE, [_note(c) for c in cards if c.noted]),
    ]
    parts += [_SOURCES]
    parts.append(f"Permissive, to `--license permissive`: {', '.join(sorted(PERMISSIVE))}; an unknown licence is not.\n")
    return "\n".join(parts)


_PINS = """## Pins

Commits, and hashes of weights, that two or more public projects name independently of each other; a fetch that brings anything
else is refused.
"""
_NOTED = """Commits and hashes that a single source names are noted, and nothing is checked by them:
"""
_SOURCES = """## Where this is from

* *weights*, *code* and *trained on*: the repository under *from*, and for models of `timm` and `laion` the makers' repository
  that `annofree models show NAME` links to; licences and places of CLIPs and DINOs are compared with open_clip's and timm's own
  tables (`tests/hub/test_cards.py`). DINOv3 has a licence of its own; its copies in `timm` ask nobody to accept it first.
* *size*: the bytes of the file where a project that pins it says them, else 4 for each parameter, as counted in the network
  that the library builds (`tests/hub/test_card_sizes.py`); those of SAM 2.1 small and base plus and of EdgeTAM are rounded.
* TCL: the address from its makers' page, the size counted from the layout of their code. GroupViT: sizes counted in the class
  of transformers; NVIDIA's Source Code License is for research and evaluation alone, of code and weights.
* ZUTIS, SelfMask and FOUND: addresses from their makers' repositories, sizes counted from the layout of their code
  (`tests/hub/test_published.py`). The makers of ZUTIS and SelfMask say nothing of a licence of the weights: it is unknown.
"""
_PINNED = ("name", "commit", "SHA-256", "named")
_ONCE = ("name", "what", "value")
_PRESETS = ("preset", "clues", "boundaries", "masks", "tier", "fetch", "one photograph", "about")
_MEASURED = """*One photograph*: processor-seconds and most memory of the whole process on one thread of a CPU, 480 × 640 px,
four names, random weights, by which nothing was found and no prompt asked; in brackets the first run, which also encodes the
nouns that compete. Of `tiny` without its start. How it was measured: [Speed and memory](speed.md).
"""
_MODELS = ("name", "from", "tier", "weights", "code", "size", "trained on", "used by")


def _tiers() -> str:
    rows = [(f"**{tier}**", meaning) for tier, meaning in TIERS.items()]
    return "## Supervision\n\n" + _table(("tier", "what went into it"), rows)


def _preset(preset: Preset) -> tuple[str, ...]:
    cards = preset.find_cards()
    fetched = sum(c.size for c in cards.values() if c.hub)
    by_hand = [c.name for c in cards.values() if c.address]
    return (
        f"`{preset.name}`",
        _part(preset, "clip"),
        _part(preset, "boundaries") if preset.boundaries else "the same",
        _part(preset, "sam"),
        max(c.tier for c in cards.values()),
        (f"about {format_size(fetched)}" if fetched else "nothing") + (f"; by hand: {', '.join(by_hand)}" if by_hand else ""),
        preset.measured,
        preset.about,
    )


def _part(preset: Preset, role: str) -> str:
    use = ", ".join(f"{name} {value}" for name, value in preset.use.get(role, {}).items())
    return f"{getattr(preset, role)}{f' ({use})' if use else ''}"


def _model(card: Card) -> tuple[str, ...]:
    place = f"[{card.hub}](https://huggingface.co/{card.hub})" if card.hub else "bundled"
    if card.address:
        place = f"[{next(iter(card.published))}]({card.address}), by hand"
    terms = f"{card.licence}{'; terms to accept' if card.gate == 'terms' else ''}"
    size = f"about {format_size(card.size)}" if card.size else ""
    row = (f"`{card.name}`", place, card.tier, terms, card.code_licence, size, card.trained_on, ", ".join(card.papers))
    return tuple(cell or "-" for cell in row)


def _pin(card: Card) -> tuple[str, ...]:
    hashes = "<br>".join(f"{name}: `{sha}`" for name, sha in card.files.items() if sha)
    return f"`{card.name}`", f"`{card.revision}`", hashes or "-", card.pinned_by


def _note(card: Card) -> tuple[str, ...]:
    return (
        f"`{card.name}`",
        "<br>".join("commit" if what == "revision" else what for what in card.noted),
        "<br>".join(f"`{value}`" for value in card.noted.values()),
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
