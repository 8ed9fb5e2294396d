"""The promise of the unit tier, kept by tests/conftest.py."""

from __future__ import annotations

import multiprocessing
import os
import subprocess

import pytest

from tests.conftest import UNIT_SECONDS, in_time


def test_a_unit_test_starts_no_process() -> None:
    for start in (
        lambda: subprocess.run(["true"], check=True),
        lambda: multiprocessing.get_context("fork").Process(target=print).start(),
        lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
        os.fork,
    ):
        with pytest.raises(pytest.fail.Exception, match="a unit test starts no process"):
            start()


@pytest.mark.e2e
def test_another_may() -> None:
    assert subprocess.run(["true"], check=True).returncode == 0


def test_a_unit_test_is_over_soon() -> None:
    in_time(UNIT_SECONDS)
    with pytest.raises(pytest.fail.Exception, match=r"4\.5 s for a unit test, more than 4 s"):
        in_time(4.5)


def test_most_tests_are_unit_tests(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    units = [item for item in items if item.get_closest_marker("unit")]
    assert len(units) > 0.6 * len(items) or len(items) < 300, "of one folder only, perhaps"
