"""A script that calls the command line in a process that has imported nothing."""

from __future__ import annotations

__all__ = ["CALLS"]

CALLS = """
import contextlib, io, json, sys
from annofree.apps.cli import main

calls, heavy = json.loads(sys.argv[1])
said = []
for call in calls:
    sys.argv, out, code = ["annofree", *call], io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said.append([code, out.getvalue(), [name for name in heavy if name in sys.modules]])
print(json.dumps(said))
"""
