"""Kill every command at random moments, give it again, and compare what it leaves with what it leaves undisturbed.

    uv run python -m benchmarks.kill_commands --kills 100

Results have to be the same byte for byte, nothing half-written may stand in the folder or beside it, and no lock may be held:
after some kills the same command goes to its end, in spite of whatever is left.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flips import Stage, read_results
from benchmarks.stage import run_command, warm_up

_FORMATS = ("coco", "coco-polygons", "yolo-seg", "yolo-det", "voc", "png", "labelme", "label-studio", "cvat")
_DETECTOR = """
steps = 8
batch = 2
lr = 0.02
decay_at = [6]
warmup = 2
log_every = 1
checkpoint_every = 2
workers = 0
network = { backbone = "clip-resnet", layers = [1, 1, 1, 1], width = 8, norm = "group", channels = 8, fc = 16, side = 48 }
scenes = { sides = [48], longest = 64, copy_paste = 0.5 }
"""
_ZUTIS = """
clip = "tiny-clip-vit"
steps = 8
batch = 2
lr = 1e-3
encoder_lr = 1e-4
log_every = 1
checkpoint_every = 2
side = 32
world = "emoji"
scenes = { crop = 32, images = [1, 2] }
network = { queries = 4, decoder_layers = 1, decoder_heads = 4, decoder_ffn = 16, mlp_hidden = 16 }
"""
_TIMES = ("seconds", "images/s", "minutes", "training minutes")
_ONE_AFTER_THE_OTHER = 3  # kills before a command may end


class Play:
    """A stage with what commands read, and the commands, each with the folder that it writes."""

    def __init__(self, home: Path) -> None:
        self.home, self.stage, self.out = home, Stage(home, with_tar=False), home / "written" / "out"

    def build(self) -> None:
        """Make what is read."""
        self.stage.build()
        self.stage.reset()
        coco = ("export", self.stage.place("run"), "--format", "coco", "--out", self.home / "coco")
        run_command(coco)
        given = f'labels = "{self.home / "coco" / "annotations.json"}"\nimages = "{self.stage.photos}"\n'
        self.recipe("detector").write_text(given + _DETECTOR)
        self.recipe("zutis").write_text(f'archive = "{self.stage.place("archive")}"\n{_ZUTIS}')

    def recipe(self, kind: str) -> Path:
        """Where the recipe of a training stands."""
        return self.home / f"{kind}.toml"

    def list_commands(self) -> dict[str, tuple[object, ...]]:
        """The commands by name; a word {out} is the folder that is written to."""
        at, photos = self.stage.place, self.stage.photos
        from_run = {
            f"export {kind}": (
                "export",
                at("run"),
                "--format",
                kind,
                "--images",
                "copy",
                "--image-root",
                photos,
                "--out",
                "{out}",
            )
            for kind in _FORMATS
        }
        return {
            "segment": self.stage.segment(Path("{out}")),
            "segment --fresh": self.stage.segment(Path("{out}"), "--fresh"),
            "relabel": ("relabel", at("run"), "--classes", "blue, red", "--out", "{out}"),
            "merge": ("merge", at("one"), at("two"), "--out", "{out}"),
            **from_run,
            "convert": ("convert", self.home / "coco" / "annotations.json", "--from", "coco", "--to", "voc", "--out", "{out}"),
            "report": ("report", at("run"), "--out", "{out}"),
            "review": ("review", at("run"), "--out", "{out}"),
            "pseudo-label": ("pseudo-label", at("run"), "--out", "{out}"),
            "index": ("index", photos, "--models", "tiny", "--shard", 2, "--out", "{out}"),
            "retrieve": ("retrieve", at("index"), "--classes", "car, apple", "--k", 3, "--out", "{out}"),
            **{f"train {k}": ("train", k, "--config", self.recipe(k), "--out", "{out}") for k in ("detector", "zutis")},
            "mask": ("mask", "{out}", "--by", "found", "--models", "tiny"),
        }

    def prepare(self, name: str) -> None:
        """Make the folder that is written to what it is before the command."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir()
        if name == "mask":
            shutil.copytree(self.stage.place("archive"), self.out, ignore=shutil.ignore_patterns("masks*", "lock"))
        if name == "segment --fresh":
            run_command(self.stage.segment(self.out))


def read_end(name: str, folder: Path) -> dict[str, bytes]:
    """Read what a command left; of a training its weights and curves, without times and what would be gone on from."""
    found = read_results(folder)
    if not name.startswith("train"):
        return found
    lines = [json.loads(line) for line in found.pop("log.jsonl", b"").splitlines()]
    kept = {name: content for name, content in found.items() if name.endswith(".safetensors")}
    card = json.loads(found.get("card.json", b'{"figures": {}}'))
    told = {"log.jsonl": lines, "card.json": [card["figures"]]}
    drop = {key: [{k: v for k, v in row.items() if k not in _TIMES} for row in rows] for key, rows in told.items()}
    beside = {name: b"" for name in found if name.startswith(".")}
    return kept | {key: json.dumps(rows).encode() for key, rows in drop.items()} | beside


def kill_command(play: Play, name: str, words: Sequence[object], kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill a command ``kills`` times, in rows of a few, each row ending in the whole command; say what differs then."""
    said = [str(word).replace("{out}", str(play.out)) for word in words]
    play.prepare(name)
    whole = run_command(said)
    expected, taken, early, wrong = read_end(name, play.out), 0, 0, list[str]()
    if whole.code not in (0, 1) or not expected:
        return {"kills": 0, "wrong": [f"undisturbed: {whole.said[-500:]}"]}
    while taken < kills:
        play.prepare(name)
        for _ in range(min(_ONE_AFTER_THE_OTHER, kills - taken)):
            ended = run_command(said, rng.uniform(0, whole.seconds))
            taken += ended.code < 0
            early += ended.code >= 0
            if ended.code >= 0:
                break
        last = run_command(said)
        found = read_end(name, play.out)
        if (last.code != whole.code and not ("export" in name or "convert" in name)) or "Traceback" in last.said:
            wrong.append(f"exit {last.code}: {last.said[-300:]}")
        differ = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        beside = sorted(path.name for path in play.out.parent.iterdir() if path != play.out)
        wrong += [f"differs: {n}" for n in differ] + [f"left: {n}" for n in beside]
        if early > kills:
            break  # too short to be killed
    return {"kills": taken, "ended before": early, "seconds": round(whole.seconds, 2), "wrong": wrong}


def kill_all(home: Path, kills: int, seed: int = 0, only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Kill each command about ``kills`` times, and say what was found, by its name."""
    rng, play = random.Random(seed), Play(home)
    play.build()
    commands = {name: words for name, words in play.list_commands().items() if not only or name in only}
    told = {}
    for name, words in commands.items():
        play.prepare(name)
        warm_up([[str(word).replace("{out}", str(play.out)) for word in words]])
        told[name] = kill_command(play, name, words, kills, rng)
        print(name, json.dumps(told[name]), file=sys.stderr, flush=True)
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        told = kill_all(Path(folder), asked.kills, asked.seed, asked.only)
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"kills": sum(one["kills"] for one in told.values()), "commands": len(told)}))
    if wrong := {name: one["wrong"] for name, one in told.items() if one["wrong"]}:
        raise SystemExit(f"expected the very results of undisturbed commands: {json.dumps(wrong)[:3000]}")


if __name__ == "__main__":
    main()
