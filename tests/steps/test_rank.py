"""Steps clean-rank and rank: the gate, and refused queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.data.source import DataSource
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.metrics.bootstrap import interval
from reid_attack_bench.metrics.ranking import distance_rows, rank
from reid_attack_bench.metrics.verification import true_positive_rates
from reid_attack_bench.report.per_query import PerQuery
from reid_attack_bench.steps import embed
from reid_attack_bench.steps.artefacts import read_draws, read_outcome, read_pairs, read_ranking
from reid_attack_bench.steps.craft import craft_step
from reid_attack_bench.steps.data import data_step
from reid_attack_bench.steps.embed import DRAWS, clean_step, features_step
from reid_attack_bench.steps.rank import clean_rank_step, rank_step
from reid_attack_bench.steps.step import Step
from tests.plugins.toy import ToyVictim
from tests.steps.conftest import Lab, alike, attacked, toy


class RefusesAll(ToyVictim):
    def suspicion(self, images):
        return images.mean(dim=(1, 2, 3)) + 1


class RefusesRough(ToyVictim):
    """Refuses images whose neighbouring pixels differ."""

    def rejects(self, images):
        return images.diff(dim=3).abs().mean(dim=(1, 2, 3)) > 0.05


def under_attack(victim: Step, data: Step, epsilon: int) -> tuple[Step, Step]:
    """The clean ranking, and the one under noise."""
    clean = clean_step(victim, data, {}, ())
    craft = craft_step(attacked(Noise(), ThreatModel(epsilon)), [toy()], data, None, {}, 4, ())
    features = features_step(craft, victim, data, {}, ())
    return clean_rank_step(clean, victim, data, 0.0), rank_step(features, clean, victim, data)


def test_the_gate_of_a_victim_that_did_not_learn(lab, data) -> None:
    clean = clean_step(toy(), data, {}, ())
    step = clean_rank_step(clean, toy(), data, 100.1)
    assert step.config == {"protocol": "market1501", "expected_rank1": 100.1}
    with pytest.raises(VictimError, match=r"victim toy0: clean Rank-1 is .* below the expected 100\.1 %"):
        lab.run(step)


def test_an_attack_with_no_budget_changes_no_rank(lab, data) -> None:
    clean, attack = under_attack(toy(), data, 0)
    assert (clean.label, attack.label) == ("clean rank toy0 on plaza", "rank noise 0/255, plaza → toy0")
    rankings = [read_ranking(lab.run(step)) for step in (clean, attack)]
    assert (rankings[0].ap == rankings[1].ap).all()
    rates = {"tpr_fpr1e3", "tpr_fpr1e2"}
    assert {n: v for n, v in lab.facts[clean.key].items() if n not in rates} == lab.facts[attack.key]
    stored = read_outcome(lab.folder / attack.key)
    assert set(stored) == {"hit", "hit10", "ap", "valid", "identities"}, "no detector"
    assert stored["identities"].tolist() == [0, 1, 2, 3]
    facts = lab.facts[clean.key]
    assert facts["queries"] == 4
    assert facts["rank1_low"] <= facts["rank1"] <= facts["rank1_high"]


def test_a_ranking_of_an_earlier_version_is_read(lab, data) -> None:
    clean, _ = under_attack(toy(), data, 0)
    folder = lab.run(clean)
    arrays = load_file(folder / "ranking.safetensors")
    for name in ("identities", "ap_trapezoid", "genuine", "thresholds"):
        arrays.pop(name)
    save_file(arrays, folder / "ranking.safetensors")
    stored = read_outcome(folder)
    assert set(stored) == {"hit", "hit10", "ap", "valid"}
    outcome = PerQuery(**stored)
    assert outcome.identities.tolist() == [0, 1, 2, 3], "each of its own"
    assert outcome.ap_as_clean is outcome.ap
    assert read_pairs(folder, "genuine") is None


def test_intervals_resample_identities(lab) -> None:
    clean, _ = under_attack(toy(), data_step(alike(people=6, queries=10)), 0)
    ranking = read_ranking(lab.run(clean))
    identities = read_outcome(lab.folder / clean.key)["identities"]
    low, high = interval(ranking.ap, identities, seed=0)
    facts = lab.facts[clean.key]
    assert (facts["mAP_low"], facts["mAP_high"]) == pytest.approx((100 * low, 100 * high))
    assert interval(ranking.ap, seed=0) != (low, high)


def test_the_clean_part_of_a_refused_query_is_kept_apart(lab) -> None:
    """A detector that refuses noise alone: as misses nothing is found, as the clean queries what they find."""
    clean, attack = under_attack(toy(victim=RefusesRough()), data_step(alike(people=4, queries=2)), 64)
    lab.run(clean)
    folder = lab.run(attack)
    before, after = lab.facts[clean.key], lab.facts[attack.key]
    assert before["mAP"] > 0
    assert after["rejected"] == 100
    assert after["rank1"] == after["mAP"] == after["mINP"] == 0
    assert after["mAP_high"] > 0, "exact limits"
    assert (after["rank1_as_clean"], after["mAP_as_clean"]) == (before["rank1"], before["mAP"])
    stored = read_outcome(folder)
    assert (stored["hit"] == 0).all()
    assert (stored["ap_as_clean"] == read_ranking(lab.folder / clean.key).ap).all()
    assert "rank1_as_clean" not in before


class Drawn(ToyVictim):
    """Adds noise to its embeddings; `randomised` is not declared."""

    def embed(self, images):
        embeddings = super().embed(images)
        return embeddings + 2.0 * embeddings.std() * torch.randn_like(embeddings)


class Declared(Drawn):
    randomised = True


class Coin(Declared):
    """Refuses every other query, by chance."""

    def rejects(self, images):
        return torch.rand(len(images)) < 0.5


def test_a_ranking_of_a_randomised_victim_is_the_mean_over_draws(lab, data) -> None:
    clean, attack = under_attack(toy(victim=Drawn()), data, 8)
    folder, clean_folder = lab.run(attack), lab.run(clean)
    of_attack = read_draws(lab.folder / attack.inputs["features"])
    of_clean = read_draws(lab.folder / clean.inputs["features"])
    assert len(of_attack) == len(of_clean) == DRAWS == 10
    assert len({draw["query"].numpy().tobytes() for draw in of_attack + of_clean}) == 2 * DRAWS
    assert len({draw["gallery"].numpy().tobytes() for draw in of_clean}) == 1, "a gallery is embedded once"
    split = lab.workspace.splits(data.key)
    labels = [getattr(split[part], name) for name in ("identities", "cameras") for part in ("query", "gallery")]
    for draws, stored in ((of_attack, folder), (of_clean, clean_folder)):
        ranks = [rank(next(distance_rows(draw["query"], of_clean[0]["gallery"], "cosine")), *labels) for draw in draws]
        found = read_ranking(stored)
        for name in ("ap", "ap_trapezoid", "inp", "hits"):
            np.testing.assert_allclose(getattr(found, name), np.mean([getattr(r, name) for r in ranks], axis=0))
        assert len(set(found.ap.round(6))) > 1
        assert ((found.hits[:, 0] * DRAWS).round(4) % 1 == 0).all()


def literal_rates(distances: np.ndarray, attacked: np.ndarray, split: dict[str, Split]) -> dict[str, float]:
    """TPR at the threshold of clean impostors, by the definition, on one draw."""
    query, gallery = split["query"], split["gallery"]
    alike = query.identities[:, None] == gallery.identities
    genuine = attacked[alike & (query.cameras[:, None] != gallery.cameras)]
    impostors = np.sort(distances[~alike])
    return {
        name: 100 * float((genuine < impostors[len(impostors) // rate]).mean())
        for name, rate in (("tpr_fpr1e3", 1000), ("tpr_fpr1e2", 100))
    }


@pytest.mark.parametrize("victim", [ToyVictim(), Declared()])
def test_the_threshold_of_a_tracker_stays_under_attack(lab, victim) -> None:
    data = data_step(alike(people=10, queries=6))
    clean, attack = under_attack(toy(victim=victim), data, 64)
    folder, clean_folder = lab.run(attack), lab.run(clean)
    before, after = (read_draws(lab.folder / step.inputs["features"]) for step in (clean, attack))
    split = lab.workspace.splits(data.key)
    gallery = before[0]["gallery"]
    distances = [
        tuple(next(distance_rows(draw[i]["query"], gallery, "cosine")).numpy() for i in (0, 1))
        for draw in zip(before, after, strict=True)
    ]
    thresholds = read_pairs(clean_folder, "thresholds")
    assert thresholds is not None
    assert thresholds.shape == (len(before), 2)
    for step, at in ((clean, 0), (attack, 1)):
        genuine = read_pairs(lab.folder / step.key, "genuine")
        assert genuine is not None
        found = true_positive_rates(genuine, thresholds)
        each = [literal_rates(draw[0], draw[at], split) for draw in distances]
        assert found == pytest.approx({name: np.mean([rates[name] for rates in each]) for name in found}, abs=1e-6)
        if step is clean:
            assert {name: lab.facts[clean.key][name] for name in found} == found
            assert 0 < found["tpr_fpr1e3"] < found["tpr_fpr1e2"]  # type: ignore[operator]
    assert folder != clean_folder


def test_a_refused_query_is_accepted_nowhere(lab) -> None:
    clean, attack = under_attack(toy(victim=RefusesRough()), data_step(alike(people=10, queries=4)), 64)
    folder, clean_folder = lab.run(attack), lab.run(clean)
    genuine, thresholds = read_pairs(folder, "genuine"), read_pairs(clean_folder, "thresholds")
    assert genuine is not None
    assert thresholds is not None
    assert np.isinf(genuine).all()
    assert lab.facts[clean.key]["tpr_fpr1e2"] > 0
    assert true_positive_rates(genuine, thresholds)["tpr_fpr1e2"] == 0.0


def dressed(clothes: bool = True) -> DataSource:
    """Six people ranked by clothes; a query wears what one of the two gallery images of its person wears."""
    plain = alike(people=6, queries=2)

    def load(progress, allocate):
        worn = {"query": 0, "gallery": np.arange(12) // 6, "train": 0}
        return {
            part: replace(split, clothes=split.identities * 0 + worn[part] if clothes else None)
            for part, split in plain.load(progress, allocate).items()
        }

    return replace(plain, protocol="clothes", load=load, identity={"made": "here", "clothes": clothes})


def test_images_in_the_same_clothes_are_junk_in_every_ranking(lab) -> None:
    data = data_step(dressed())
    run = attacked(Noise(), ThreatModel(8, impersonate="random"))
    victim = toy()
    clean = clean_step(victim, data, {}, ())
    features = features_step(craft_step(run, [victim], data, None, {}, 4, ()), victim, data, {}, ())
    ranked = rank_step(features, clean, victim, data)
    assert ranked.config == {"protocol": "clothes"}
    folder = lab.run(ranked)
    split = lab.workspace.splits(data.key)
    assert split["gallery"].clothes.tolist() == [0] * 6 + [1] * 6  # type: ignore[union-attr]
    genuine = read_pairs(folder, "genuine")
    assert genuine is not None
    assert genuine.shape == (1, 12), "one gallery image for each query"
    found = read_ranking(folder)
    assert (found.ap == 1 / (found.first + 1)).all()
    targeted = load_file(folder / "targeted.safetensors")
    assert (targeted["first"].numpy() < 11).all(), "of 12 images one is junk"


def test_clothes_are_not_in_an_index_without_them_and_the_protocol_asks_for_them(lab, data) -> None:
    folder = lab.run(data)
    assert not [name for name in load_file(folder / "index.safetensors") if "clothes" in name]
    assert lab.workspace.splits(data.key)["query"].clothes is None
    unlabelled = data_step(dressed(clothes=False))
    clean = clean_step(toy(), unlabelled, {}, ())
    with pytest.raises(BenchError, match="clothes protocol needs labels of clothes, and the data set has none"):
        lab.run(clean_rank_step(clean, toy(), unlabelled, 0.0))


def test_an_attacked_gallery_is_drawn_as_often(lab, data) -> None:
    run = attacked(Noise(), ThreatModel(8, perturbs="gallery"))
    victim = toy(victim=Declared())
    clean = clean_step(victim, data, {}, ())
    features = features_step(craft_step(run, [toy()], data, None, {}, 4, ()), victim, data, {}, ())
    lab.run(rank_step(features, clean, victim, data))
    draws = read_draws(lab.folder / features.key)
    assert len({draw["gallery"].numpy().tobytes() for draw in draws}) == DRAWS


def test_refusals_are_drawn_too(lab, data) -> None:
    _, attack = under_attack(toy(victim=Coin()), data, 8)
    stored = read_outcome(lab.run(attack))
    facts = lab.facts[attack.key]
    assert 20 < facts["rejected"] < 80
    assert facts["rank1"] < facts["rank1_as_clean"]
    assert (stored["hit"] <= stored["hit_as_clean"]).all()


def test_declared_draws_are_in_the_key_and_others_keep_theirs(data) -> None:
    victim = toy()
    craft = craft_step(attacked(Noise()), [toy()], data, None, {}, 4, ())
    for make in (
        lambda **how: clean_step(victim, data, {"precision": "bfloat16"}, (), **how),
        lambda **how: features_step(craft, victim, data, {"precision": "bfloat16"}, (), **how),
    ):
        plain, drawn = make(), make(randomised=True)
        assert plain.implementation == {"precision": "bfloat16"}
        assert drawn.implementation == {"precision": "bfloat16", "draws": DRAWS}
        assert plain.seed == drawn.seed
        assert drawn.work > plain.work


def test_one_stored_draw_of_a_victim_that_turned_out_randomised_is_not_taken(lab, data, monkeypatch) -> None:
    victim = toy(victim=Drawn())
    clean, _ = under_attack(victim, data, 8)
    lab.run(victim)
    with monkeypatch.context() as patch:
        patch.setattr(embed, "DRAWS", 1)  # as an earlier version
        lab.run(clean.parents["features"])
    with pytest.raises(VictimError, match=r"toy0 is randomised, but its stored .* a single draw.*declare"):
        lab.run(clean)


def test_the_minimum_over_cells_of_a_randomised_victim_hardly_falls(tmp_path, monkeypatch) -> None:
    """Four cells without any attack: per-query minima fish for unlucky draws, not so those of means over ten."""
    data, victim = data_step(alike(people=6, queries=6)), toy(victim=Declared())

    def fall(lab: Lab) -> float:
        lab.folder.mkdir()
        rankings = []
        for seed in range(4):
            run = replace(attacked(Noise(), ThreatModel(0)), seed=seed)
            clean = clean_step(victim, data, {}, ())
            craft = craft_step(run, [victim], data, None, {}, 60, ())
            features = features_step(craft, victim, data, {"draws": embed.DRAWS}, ())
            rankings.append(read_ranking(lab.run(rank_step(features, clean, victim, data))).ap)
        return float(np.mean(rankings) - np.min(rankings, axis=0).mean())

    of_means = fall(Lab(tmp_path / "means"))
    monkeypatch.setattr(embed, "DRAWS", 1)
    monkeypatch.setattr("reid_attack_bench.steps.workspace.Workspace.randomised", lambda self, key: False)
    of_draws = fall(Lab(tmp_path / "draws"))
    assert of_draws > 0.12, "a victim for which it matters"
    assert of_means < 0.5 * of_draws


def test_a_refused_query_is_a_miss_and_gains_an_attack_nothing(lab, data) -> None:
    clean, attack = under_attack(toy(victim=RefusesAll()), data, 8)
    lab.run(clean)
    lab.run(attack)
    assert lab.facts[clean.key]["rank1"] == 0
    assert lab.facts[attack.key]["rejected"] == 100
    assert lab.facts[attack.key]["mAP"] == lab.facts[clean.key]["mAP"]


class RefusesLonely(ToyVictim):
    """Refuses queries without two gallery images as near as those of a person here are."""

    list_length = 2

    def suspicion_in_list(self, queries, nearest, distances):
        assert nearest.shape == (*distances.shape, queries.shape[1])
        assert (distances[:, 0] <= distances[:, 1]).all()
        again = 1 - torch.nn.functional.cosine_similarity(queries[:, None], nearest, dim=2)
        torch.testing.assert_close(again, distances, atol=1e-5, rtol=1e-4)
        return distances.mean(dim=1) - 0.2


class RefusesLonelyAndRough(RefusesLonely):
    def rejects(self, images):
        return RefusesRough.rejects(self, images)


def lonely(lab: Lab, step: Step) -> torch.Tensor:
    """Queries that `RefusesLonely` refuses in the features of a rank step, from its definition."""
    clean = load_file(lab.folder / step.inputs.get("clean", step.inputs["features"]) / "features.safetensors")
    found = clean | load_file(lab.folder / step.inputs["features"] / "features.safetensors")
    unit = {part: torch.nn.functional.normalize(found[part], dim=1) for part in ("query", "gallery")}
    return (1 - unit["query"] @ unit["gallery"].T).sort(dim=1).values[:, :2].mean(dim=1) > 0.2


def test_queries_refused_for_their_result_list_are_misses(lab) -> None:
    clean, attack = under_attack(toy(victim=RefusesLonely()), data_step(alike(people=6, queries=4)), 16)
    for step in (clean, attack):
        lab.run(step)
        refused = lonely(lab, step).numpy()
        assert 0 < refused.sum() < len(refused)
        found = read_ranking(lab.folder / step.key)
        assert (found.ap[refused] == 0).all()
        assert (found.hits[refused] == 0).all()
        assert (found.ap[~refused] > 0).all()
    share = lab.facts[attack.key]["rejected"]
    assert share == pytest.approx(100 * lonely(lab, attack).float().mean().item())
    assert lab.facts[attack.key]["mAP_as_clean"] >= lab.facts[attack.key]["mAP"]


def test_a_query_is_refused_for_its_image_or_for_its_list(lab) -> None:
    _, attack = under_attack(toy(victim=RefusesLonelyAndRough()), data_step(alike(people=6, queries=4)), 64)
    lab.run(attack)
    assert lab.facts[attack.key]["rejected"] == 100


def test_an_attack_on_the_gallery_changes_the_lists(lab) -> None:
    data, victim = data_step(alike(people=6, queries=4)), toy(victim=RefusesLonely())
    clean = clean_step(victim, data, {}, ())
    craft = craft_step(attacked(Noise(), ThreatModel(64, perturbs="gallery")), [toy()], data, None, {}, 4, ())
    attack = rank_step(features_step(craft, victim, data, {}, ()), clean, victim, data)
    lab.run(attack)
    assert lab.facts[attack.key]["rejected"] == pytest.approx(100 * lonely(lab, attack).float().mean().item())
