"""How much memory a process takes; Linux."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def resident() -> float:
    """GiB of this process in memory; from here on `peak` looks."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """The most GiB since the last `resident`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows[name].split()[0]) / 2**20


def in_a_process_of_its_own(call: str) -> Any:
    """What `call`, such as "ranking.alone(…)" of a module of this folder, returns there; it must be plain values.

    Raises:
        RuntimeError: it failed; the last line of what it said.
    """
    module = call.split(".", 1)[0]
    script = f"import json; from benchmarks import {module}; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{call}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
