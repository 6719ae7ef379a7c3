"""A pytest plugin: with ``--fail-on-skip`` a run fails on any skip whose reason is not listed here."""

from __future__ import annotations

import pytest

ALLOWED_SKIPS = {
    "needs named pipes": "the system has none (Windows)",
    "needs fork": "the system has none (Windows)",
    "label-studio-sdk is not there to compare with": "older libraries: `uv run --no-project --with label-studio-sdk true`",
    "OpenCV is not there to compare with": "another implementation, no dependency: `uv pip install opencv-python-headless`",
    "segment-anything is not there to compare with": "another implementation, no dependency: `uv pip install segment-anything`",
}
"""The reason that a skip gives, and why no installation mends it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail on a skip that tests/support/skips.py does not list")


def unlisted(reports: list[pytest.TestReport]) -> list[str]:
    """The skips without a listed reason, as ``place: reason``."""
    found = []
    for report in reports:
        place, line, said = report.longrepr if isinstance(report.longrepr, tuple) else (report.nodeid, 0, str(report.longrepr))
        reason = said.removeprefix("Skipped: ")
        if reason not in ALLOWED_SKIPS:
            found.append(f"{place}:{line}: {reason}")
    return sorted({*found})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--fail-on-skip"):
        return
    if unlisted(reporter.stats.get("skipped", [])) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = unlisted(terminalreporter.stats.get("skipped", []))
    if found and config.getoption("--fail-on-skip"):
        terminalreporter.section("skips without a listed reason")
        for line in found:
            terminalreporter.line(line)
