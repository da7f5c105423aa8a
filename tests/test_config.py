from __future__ import annotations

from pathlib import Path

import pytest

from autolabel.config import Recipe, load_recipe, parse_recipe
from autolabel.errors import ConfigError


def test_without_a_file_everything_has_a_default(workspace: Path) -> None:
    recipe, path = load_recipe()
    assert recipe == Recipe()
    assert path is None
    with pytest.raises(ConfigError, match="nothing to look for"):
        recipe.ontology()


def test_autolabel_toml_is_found_in_the_working_directory(workspace: Path) -> None:
    (workspace / "autolabel.toml").write_text('prompt = "scratch."\nimages = ["a", "b"]\n')
    recipe, path = load_recipe()
    assert recipe.images == ("a", "b")
    assert path == workspace / "autolabel.toml"


def test_a_recipe_elsewhere_means_the_images_beside_it(workspace: Path) -> None:
    (workspace / "line-3").mkdir()
    (workspace / "line-3" / "recipe.toml").write_text(
        'prompt = "dent."\nimages = ["photos", "s3://bucket/x", "/abs"]\n'
    )
    recipe, _ = load_recipe(workspace / "line-3" / "recipe.toml")
    assert recipe.images == (str(workspace / "line-3" / "photos"), "s3://bucket/x", "/abs")


def test_classes_carry_their_own_thresholds(workspace: Path) -> None:
    (workspace / "r.toml").write_text(
        """
        [[classes]]
        name = "scratch"
        prompts = ["scratch", "scuff mark"]
        min_score = 0.2
        min_prob = 0.5
        min_area_px = 12
        [[negatives]]
        name = "glare"
        """
    )
    ontology = load_recipe("r.toml")[0].ontology()
    assert ontology.classes[0].prompts == ("scratch", "scuff mark")
    assert (ontology.classes[0].min_score, ontology.classes[0].min_prob, ontology.classes[0].min_area_px) == (
        0.2,
        0.5,
        12,
    )
    assert ontology.negatives[0].name == "glare"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompts = 'a'", "prompts: unknown key; known keys are prompt, classes"),
        ("[thresholds]\nmin_scor = 0.3", r"thresholds.min_scor: unknown key; known keys are min_score"),
        ("[[classes]]\nname = 'a'\nmin_score = 1.3", r"classes.0.min_score: .* less than or equal to 1, got 1.3"),
        ("assign = 'oracle'", "assign: .* 'classifier', 'detector' or 'fused', got 'oracle'"),
        ("batch_size = 0", "batch_size: .* greater than or equal to 1, got 0"),
        ("prompt = ", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_field_and_value(workspace: Path, text: str, words: str) -> None:
    (workspace / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_recipe("r.toml")


def test_an_unknown_recipe_lists_the_named_ones(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'surfaces': .*boxes-only, surface-defects"):
        load_recipe("surfaces")


@pytest.mark.parametrize("name", ["surface-defects", "boxes-only"])
def test_the_named_recipes_are_valid(workspace: Path, name: str) -> None:
    recipe, path = load_recipe(name)
    assert path is not None
    assert recipe.merged({} if recipe.classes else {"prompt": "dent."}).ontology().classes


def test_prompt_and_classes_together_are_an_error() -> None:
    recipe = parse_recipe({"prompt": "dent.", "classes": [{"name": "dent"}]}, "test")
    with pytest.raises(ConfigError, match="both prompt and"):
        recipe.ontology()


def test_a_flag_goes_before_the_file_and_nothing_before_a_default() -> None:
    recipe = parse_recipe({"models": "base", "thresholds": {"min_score": 0.4, "nms_iou": 0.6}}, "test")
    merged = recipe.merged({"models": None, "thresholds": {"min_score": 0.5, "min_prob": None}})
    assert merged.models == "base"
    assert merged.thresholds.min_score == 0.5
    assert merged.thresholds.nms_iou == 0.6


def test_a_prompt_on_the_command_line_replaces_the_files_classes() -> None:
    recipe = parse_recipe({"classes": [{"name": "rust"}], "negatives": [{"name": "glare"}]}, "test")
    ontology = recipe.merged({"prompt": "dent."}).ontology()
    assert ontology.names == ("dent",)
    assert ontology.negatives[0].name == "glare"


def test_classes_given_later_replace_a_prompt() -> None:
    recipe = Recipe(prompt="rust.").merged({"classes": [{"name": "dent"}]})
    assert recipe.ontology().names == ("dent",)


def test_the_stored_floor_is_never_above_a_threshold() -> None:
    assert Recipe().floor() == 0.1
    assert Recipe(thresholds={"min_score": 0.05}).floor() == 0.05  # type: ignore[arg-type]
    assert parse_recipe({"classes": [{"name": "a", "min_score": 0.02}]}, "test").floor() == 0.02


def test_a_classifier_that_is_not_there_cannot_assign() -> None:
    assert Recipe().assigner() == "classifier"
    assert Recipe(classifier="none").assigner() == "detector"
    with pytest.raises(ConfigError, match='assign = "fused" needs a classifier'):
        Recipe(classifier="none", assign="fused").assigner()


def test_an_engines_former_name_is_still_read() -> None:
    assert Recipe.model_validate({"engine": "local"}).engine == "auto"
    with pytest.raises(ValueError, match="engine"):
        Recipe.model_validate({"engine": "global"})
