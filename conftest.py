"""For tests and notebooks alike: where CI is set, a skipped test is a failed one, so nothing is left out unseen.

One exception has to be asked for: where CIMP_REAL_FILES=absent is set as well, a test may skip for want of the real
microscope files. GitHub's machines set it in .github/workflows/test.yml; they do not have these files.
"""

import os

import pytest

STRICT = os.environ.get("CI", "").lower() in ("1", "true", "yes")
NO_REAL_FILES = "Skipped: no real files: "  # how the fixture `shared` begins


def _allowed(reason: str) -> bool:
    return os.environ.get("CIMP_REAL_FILES") == "absent" and str(reason).startswith(NO_REAL_FILES)


def _fail_if_skipped(report):
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if not _allowed(reason):
            report.outcome, report.longrepr = "failed", f"skipped where nothing may be skipped (CI): {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test into a failure."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Turn the skip of a whole module into a failure."""
    return _fail_if_skipped((yield))
