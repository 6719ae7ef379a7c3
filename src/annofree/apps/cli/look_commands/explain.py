"""``annofree explain``: how a method comes to its answer for an image."""

from __future__ import annotations

from annofree.apps.cli.options import common, look, pass_on
from annofree.apps.cli.options import segment as options
from annofree.io.class_names import read_vocabulary
from annofree.methods.registry import is_class_agnostic
from annofree.pipelines import explain as pipeline

__all__ = ["explain"]


def explain(
    image: look.OneImage,
    out: look.PageFolder,
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    task: look.OneTask = None,
    negatives: options.Negatives = None,
    method: options.Method = None,
    variant: common.Variant = "default",
    models: options.Models = "fast",
    objectness: options.Objectness = "found",
    policy: options.Policy = "answer",
    device: common.Device = "auto",
) -> None:
    """Draw every step of a method on one image, each with a sentence, and write them as a page with images.

    The steps of zip, consensus, clip_diy, zutis and maskcut are drawn; of any other method what its policy drops, and its
    answer. The last picture is the answer that segment gives. Exit code 0: written; 2: the call was wrong.

    Example: annofree explain photo.jpg --classes "dog, cat" --out how
    """
    asked = pass_on(locals(), "image", "classes", "classes_file")
    nameless = not (classes or classes_file) and is_class_agnostic(method, models)
    found = pipeline.explain(image, read_vocabulary(classes, classes_file, optional=nameless), **asked)
    print(f"written: {found.page}")
