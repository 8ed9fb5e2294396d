"""However a plug-in ends a command, its exit status is 0 only where it is finished."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reid_attack_bench.cli import main as entry
from tests.plugins import hostile


@pytest.mark.parametrize("how", ["sys.exit", "GeneratorExit"])
def test_an_end_of_the_program_is_an_error_of_one_line(how, monkeypatch, capsys) -> None:
    monkeypatch.setattr(entry, "cli", lambda **settings: hostile.end(how))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: hostile.py:")
    assert f"{hostile.ENDS[how]} by a plug-in: the command is not finished" in said
    assert said.count("\n") == 1


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("os._exit(0)", 1, "error: os._exit(0) was called by a plug-in: the command is not finished\n"),
        ("os.fork() or os._exit(0); os.wait()", 0, ""),
        ("threading.Thread(target=time.sleep, args=(60,)).start()", 0, ""),
    ],
)
def test_what_a_plug_in_does_to_the_process(code, status, says) -> None:
    lines = f"import os, threading, time\nfrom reid_attack_bench.cli import main\ndef cli(**settings):\n    {code}\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}main.cli = cli\nmain.main()"], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (status, says)
