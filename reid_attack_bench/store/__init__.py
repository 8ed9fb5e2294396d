"""The store: results of steps, addressed by what made them. Written atomically, checked when read."""

from reid_attack_bench.store.claims import Held, described
from reid_attack_bench.store.local import DEFAULT_STORE, LARGE, CorruptArtefact, Store
from reid_attack_bench.store.remote import open_store

__all__ = ["DEFAULT_STORE", "LARGE", "CorruptArtefact", "Held", "Store", "described", "open_store"]
