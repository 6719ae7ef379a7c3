"""``annofree serve``: a page to look and to correct, on this machine."""

from __future__ import annotations

import os

from annofree.apps.cli.options import common
from annofree.apps.cli.options import segment as options
from annofree.apps.cli.options import serve as own
from annofree.apps.web import start
from annofree.apps.web.options import Address, ServeOptions, find_user
from annofree.io.class_names import read_vocabulary

__all__ = ["serve"]


def serve(
    target: own.Target = None,
    classes: options.ClassNames = None,
    classes_file: options.ClassesFile = None,
    method: options.Method = None,
    variant: common.Variant = "default",
    models: own.Models = None,
    policy: own.PagePolicy = None,
    detector: options.Detector = None,
    device: common.Device = "auto",
    precision: options.Precision = "float32",
    out: own.WorkFolder = None,
    who: own.Who = None,
    host: own.Host = "127.0.0.1",
    port: own.Port = None,
    token: own.Token = None,
    allow_host: own.AllowHost = None,
    max_upload_mb: own.MaxUpload = 256,
    max_pixels: own.MaxPixels = 50_000_000,
    queue: own.Queue = 64,
    timeout: own.Timeout = 120,
) -> None:
    """Serve a page on this machine: images in, names typed, masks looked at and corrected; on a run, a folder, or nothing yet.

    What people correct is kept for `annofree export`, `finetune` and `learn`. Ctrl-C ends it; nothing is lost.

    Example: annofree serve photos --classes "dog, cat"
    """
    names = None if not (classes or classes_file) else read_vocabulary(classes, classes_file)
    parts = {"method": method, "variant": variant, "models": models, "policy": policy, "detector": detector}
    parts |= {"device": device, "precision": precision}
    asked = ServeOptions(names, parts, out, who or find_user(), max_upload_mb, max_pixels, queue, timeout)
    address = Address(host, port, token or os.environ.get("ANNOFREE_TOKEN"), tuple(allow_host or ()))
    start.run_server(target, asked, address, lambda place: print(f"open {place}", flush=True))
