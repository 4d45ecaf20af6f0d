"""Arms of a study: each a recipe that stands on the common one, and a table of paired differences."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pixelis.config import load_recipe_as
from pixelis.config_train import RftRecipe
from pixelis.config_ttrl import AdaptRecipe
from pixelis.core.errors import ConfigError, DataError
from pixelis.eval.scores import ItemScore, write_scores
from pixelis.study import StudyRecipe, run_study, study_json, study_markdown, study_rows, study_stages

ROOT = Path(__file__).parents[2]


def study(tmp_path, *, phase="rft", arms=None, shared=None, seeds=(0,)):
    return StudyRecipe.model_validate(
        {
            "phase": phase,
            "recipe": str(ROOT / "recipes" / "nano" / f"{phase}.toml"),
            "out": str(tmp_path / "study"),
            "seeds": seeds,
            "minutes": 1,
            "shared": {"rft.updates": 3} if shared is None else shared,
            "exam": {"recipe": "eval.toml", "items": 4, "minutes": 1},
            "arm": arms or [{"name": "full"}, {"name": "l2", "set": {"rft.structure": "l2"}, "paper": "worse"}],
        }
    )


def score(index, right, *, valid=(True,), ops=("ZOOM",)):
    return ItemScore(
        id=f"count-{index}", index=index, family="count", right=right, answer="3", stop="answer", steps=len(ops), chain=1, ops=ops,
        errors=("",) * len(ops), valid=valid, fit=(None,) * len(ops), tokens=5, trajectory=f"t{index}",
    )  # fmt: skip


def finish(recipe, name, seed, scores, kls):
    folder = Path(recipe.out) / f"{name}-{seed}"
    (folder / "exam").mkdir(parents=True)
    write_scores(folder / "exam", scores)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"update": k, "kl": kl}) + "\n" for k, kl in enumerate(kls)))


def test_every_arm_is_a_recipe_of_its_own(tmp_path):
    recipe = study(tmp_path, seeds=(0, 7))
    stages = study_stages(recipe)
    assert [stage.name for stage in stages] == [
        "full-0", "full-0-exam", "l2-0", "l2-0-exam", "full-7", "full-7-exam", "l2-7", "l2-7-exam",
    ]  # fmt: skip
    arm = load_recipe_as(RftRecipe, tmp_path / "study" / "l2-7.toml")
    common = load_recipe_as(RftRecipe, ROOT / "recipes" / "nano" / "rft.toml")
    assert (arm.seed, arm.rft.structure, arm.rft.updates, arm.out) == (7, "l2", 3, str(tmp_path / "study" / "l2-7"))
    assert (arm.checkpoint, arm.rft.prompts, arm.corridor) == (common.checkpoint, common.rft.prompts, common.corridor)
    assert stages[0].command == ("train", "rft", str(tmp_path / "study" / "full-0.toml"))
    assert stages[1].command[:5] == ("eval", "pixelworld", "--recipe", "eval.toml", "--model")
    adapted = study_stages(study(tmp_path, phase="ttrl", shared={}, arms=[{"name": "one", "set": {"vote.vote": "majority"}}]))
    assert adapted[0].command[0] == "adapt" and adapted[0].makes.endswith("one-0/policy/model.safetensors")
    assert load_recipe_as(AdaptRecipe, tmp_path / "study" / "one-0.toml").vote.vote == "majority"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "nano").glob("ablations_*.toml")), ids=lambda path: path.stem)
def test_the_shipped_studies_name_keys_that_exist(tmp_path, path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe_as(StudyRecipe, path).model_copy(update={"out": str(tmp_path / "study")})
    kind = RftRecipe if recipe.phase == "rft" else AdaptRecipe
    arms = [load_recipe_as(kind, stage.command[-1]) for stage in study_stages(recipe)[::2]]
    told = [arm.model_dump(exclude={"out"}) for arm in arms]
    assert len(told) >= 2 and all(told.count(one) == 1 for one in told)  # no arm is another's double


def test_the_table_pairs_items_and_reads_the_corridor(tmp_path):
    recipe = study(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        finish(recipe, "full", seed, [score(k, 1) for k in range(4)], [0.5, 0.5, 0.12, 0.18])
        finish(recipe, "l2", seed, [score(k, int(k < 2), ops=("ZOOM", "OCR"), valid=(True, False)) for k in range(4)], [0.5, 0.3])
    full, l2 = study_rows(recipe, racpr=lambda folder: 0.25 if "l2" in str(folder) else 0.5)
    assert full.differences == {} and math.isnan(full.q) and full.metrics["accuracy"].value == 1.0
    assert full.kl == (pytest.approx(0.15), pytest.approx(0.18), 1.0, 4)  # the second halves: 0.12 and 0.18, of both seeds
    assert l2.kl == (0.3, 0.3, 0.0, 2)
    difference, p = l2.differences["accuracy"]
    assert (difference.value, difference.count) == (-0.5, 8)  # four items, two seeds
    assert p == pytest.approx(2 / 16) and l2.q == pytest.approx(p)  # four pairs differ, all one way: 2 of 2**4 signs
    assert l2.differences["steps"][0].value == 1.0 and l2.metrics["valid"].value == 0.5
    assert l2.metrics["AE"].value == pytest.approx(math.log(2)) and l2.metrics["RaCPR"].value == 0.25
    text = study_markdown(recipe, (full, l2), "pixelis study x.toml")
    assert text.splitlines()[-1].startswith("| l2 | 0.500") and text.splitlines()[-1].endswith("| worse |")
    assert json.loads(json.dumps(study_json((full, l2))))[1]["differences"]["accuracy"]["value"] == -0.5


def test_without_an_exam_the_last_rollouts_are_compared_prompt_by_prompt(tmp_path):
    recipe = StudyRecipe.model_validate({**study(tmp_path).model_dump(exclude={"exam"}), "last_updates": 2})
    assert [stage.name for stage in study_stages(recipe)] == ["full-0", "l2-0"]

    def roll_out(name, accuracies):
        folder = Path(recipe.out) / f"{name}-0"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "update": k,
                "kl": 0.1,
                "prompts": {f"chart-{k}-{i}": {"accuracy": value, "steps": 2.0, "AE": 0.5} for i, value in enumerate(of)},
            }
            for k, of in enumerate(accuracies)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    roll_out("full", [[0.0, 0.0], [0.5, 1.0], [1.0, 0.5]])
    with pytest.raises(ConfigError, match="no arm l3"):
        run_study(recipe, only=["l3"])
    roll_out("l2", [[1.0, 1.0], [0.25, 1.0]])
    assert [row.name for row in study_rows(recipe)] == ["full"]  # two of three updates: not finished
    roll_out("l2", [[1.0, 1.0], [0.25, 1.0], [0.5, 0.25]])
    full, l2 = study_rows(recipe)
    assert (full.metrics["accuracy"].value, full.metrics["accuracy"].count) == (0.75, 4)  # what the first update saw is not counted
    difference, p = l2.differences["accuracy"]
    assert (difference.value, difference.count) == (-0.25, 4) and p == pytest.approx(2 / 8)  # three pairs differ, all one way
    text = study_markdown(recipe, (full, l2), "pixelis study x.toml")
    assert "rollouts of the last 2 updates" in text and "AE difference (p)" in text and "| 0.000 (1.0000) |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "either an exam or last_updates"),
        ({"last_updates": 4}, "last_updates = 4 of 3"),
        ({"last_updates": 1, "shared": {}}, "last_updates = 1 of 0: set rft.updates"),
        ({"last_updates": 1, "phase": "ttrl"}, "phase 3 needs an exam"),
    ],
)
def test_what_arms_are_compared_by_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        StudyRecipe.model_validate({**study(tmp_path).model_dump(exclude={"exam"}), **change})


def test_an_unfinished_arm_is_left_out_and_the_first_one_is_needed(tmp_path):
    recipe = study(tmp_path)
    with pytest.raises(DataError, match="arm full is not finished"):
        study_rows(recipe)
    finish(recipe, "full", 0, [score(0, 1)], [])
    rows = study_rows(recipe)
    assert [row.name for row in rows] == ["full"] and rows[0].kl[3] == 0 and math.isnan(rows[0].kl[0])


def test_what_cannot_be_a_study(tmp_path):
    with pytest.raises(ConfigError, match="two arms have one name: full"):
        study_stages(study(tmp_path, arms=[{"name": "full"}, {"name": "full"}]))
    with pytest.raises(ConfigError, match=r"arm odd: seed\.x: seed is no table"):
        study_stages(study(tmp_path, arms=[{"name": "odd", "set": {"seed.x": 1}}]))
    with pytest.raises(ConfigError, match="no arm l3: there are full, l2"):
        run_study(study(tmp_path), only=["l3"])
