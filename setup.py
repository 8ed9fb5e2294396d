"""Find the packages of the three source folders; all other metadata is in pyproject.toml.

It is code because pyproject.toml can find packages or map folders to package names, but not both.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "reid_attack_bench": "reid_attack_bench",
    "reid_attack_bench.attacks": "attacks",
    "reid_attack_bench.victims": "victims",
}

setup(
    packages=[*FOLDERS, *(f"{name}.{found}" for name, folder in FOLDERS.items() for found in find_packages(folder))],
    package_dir=FOLDERS,
)
