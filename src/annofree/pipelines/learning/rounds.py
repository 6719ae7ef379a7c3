"""The rounds of a learning, each stage of which goes on where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import write_json
from annofree.io.callbacks import Callbacks
from annofree.io.files.scratch import open_scratch
from annofree.methods.policies import resolve_policy
from annofree.methods.registry import find_method
from annofree.methods.tuning import read_bank
from annofree.pipelines.learning.effort import choose_steps, measure_pace, read_recipe
from annofree.pipelines.learning.given_labels import GivenLabels
from annofree.pipelines.learning.hand_over import copy_detector, export_onnx
from annofree.pipelines.learning.judge import (
    RoundScores,
    choose_best,
    describe_round,
    explain_end,
    hold_out,
    measure_agreement,
    measure_stability,
    read_answers,
)
from annofree.pipelines.learning.label_choice import choose_labels
from annofree.pipelines.learning.place import require_readable, restart_moved, tell_held
from annofree.pipelines.learning.summary import read_summary, require_free
from annofree.pipelines.plan import Plan
from annofree.pipelines.relabel import relabel
from annofree.pipelines.segment import RunResult, run_plan
from annofree.pipelines.training.training_device import choose_training_device
from annofree.runs.inputs import Inputs
from annofree.structures import Vocabulary
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.train import fit_detector
from annofree.training.pseudo_labels.rules import ByClass, LabelRules
from annofree.training.pseudo_labels.select import select_labels

__all__ = ["Learning"]

_LOWER = 0.5  # of the floor, down to which runs tell what rare names may need
_ALL_DONE = "all rounds are done"


class Learning:
    """One folder of images and what is learned from it; ``asked`` are rounds, minutes, steps, min_labels and bank."""

    def __init__(
        self,
        inputs: Inputs,
        names: Vocabulary,
        plan: Plan,
        out: Path,
        asked: Mapping[str, Any],
        config: Path | None,
        callbacks: Callbacks,
        corrections: Path | None = None,
    ) -> None:
        self.inputs, self.names, self.out, self.asked, self.callbacks = inputs, names, out, dict(asked), callbacks
        self.fields, self.began = read_recipe(plan.models, config), time.monotonic()
        method = plan.resolve_methods()["instance"]
        policy = resolve_policy(plan.models, method)
        self.floor, self.calibrated = policy.floor, policy.calibration is not None
        self.plan = replace(plan, floor=_LOWER * self.floor)
        self.takes_detector = "detector" in find_method(method).takes
        self.held = hold_out(inputs.ids)
        self.summary = self._open(method, corrections is not None)
        self.given = None if corrections is None else GivenLabels.read(corrections, out, names, inputs, callbacks.on_note)
        if self.given is not None:  # which are learned from, so that they tell nothing of what was learned
            self.held = [name for name in self.held if name not in self.given.images]

    def run(self) -> dict[str, Any]:
        """Do all rounds, or go on with them; returns the summary."""
        if self._is_complete():
            self.callbacks.on_note(f"the learning in {self.out} is complete; another --out learns anew")
            return self.summary
        if self.summary["rounds"]:
            self._save()  # where it is now
        else:
            tell_held(self.inputs.ids, self.held, self.callbacks.on_note)
        self._judge(0)
        why = None
        for number in range(1, self.asked["rounds"] + 1):
            self._train(number)
            self._judge(number)
            if (why := explain_end(self.summary["rounds"][: number + 1])) is not None:
                break
        self.summary |= {"ended": why or _ALL_DONE, "rounds asked": self.asked["rounds"]}
        self._finish()
        return self.summary

    def _is_complete(self) -> bool:
        """Whether the folder holds all that was asked; one that ended before all its rounds gets no more."""
        more = self.asked["rounds"] > self.summary.get("rounds asked", 0) and self.summary.get("ended") == _ALL_DONE
        return "ended" in self.summary and not more

    # where things are

    def find_folder(self, number: int) -> Path:
        """The folder of a round; the run of round 0, the method alone, is the folder itself."""
        return self.out / f"round-{number}"

    def find_run(self, number: int) -> Path:
        """The run of a round, 0 for the method alone."""
        return self.find_folder(number) / "run" if number else self.out / "first"

    def plan_round(self, number: int) -> Plan:
        """Who answers in a round: the method with the round's detector, or the detector alone where the method takes none."""
        if not number:
            return self.plan
        detector = self.find_folder(number) / "detector"
        if self.takes_detector:
            return replace(self.plan, detector=detector)
        return replace(self.plan, method=str(detector), floor=None)

    # stages

    def _open(self, method: str, corrected: bool) -> dict[str, Any]:
        """The summary of the folder; raises InputError where it is that of another learning."""
        images = sha256("\n".join(self.inputs.ids).encode(errors="surrogateescape")).hexdigest()
        held = read_summary(self.out)
        if self.asked["bank"] is None:
            fitted = "calibration" in read_bank(self.plan.models, method)
            self.asked["bank"] = bool(held["asked"].get("bank")) if held else fitted
        asked = {
            "classes": [list(words) for words in self.names.synonyms], "models": self.plan.models, "method": method,
            "images": len(self.inputs.ids), "names of images": images, "recipe": self.fields,
            "min_labels": self.asked["min_labels"],
        }  # fmt: skip
        asked |= {"corrections": True} if corrected else {}
        asked |= {"bank": True} if self.asked["bank"] else {}
        if not held:
            require_free(self.out)
        if held and (others := [key for key in {**held["asked"], **asked} if held["asked"].get(key) != asked.get(key)]):
            raise InputError(
                f"expected another folder than {self.out}, whose learning has other {', '.join(others)}; choose another --out"
            )
        held = held or {"asked": asked, "rounds": [], "held out": self.held}
        if done := len(held["rounds"]):
            restart_moved(self.out, held, self.find_run(done), self.callbacks.on_note)
        held["place"] = str(self.out.resolve())
        return held

    def _save(self) -> None:
        write_json(self.out / "learn.json", self.summary, indent=2)

    def _judge(self, number: int) -> None:
        """Let the round's method answer all images, and keep what is known of the answer without a label."""
        if len(self.summary["rounds"]) > number:
            return
        plan, began = self.plan_round(number), time.monotonic()
        plan.check()
        self.callbacks.on_stage("images", "")
        result = self._answer(number, plan)
        if number == 0:
            require_readable(result.failed, len(self.inputs.ids), self.callbacks.on_note)
        floor = self.floor if number == 0 or self.takes_detector else self._find_detector_floor()
        answers, expected = read_answers(self.find_run(number), floor, self.inputs.root)
        names = self.held or [name for name in self.inputs.ids if name in answers][:60]
        names = [name for name in names if name in answers]
        method = plan.make_specs()["instance"].build(self.names)
        images = (self.inputs.read(self.inputs.place(name), name) for name in names)
        scores = RoundScores(
            sum(map(len, answers.values())),
            expected,
            measure_stability(method, images, self.names, floor),
            None if number == 0 else measure_agreement(answers, self._read_before(number), names),
        )
        row = {
            **asdict(scores),
            "calibrated": self.calibrated and (number == 0 or self.takes_detector),
            "floor": floor,
            "failed": len(result.failed),
            "seconds": time.monotonic() - began,
        }
        self.summary["rounds"].append(row)
        self._save()
        self.callbacks.on_note(describe_round(number, row))

    def _answer(self, number: int, plan: Plan) -> RunResult:
        """The run of a round; with a bank, of what a first run of it keeps, by its method and never by a detector alone."""
        banked = self.asked["bank"] and (number == 0 or self.takes_detector)
        out = self.find_folder(number) / "kept" if banked else self.find_run(number)
        result = run_plan(
            self.inputs, self.names, plan, out, (1, 1), 0.0, None,
            overlays=False, keep_encodings=banked, fresh=False, retry=False, callbacks=self.callbacks, clock=None,
        )  # fmt: skip
        if not banked:
            return result
        try:
            return relabel(out, self.names, out=self.find_run(number), bank=True, callbacks=self.callbacks)
        except InputError as problem:  # nothing is sure enough to refer to; what else is wrong is told again
            self.callbacks.on_note(f"no bank: {problem}")
            return relabel(out, self.names, out=self.find_run(number), callbacks=self.callbacks)

    def _read_before(self, number: int) -> Any:
        floor = self.summary["rounds"][number - 1]["floor"]
        return read_answers(self.find_run(number - 1), floor, self.inputs.root)[0]

    def _find_detector_floor(self) -> float:
        """The floor of what a detector alone answers."""
        return resolve_policy(self.plan.models, "detector").floor

    def _train(self, number: int) -> None:
        """Choose labels among what the round before found, and train the round's detector."""
        folder = self.find_folder(number)
        self._label(number)
        if (folder / "detector" / "detector.json").is_file():
            return
        initial = self.fields.get("initial", "") if number == 1 else str(self.find_folder(number - 1) / "detector")
        own = {"labels": folder / "labels", "out": folder / "detector", "name": f"learned-{number}", "initial": initial}
        recipe = DetectorRecipe(**{**self.fields, **own, "images": self.inputs.root})  # wherever they are by now
        device = choose_training_device(self.plan.device)
        recipe = recipe.rescaled(self._count_steps(number, recipe, device))
        self.callbacks.on_stage(f"steps of round {number}", "")
        fit_detector(recipe, device=device, on_progress=self.callbacks.on_progress, say=self.callbacks.on_note)

    def _label(self, number: int) -> None:
        """Write the labels of a round, and tell which names have few."""
        labels, before = self.find_folder(number) / "labels", self.summary["rounds"][number - 1]
        if (labels / "labels.json").is_file():
            return
        choice = choose_labels(self.find_run(number - 1), before["floor"], self.asked["min_labels"], self.inputs.root)
        if not any(choice.chosen.values()) and self.given is None:
            raise InputError(
                f"expected things to learn from, but none of {', '.join(self.names.names[:8])} was found in "
                f"{len(self.inputs.ids)} images; look at {self.find_run(0)}, and try other names or --models"
            )
        few = choice.list_few(self.asked["min_labels"])
        if few:
            told = ", ".join(f"{name} {count}" for name, count in sorted(few.items(), key=lambda pair: pair[1]))
            self.callbacks.on_note(f"few labels, so little is learned of {len(few)} of {len(choice.chosen)} names: {told}")
        merged = None if self.takes_detector or number < 2 else self.find_folder(number - 1) / "labels"
        self._write_labels(self.find_run(number - 1), labels, choice.rules, earlier=merged, leave_out=self.held)

    def _write_labels(self, run: Path, out: Path, rules: LabelRules, **more: Any) -> None:
        """Select labels of a run, and put what people corrected in the place of its images'."""
        more["images"] = self.inputs.root
        if self.given is None:
            select_labels(run, out, rules, **more)
            return
        with open_scratch(out, "labels") as scratch:  # so that labels without the corrections are never taken for whole
            folder = scratch / "labels"
            try:
                select_labels(run, folder, rules, **more)
            except InputError as problem:  # the method finds nothing; people did
                self.callbacks.on_note(f"{problem}; what people gave is learned from alone")
            self.given.write_into(folder / "labels.json")
            shutil.rmtree(out, ignore_errors=True)
            folder.replace(out)

    def _count_steps(self, number: int, recipe: DetectorRecipe, device: str) -> int:
        """The steps of a round, which are kept, so that a run that is resumed takes the same."""
        if self.asked["steps"] is not None:
            return int(self.asked["steps"])
        steps = self.summary.setdefault("steps", {})
        if str(number) not in steps:
            self.callbacks.on_note("measuring how long a step of training takes")
            looks = self.summary["rounds"][0]["seconds"] * (self.asked["rounds"] - number + 1)
            left = 60 * self.asked["minutes"] - (time.monotonic() - self.began) - looks
            pace = measure_pace(recipe, device)
            steps[str(number)] = choose_steps(recipe, pace, left / (self.asked["rounds"] - number + 1))
            self._save()
            self.callbacks.on_note(f"{steps[str(number)]} steps of {pace:.2f} s in round {number}")
        return int(steps[str(number)])

    def _finish(self) -> None:
        """Hand over the best round's labels and detector, and draw the page."""
        from annofree.pipelines.learning.page import write_page

        best = choose_best(self.summary["rounds"])
        trained = best or len(self.summary["rounds"]) - 1
        self.summary |= {"best": best, "detector of": trained}
        if self.summary["rounds"][best]["instances"] or self.given is not None:
            rules = LabelRules(min_score=ByClass(self.summary["rounds"][best]["floor"]), within=1, inside=1)
            self._write_labels(self.find_run(best), self.out / "labels", rules)
        else:
            self.callbacks.on_note("no labels: no round found anything that it is sure of; look at the page before more")
        copy_detector(self.find_folder(trained) / "detector", self.out / "detector")
        export_onnx(self.out / "detector", self.callbacks.on_note)
        write_page(self.out / "page", self.summary, [self.find_run(k) for k in range(len(self.summary["rounds"]))], self.inputs)
        self._save()
