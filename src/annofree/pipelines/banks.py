"""Whose bank a run is asked again by: its own, another run's, or an archive's; and what supervision that may bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.detections.bank import BankSettings
    from annofree.io.callbacks import Callbacks
    from annofree.retrieval.masked_archive import MaskedArchive
    from annofree.runs.stored_encodings import StoredEncodings
    from annofree.runs.tasks import Tasks
    from annofree.structures import Vocabulary

__all__ = ["BankSource", "check_tiers", "find_bank"]


@dataclass(frozen=True)
class BankSource:
    """The ``folder`` that a bank is collected of: a run that kept its encodings, or an ``archive`` with masks."""

    folder: Path
    archive: MaskedArchive | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What tells runs with this bank from others."""
        named: dict[str, Any] = {"bank": str(self.folder.resolve())}
        return named if self.archive is None else named | {"archive": self.archive.checksums}

    def collect(self, feed: StoredEncodings, vocabulary: Vocabulary, settings: BankSettings, callbacks: Callbacks) -> Tasks:
        """The tasks of a feed with this bank."""
        callbacks.on_note(f"collecting a bank of {self.folder}")
        if self.archive is None:
            same = self.folder.resolve() == feed.folder.resolve()
            return feed.with_bank(vocabulary, settings, feed if same else replace(feed, folder=self.folder))
        callbacks.on_stage("images of the archive", "")
        tasks = feed.with_archive(vocabulary, settings, self.archive, callbacks)
        callbacks.on_stage("images", "")
        return tasks


def find_bank(run: Path, bank: bool | str | Path) -> BankSource | None:
    """Whose bank it is: nobody's, the run's own, another run's, or an archive's.

    Raises InputError for a run that kept no encodings, an archive without masks, and a folder that is neither.
    """
    if bank is False:
        return None
    whose = run if bank is True else Path(bank)
    if bank is True or (whose / "shards" / "settings.json").exists():
        from annofree.runs.stored_encodings import read_settings

        read_settings(whose)
        return BankSource(whose)
    if not (whose / "archive.json").exists():
        raise InputError(
            f"expected for a bank the folder of a run of --keep-encodings (shards/settings.json) or of an archive with masks "
            f"(archive.json), but {whose} {'has neither' if whose.is_dir() else 'is no folder'}"
        )
    from annofree.retrieval.masked_archive import MaskedArchive

    return BankSource(whose, MaskedArchive.read(whose))


def check_tiers(run: Path, bank: BankSource | None, max_tier: str | None) -> None:
    """Refuse models of a run, or of the archive that is its bank, that are above a tier of supervision.

    A model of which no tier is known is above all.  Raises InputError that names them all, and for an unknown tier.
    """
    if max_tier is None:
        return
    from annofree.hub.license_policy import list_above
    from annofree.runs.store.summary import RunSummary, read_about

    models: list[Mapping[str, Any]] = RunSummary(read_about(run)).list_models()
    models += bank.archive.list_models() if bank is not None and bank.archive is not None else []
    if over := list_above({str(model["name"]): str(model["tier"]) for model in models}.items(), max_tier):
        raise InputError(f"expected models of tier {max_tier} at most, but {', '.join(over)}")
