"""Errors of the disk that a library tells in its own way are errors of the disk, with the name of the file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from annofree.io import tensors
from annofree.io.atomic import write_atomic
from annofree.io.files.paths import explain_os_error
from annofree.training.engine import checkpoint


class FullFile:
    """A file of a disk that is full."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        pass

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_weights_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", fail)
    with pytest.raises(OSError, match="No space left") as found:
        tensors.write_half(tmp_path / "model.safetensors", {"a": torch.zeros(2)})
    assert "model.safetensors, but: No space left on device; make room" in explain_os_error(found.value)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"step": 1}, {})
    before = path.read_bytes()
    monkeypatch.setattr(Path, "open", lambda *_, **__: FullFile())
    with pytest.raises(OSError, match="No space left") as found:
        checkpoint.save_state(path, {"step": 2, "model": torch.zeros(9)}, {})
    monkeypatch.undo()
    assert found.value.filename == str(path) and path.read_bytes() == before


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        write_atomic(tmp_path / "a", fail)
