"""Label Studio itself, end to end: tasks are imported, predictions appear, a click is answered, a correction comes back.

    uv venv lsenv && VIRTUAL_ENV=lsenv uv pip install label-studio
    uv run python benchmarks/label_studio_check.py --label-studio lsenv/bin/label-studio

Starts Label Studio in a folder of its own (its first start takes a minute or two), and ``annofree serve`` on some images with
the tiny models.  Prints what was seen, a line each, and ends with 1 where something is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "a-token-for-this-check-alone"
NAMES = ("oranges.jpg", "elephants.jpg", "desk.jpg")
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="label" toName="image">
    <Label value="orange" synonyms="tangerine"/><Label value="elephant" alias="E"/>
  </BrushLabels>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="orange" smart="true"/></KeyPointLabels>
</View>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label-studio", type=Path, required=True, help="the program, in an environment of its own")
    parser.add_argument("--wait", type=float, default=300, help="seconds that either server may take to start")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="label-studio-check-") as folder:
        check(given.label_studio, Path("examples/scenes").resolve(), Path(folder), given.wait)


def check(program: Path, images: Path, folder: Path, wait: float) -> None:
    theirs, ours = f"http://127.0.0.1:{find_port()}", f"http://127.0.0.1:{find_port()}"
    began = time.perf_counter()
    started = [start_label_studio(program, theirs, images, folder), start_serve(ours, theirs, images, folder)]
    try:
        for name, address in (("label-studio", theirs), ("annofree", ours)):
            wait_for(address, wait)
            say(f"{name} is up after {time.perf_counter() - began:.0f} s")
        follow(theirs, ours, NAMES)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            process.wait(30)


def follow(theirs: str, ours: str, names: tuple[str, ...]) -> None:
    """What a person does, by Label Studio's own interface for programs."""
    project = call(theirs, "POST", "/api/projects", {"title": "check", "label_config": CONFIG})["id"]
    data = [{"image": f"/data/local-files/?d={name}"} for name in names]
    call(theirs, "POST", f"/api/projects/{project}/import", data)
    basic = {"auth_method": "BASIC_AUTH", "basic_auth_user": "annofree", "basic_auth_pass": TOKEN}
    backend = call(
        theirs, "POST", "/api/ml", {"project": project, "url": ours, "title": "annofree", "is_interactive": True, **basic}
    )
    version = call(theirs, "GET", f"/api/ml/{backend['id']}")["model_version"]
    say(f"connected, version {version}")
    for webhook in call(theirs, "GET", f"/api/webhooks/?project={project}"):  # which comes with the backend, without its token
        call(theirs, "PATCH", f"/api/webhooks/{webhook['id']}/", {"headers": {"Authorization": f"Bearer {TOKEN}"}})
    tasks = call(theirs, "GET", f"/api/tasks?project={project}&fields=all")["tasks"]
    began = time.perf_counter()
    call(
        theirs,
        "POST",
        f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
        {"selectedItems": {"all": True, "excluded": []}},
    )
    found = {task["id"]: call(theirs, "GET", f"/api/predictions?task={task['id']}") for task in tasks}
    regions = sum(len(one["result"]) for many in found.values() for one in many)
    require(
        len(tasks) == len(names) == sum(map(bool, found.values())) and regions > 0, f"{regions} regions in {len(found)} tasks"
    )
    say(f"predictions appear: {regions} regions in {len(tasks)} tasks after {time.perf_counter() - began:.1f} s")
    task = next(task for task in tasks if found[task["id"]][0]["result"])
    answer = found[task["id"]][0]["result"]
    click(theirs, backend["id"], task["id"], answer[0])
    correct(theirs, ours, project, task, answer)


