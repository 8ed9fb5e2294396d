"""What a report needs is tried before the work that it reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_attack_bench.cli.main import main
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.run import evaluate
from reid_attack_bench.report.ready import check_report
from tests.plugins import toy

ROOT = Path(__file__).parents[2]


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "run" / "plots").mkdir(parents=True)
    check_report(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["plots"]


@pytest.mark.e2e
@pytest.mark.parametrize("missing", ["report.write", "report.plots.style"])
def test_nothing_is_run_if_the_report_does_not_import(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, f"reid_attack_bench.{missing}", None)
    with pytest.raises(BenchError, match="so nothing was run: ModuleNotFoundError"):
        evaluate(toy.ToyVictim(), suite="quick", out=tmp_path / "run", store=tmp_path / "store", progress=False)
    assert not list((tmp_path / "store").rglob("*.npy"))


@pytest.mark.parametrize("name", ["plots", "report.html", "."])
def test_a_report_that_cannot_be_written_is_found_first(tmp_path, name):
    place = tmp_path / "run" / name
    place.parent.mkdir(exist_ok=True)
    if name == "report.html":
        place.mkdir(parents=True)
    else:
        place.write_text("a file where a folder must be", encoding="utf-8") if name != "." else None
    out = tmp_path / "run" if name != "." else tmp_path / "file"
    if name == ".":
        out.write_text("", encoding="utf-8")
    with pytest.raises(BenchError, match="no report can be written") as caught:
        check_report(out)
    assert "\n" not in str(caught.value)


def test_commands_plot_with_agg_whatever_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setattr(sys, "argv", ["reid-attack-bench", "list", "protocols"])
    main()
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.e2e
def test_a_command_in_a_shell_of_a_notebook_without_a_home_can_report(tmp_path):
    code = f"""if True:
        import pwd, sys
        from pathlib import Path
        def unknown(uid):  # as in a container that runs as any number
            raise KeyError(uid)
        pwd.getpwuid = unknown
        from reid_attack_bench.cli.main import main
        sys.argv = ["reid-attack-bench", "weights", "list"]
        main()
        from reid_attack_bench.report.ready import check_report
        check_report(Path({str(tmp_path)!r}) / "run")
    """
    environment = {"PATH": os.environ["PATH"], "MPLBACKEND": "no-such-backend"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert "weights folder: /" in done.stdout


@pytest.mark.e2e
def test_a_report_is_written_under_a_limit_on_address_space_without_the_charts_that_need_more(tmp_path):
    code = f"""if True:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # ulimit -v, as batch systems set it
        from pathlib import Path
        from reid_attack_bench.report.write import write_report
        from tests.report.test_report import make_results
        write_report(make_results(("osnet_x0_25",), ("plaza",), ("pgd",), (8,), images=1), Path({str(tmp_path)!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "ulimit -v" in page
    assert "vegaEmbed=" not in page
    assert list((tmp_path / "plots").glob("*.pdf"))
