"""How fast the bench is, as ratios: `python -m benchmarks` runs every module here and writes results/benchmarks."""
