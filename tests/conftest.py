"""Plumbing that every test shares: in CI nothing is skipped silently.

A test may skip where a developer's machine lacks something (root, PostgreSQL). CI installs all of it, so there
(`CI=true`) a skip means that something went untested: it becomes a failure that carries the reason of the skip.
"""

import os
from collections.abc import Generator

import pytest

# Beginning of a test's id -> why no CI machine can run it. Short, and best empty.
SKIPS_ALLOWED_IN_CI: dict[str, str] = {}


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    if any(report.nodeid.startswith(start) for start in SKIPS_ALLOWED_IN_CI):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped, which CI does not allow: {reason.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
