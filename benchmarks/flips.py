"""Flip bytes of the files of runs, indexes, archives and images, one at a time, and see what the commands that read them say.

    uv run python -m benchmarks.flips --bytes 60

Each byte that is tried loses one bit, and is then inverted whole: of each file the head, the tail, what gives it its structure,
and bytes drawn at random, or every byte with ``--bytes 1000000``.  What a command does then is one of

    noticed     one line that refuses, and exit code 2
    the same    its results are, byte for byte, what they are without the flip: it was made good, or it does not matter
    told        results differ, for an image did, and the command says so
    silent      results differ, and nobody was told
    traceback   or a signal

and the last two must not be.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.stage import Ended, draw_pictures, run_command, warm_up

_STRUCTURE = b'{}[]",:\n\r0123456789'
_OF_A_CALL = ("timings", "environments", "command", "relabelled")  # of run.json
_NOT_RESULTS = ("lock", "checksum")
_CHANGED = ("changed since", "cannot be read", "expected a whole image", "expected an image")


@dataclass(frozen=True)
class Command:
    """A command of the stage: its words, where its results are, and whether it writes to what it reads."""

    name: str
    words: tuple[object, ...]
    results: Path
    changes: bool = False


@dataclass
class Stage:
    """A folder with one of each: a run whole, unfinished and in parts, an index, an archive with its masks."""

    home: Path
    # whether some images are in a tar, of which export copies none
    with_tar: bool = True
    expected: dict[str, dict[str, bytes]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.photos, self.kept = self.home / "photos", self.home / "kept"

    def place(self, name: str) -> Path:
        """Where something stands."""
        return self.home / "at" / name

    def segment(self, out: Path, *more: object) -> tuple[object, ...]:
        """The command of a run."""
        asked = ("--classes", "red, green, blue", "--task", "instance,semantic,panoptic", "--stuff", "blue", "--policy", "all")
        return ("segment", self.photos, *asked, "--keep-encodings", "--batch-size", 2, "--models", "tiny", "--out", out, *more)

    def list_commands(self) -> dict[str, list[Command]]:
        """The commands that read each of the folders; the one that may mend it is the last."""
        run, new = self.place("run"), self.home / "new"
        shown = ("--images", self.photos)
        again = ("relabel", run, "--classes", "blue, red", "--out", new)
        one, two, index, archive = map(self.place, ("one", "two", "index", "archive"))
        return {
            "run": [
                Command("relabel", again, new),
                Command("report", ("report", run, "--out", new), new),
                Command("report without images", ("report", run, "--out", new, "--images", self.home / "empty"), new),
                Command("export", ("export", run, "--format", "label-studio", "--out", new), new),
                Command("review", ("review", run, "--out", new, *shown), new),
                Command("segment", self.segment(run), run, changes=True),
            ],
            "part": [Command("segment of the rest", self.segment(self.place("part")), self.place("part"), changes=True)],
            "one": [Command("merge", ("merge", one, two, "--out", new), new)],
            "index": [
                Command("retrieve", ("retrieve", index, "--classes", "car, apple", "--k", 3, "--out", new), new),
                Command("index", ("index", self.photos, "--models", "tiny", "--shard", 3, "--out", index), index, changes=True),
            ],
            "archive": [Command("mask", ("mask", archive, "--by", "found", "--models", "tiny"), archive, changes=True)],
            "photos": [
                Command("segment of changed images", self.segment(run), run, changes=True),
                Command(
                    "index of changed images", ("index", self.photos, "--models", "tiny", "--shard", 3, "--out", index), index
                ),
            ],
        }

    def build(self) -> None:
        """Make everything, and what each command gives where nothing is flipped."""
        draw_pictures(self.photos, 5)
        if self.with_tar:
            with tarfile.open(self.photos / "more.tar", "w") as tar:
                for path in sorted(self.photos.glob("1/*.png")):
                    tar.add(path, f"packed/{path.name}")
        (self.home / "empty").mkdir()
        self.place("").mkdir()
        for out, more in (("run", ()), ("one", ("--shard", "1/2")), ("two", ("--shard", "2/2"))):
            self._do(self.segment(self.place(out), *more))
        shutil.copytree(self.place("run"), self.place("part"))
        _cut_short(self.place("part"))
        self._do(("index", self.photos, "--models", "tiny", "--shard", 3, "--out", self.place("index")))
        self._do(("retrieve", self.place("index"), "--classes", "car, apple", "--k", 3, "--out", self.place("archive")))
        self._do(("mask", self.place("archive"), "--by", "found", "--models", "tiny"))
        shutil.move(self.place(""), self.kept)
        shutil.copytree(self.photos, self.home / "photos-kept")
        self.reset()
        warm_up([c.words for commands in self.list_commands().values() for c in commands if c.name != "merge"])
        for commands in self.list_commands().values():
            for command in commands:
                for again in (False, True):
                    self.reset()
                    ended = run_command(command.words)
                    found = read_results(command.results)
                    if ended.code not in (0, 1) or "Traceback" in ended.said or not found:
                        raise SystemExit(f"expected {command.name} to end well, got {ended.said}")
                    if again and found != self.expected[command.name]:
                        differ = [n for n in found if found[n] != self.expected[command.name].get(n)]
                        raise SystemExit(f"expected {command.name} to give the same twice, but not so {differ}")
                    self.expected[command.name], self.codes[command.name] = found, ended.code

    def _do(self, words: Sequence[object]) -> None:
        ended = run_command(words)
        if ended.code not in (0, 1) or "Traceback" in ended.said:
            raise SystemExit(f"expected to make {words[0]}, got {ended.said}")

    def reset(self, photos: bool = False) -> None:
        """Put everything back as it was made."""
        for left in (self.place(""), self.home / "new"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self.kept, self.place(""))
        if photos:
            shutil.copytree(self.home / "photos-kept", self.photos, dirs_exist_ok=True)

    def judge(self, command: Command, ended: Ended) -> str:
        """Say in a word what a command did."""
        if ended.code < 0 or "Traceback" in ended.said:
            return "traceback"
        lines = ended.said.strip().splitlines()
        if ended.code == 2:
            return "noticed" if lines and lines[-1].startswith("annofree: ") else "silent"
        if read_results(command.results) == self.expected[command.name]:
            return "the same"
        return "told" if "changed" in command.name and any(word in ended.said for word in _CHANGED) else "silent"


def _cut_short(run: Path) -> None:
    """Make a run one that was stopped before its last shard."""
    manifest = run / "shards" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    shards = [k for k, line in enumerate(lines) if b'"number"' in line]
    manifest.write_bytes(b"".join(lines[: shards[-1]]))
    (run / "shards" / json.loads(lines[shards[-1]])["file"]).unlink()
    for name in ("run.json", "annotations.json", "panoptic.json", "quarantine.json", "labels/shares.json"):
        (run / name).unlink(missing_ok=True)


def read_results(folder: Path) -> dict[str, bytes]:
    """Read what a command left: all files but the state of a run, the time that it took, and sums over these."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in _NOT_RESULTS or (name.startswith("shards/") and not path.name.startswith(".")):
            continue
        found[name] = path.read_bytes()
        if path.name == "run.json":
            told = json.loads(found[name])
            found[name] = json.dumps({k: v for k, v in told.items() if k not in _OF_A_CALL}).encode()
    return found


