"""The cards of models against a live hub: commits, checksums, sizes, licences and gates, for people who have a network.

    uv run python benchmarks/compare_cards.py                      # all that a hub has
    HF_ENDPOINT=https://MIRROR uv run python benchmarks/compare_cards.py openai-rn50 sam-b

Nothing is downloaded: a request or two a model.  A line a model says what differs, or what a pin would be where the card has
none; exit code 1 where something differs, or cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from annofree.hub.cards import Card, list_known_cards
from annofree.hub.store import find_card

_NEAR = 0.02  # of the bytes: a card says about how many


def ask(card: Card, revision: str) -> Any:
    """What the hub knows of a repository at a revision, its files with sizes and checksums."""
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT).model_info(card.hub, revision=revision, files_metadata=True)


def find_differences(card: Card, info: Any) -> Iterator[str]:
    """What a card says otherwise than the hub does."""
    files = {file.rfilename: file for file in info.siblings}
    lacking = [name for name in card.files if name not in files]
    if lacking:
        yield f"lacks {', '.join(lacking)}"
        return
    for name, expected in card.files.items():
        found = files[name].lfs.sha256 if files[name].lfs else None
        for sha, who in ((expected, "its card"), (card.noted.get(name), "what was noted")):
            if sha and found and sha != found:
                yield f"{name} has SHA-256 {found}, {who} says {sha}"
    size = sum(files[name].size for name in card.files)
    if abs(size - card.size) > _NEAR * size:
        yield f"has {size:,} bytes to fetch, its card says {card.size:,}"
    if bool(info.gated) != (card.gate == "terms"):
        yield f"is {'gated' if info.gated else 'not gated'}, its card says {card.gate}"
    licence = getattr(info.card_data, "license", None)
    if licence not in (None, "other", card.licence.lower()):
        yield f"has the licence {licence}, its card says {card.licence}"


def describe_pin(card: Card, info: Any) -> str:
    """What a card without a pin, or with an older one, could say."""
    hashes = [f"{file.rfilename} {file.lfs.sha256}" for file in info.siblings if file.rfilename in card.files and file.lfs]
    return f"main is {info.sha}, {', '.join(hashes)}"


def compare(card: Card) -> tuple[bool, str]:
    """Whether a card is right, and what there is to say."""
    from huggingface_hub import errors

    try:
        newest = ask(card, card.branch)
        info = ask(card, card.revision) if card.pinned and card.revision != newest.sha else newest
    except (errors.HfHubHTTPError, OSError, ValueError) as problem:
        return False, f"cannot be compared: {' '.join(str(problem).split())[:200]}"
    except errors.HTTPError as problem:  # type: ignore[attr-defined]  # the HTTP client's
        return False, f"cannot be compared: {type(problem).__name__}"
    said = list(find_differences(card, info))
    pin = [] if card.pinned and newest.sha == card.revision else [describe_pin(card, newest)]
    return not said, "; ".join(said + pin) or "as its card says"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the cards that are named, or all; print a line each and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models; all that a hub has, unless named")
    names = parser.parse_args(arguments).names
    cards = [find_card(name) for name in names] or [card for card in list_known_cards().values() if card.hub]
    wrong = 0
    for card in cards:
        right, text = compare(card) if card.hub else (True, "on no hub")
        wrong += not right
        print(f"{card.name}: {text}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
