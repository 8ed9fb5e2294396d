"""python -m reid_attack_bench is the command line."""

from reid_attack_bench.cli import main

if __name__ == "__main__":
    main()
