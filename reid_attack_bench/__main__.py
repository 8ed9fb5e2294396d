"""python -m reid_attack_bench is the command line."""

from __future__ import annotations

from reid_attack_bench.cli.main import main

if __name__ == "__main__":
    main()
