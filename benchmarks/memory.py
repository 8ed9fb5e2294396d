"""Memory of a process; Linux only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def resident() -> float:
    """Resident memory of this process in GiB; also resets `peak`."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def peak() -> float:
    """Largest resident memory in GiB since the last call of `resident`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(rows[name].split()[0]) / 2**20


def in_new_process(call: str) -> Any:
    """Evaluate `call`, such as "ranking.alone(…)" of a module of this folder, in a new process.

    The result must be plain values.

    Raises:
        RuntimeError: it failed; the message has the last line of its output.
    """
    module = call.split(".", 1)[0]
    script = f"import json; from benchmarks import {module}; print(json.dumps({call}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False, encoding="utf-8"
    )
    if done.returncode:
        raise RuntimeError(f"{call}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