def choose_bytes(content: bytes, most: int, rng: random.Random) -> list[int]:
    """Choose places in a file: all of a small one, else head, tail, structure and others."""
    everywhere = range(len(content))
    if len(content) <= most:
        return list(everywhere)
    structure = [k for k in everywhere if content[k] in _STRUCTURE]
    edge, part = max(1, most // 6), most // 3
    chosen = {*everywhere[:edge], *everywhere[-edge:], *rng.sample(structure, min(part, len(structure)))}
    return sorted(chosen | set(rng.sample(everywhere, max(0, most - len(chosen)))))


def flip_bytes(content: bytes, most: int, rng: random.Random) -> Iterator[tuple[int, bytes]]:
    """Yield places and the file with another byte there: one bit of it, then all."""
    for place in choose_bytes(content, most, rng):
        for mask in (1 << rng.randrange(8), 255):
            yield place, content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def choose_files(base: Path, most: int) -> list[Path]:
    """Choose up to ``most`` files of each ending in each folder: those that are small and decide come first."""
    chosen: list[Path] = []
    taken: Counter[tuple[str, str]] = Counter()
    for path in sorted(p for p in base.rglob("*") if p.is_file() and p.name != "lock"):
        kind = path.relative_to(base).parts[0], path.suffix
        taken[kind] += 1
        if taken[kind] <= most or path.suffix == ".json":
            chosen.append(path)
    return sorted(chosen, key=lambda path: (path.suffix not in (".json", ".jsonl", ".txt"), "shards" not in path.parts, path))


def try_flips(
    home: Path, most: int, seed: int = 0, only: Sequence[str] = (), files: int = 2, loud: bool = False
) -> dict[str, Any]:
    """Flip bytes on a new stage; return how often each command did what, and each flip that went unseen."""
    rng, stage = random.Random(seed), Stage(home)
    stage.build()
    counts: dict[str, Counter[str]] = {}
    unseen: list[dict[str, Any]] = []
    for folder, commands in stage.list_commands().items():
        if only and folder not in only:
            continue
        base = home / "photos-kept" if folder == "photos" else stage.kept / folder
        for path in choose_files(base, files):
            name = path.relative_to(base)
            target = (stage.photos if folder == "photos" else stage.place(folder)) / name
            if loud:
                print(folder, name, path.stat().st_size, file=sys.stderr, flush=True)
            for place, flipped in flip_bytes(path.read_bytes(), most, rng):
                stage.reset(photos=folder == "photos")
                target.write_bytes(flipped)
                for command in commands:
                    shutil.rmtree(home / "new", ignore_errors=True)
                    ended = run_command(command.words)
                    word = stage.judge(command, ended)
                    counts.setdefault(command.name, Counter())[word] += 1
                    if word in ("silent", "traceback"):
                        unseen.append({"command": command.name, "file": str(name), "byte": place, "said": ended.said[-1500:]})
                        print(json.dumps(unseen[-1]), file=sys.stderr, flush=True)
    return {
        "calls": sum(map(Counter.total, counts.values())),
        "commands": {k: dict(v) for k, v in counts.items()},
        "unseen": unseen,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, flip, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=60, help="bytes of each file, at most")
    parser.add_argument("--files", type=int, default=2, help="files of a kind in a folder, at most; all that are JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="run, part, one, index, archive, photos")
    parser.add_argument("--loud", action="store_true", help="say which file it is at")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = try_flips(Path(folder), asked.bytes, asked.seed, asked.only, asked.files, asked.loud)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key != "unseen"}, indent=1))
    if found["unseen"]:
        raise SystemExit(f"expected every flip to be noticed or harmless, but {len(found['unseen'])} were not")


if __name__ == "__main__":
    main()
