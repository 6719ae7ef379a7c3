"""``annofree models pull``, ``verify``, ``bundle`` and ``add``: weights fetched, checked, and moved between machines."""

from __future__ import annotations

import typer

from annofree.apps.cli.model_text import pull_text, tell_by_hand
from annofree.apps.cli.options.models import BundleFile, KnownName, ModelNames, Renew, SomeNames, WeightsSource

__all__ = ["add", "bundle", "pull", "verify"]


def pull(names: ModelNames, renew: Renew = False) -> None:
    """Fetch models, or all of a preset, and check them; what is here already is checked only.

    Example: annofree models pull fast
    """
    from annofree.hub.catalogue import pull_models

    print(pull_text(pull_models(names, renewed=renew)))


def verify(names: SomeNames = None) -> None:
    """Read every file again and compare it with its card and with its first fetch; exit code 1 when any is another.

    Example: annofree models verify tiny-clip
    """
    from annofree.hub.catalogue import verify_models

    found = verify_models(names or ())
    print("\n".join(f"{model.name}: {model.text}" for model in found))
    raise typer.Exit(0 if all(model.ok for model in found) else 1)


def bundle(names: ModelNames, out: BundleFile) -> None:
    """Write models into one file with their hashes, for a machine without network; fetches what is missing.

    Example: annofree models bundle fast --out fast.tar
    """
    from annofree.hub.cards import format_size
    from annofree.hub.catalogue import bundle_models, list_left_out

    written, left_out = bundle_models(names, out), list_left_out(names)
    print(f"{written} ({format_size(written.stat().st_size)}); there: annofree models add --from {written.name}")
    for line in tell_by_hand(left_out):
        print(f"left out: {line}")


def add(source: WeightsSource, name: KnownName = None) -> None:
    """Add models from a bundle, a folder, or a file that their makers publish; hashes are checked first.

    Such a file (.pt) is read without running code, and kept as safetensors.

    Example: annofree models add --from fast.tar
    """
    from annofree.hub.catalogue import add_models

    print("\n".join(f"{model}: {folder}" for model, folder in add_models(source, name=name).items()))
