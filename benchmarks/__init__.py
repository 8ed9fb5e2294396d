"""Speed of the bench, as ratios: `python -m benchmarks` runs every module here and writes results/benchmarks."""