def click(theirs: str, backend: int, task: int, region: dict[str, Any]) -> None:
    """A click in the middle of the image, as the page of Label Studio sends it."""
    size = {key: region[key] for key in ("original_width", "original_height")}
    point = {"id": "p", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True, **size,
             "value": {"x": 50, "y": 60, "width": 0.3, "keypointlabels": ["orange"]}}  # fmt: skip
    drawn = call(theirs, "POST", f"/api/ml/{backend}/interactive-annotating", {"task": task, "context": {"result": [point]}})
    results = (drawn.get("data") or {}).get("result", [])
    require(len(results) == 1 and results[0]["type"] == "brushlabels", f"one brush for a click, got {drawn}")
    say(f"a click is answered by a brush of {len(results[0]['value']['rle'])} bytes")


def correct(theirs: str, ours: str, project: int, task: dict[str, Any], answer: list[dict[str, Any]]) -> None:
    """A person keeps the first region under another label, and submits; it is found in our export, then in theirs."""
    kept = answer[0] | {"value": answer[0]["value"] | {"brushlabels": ["E"]}}
    made = call(theirs, "POST", f"/api/tasks/{task['id']}/annotations", {"result": [kept]})
    name = task["data"]["image"].partition("?d=")[2]
    rows = read_export(ours, name)
    require([row["name"] for row in rows] == ["elephant"], f"one elephant in the export, got {rows}")
    say(f"the correction came back by webhook: {rows[0]['name']} in {name}, {rows[0]['area']} px, by {rows[0]['who']}")
    call(theirs, "PATCH", f"/api/annotations/{made['id']}", {"result": []})
    require(read_export(ours, name) == [], "no label after the person took it back")
    say("an update of it came back, too: the image has no label now")


def read_export(ours: str, name: str) -> list[dict[str, Any]]:
    """The labels of an image in the export of the page."""
    heads = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(20):
        held = call(ours, "GET", "/api/export?format=coco", heads=heads)
        images = {row["id"] for row in held["images"] if row["file_name"] == name}
        if images:
            names = {row["id"]: row["name"] for row in held["categories"]}
            return [row | {"name": names[row["category_id"]]} for row in held["annotations"] if row["image_id"] in images]
        time.sleep(0.5)
    return []


def start_label_studio(program: Path, address: str, images: Path, folder: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "theirs"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(images),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "ML_CONNECTION_TIMEOUT": "30",
        "ML_TIMEOUT_HEALTH": "30",
        "ML_TIMEOUT_SETUP": "60",
        "ML_TIMEOUT_PREDICT": "600",
        "WEBHOOK_TIMEOUT": "30",
    }
    port = address.rpartition(":")[2]
    account = ("--username", "check@example.org", "--password", "check-of-annofree", "--user-token", KEY)
    return start([str(program), "start", "-p", port, "--no-browser", *account], env, folder / "theirs.log")


def start_serve(address: str, theirs: str, images: Path, folder: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"LABEL_STUDIO_URL": theirs, "LABEL_STUDIO_API_KEY": KEY, "ANNOFREE_TOKEN": TOKEN}
    own = ("--models", "tiny", "--device", "cpu", "--timeout", "600", "--out", str(folder / "ours"))
    command = [sys.executable, "-m", "annofree", "serve", str(images), *own, "--port", address.rpartition(":")[2]]
    return start(command, env, folder / "ours.log")


def start(command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(address: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            call(address, "GET", "/health", heads={"Authorization": f"Bearer {TOKEN}"})
        except OSError as problem:
            require(time.monotonic() < end, f"{address} within {seconds:g} s: {problem}")
            time.sleep(0.5)
        else:
            return


def call(address: str, method: str, path: str, body: Any = None, heads: dict[str, str] | None = None) -> Any:
    """Ask a server for JSON, by default Label Studio with its token."""
    heads = {"Content-Type": "application/json", **(heads or {"Authorization": f"Token {KEY}"})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, heads, method=method)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as problem:
        raise OSError(f"{method} {path}: {problem.code} {problem.read()[:500]!r}") from None


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def say(line: str) -> None:
    print(line, flush=True)


def require(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"missing: {what}")


if __name__ == "__main__":
    main()
