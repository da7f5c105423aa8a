from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.errors import ConfigError
from autolabel.ontology import LabelClass, Ontology, normalise


@pytest.mark.parametrize("prompt", ["", "   ", ".", " . ; .\n", "?"])
def test_prompt_without_words_is_an_error(prompt: str) -> None:
    with pytest.raises(ConfigError, match="no words"):
        Ontology.from_prompt(prompt)


@pytest.mark.parametrize(
    "prompt", ["scratch. dent.", "scratch.dent", " scratch ; dent ", "scratch\ndent\n", "scratch. . dent"]
)
def test_prompt_names_its_classes(prompt: str) -> None:
    assert Ontology.from_prompt(prompt).names == ("scratch", "dent")


def test_names_keep_their_case_and_phrases_do_not() -> None:
    ontology = Ontology.from_prompt("Missing Screw. dent.")
    assert ontology.names == ("Missing Screw", "dent")
    assert ontology.phrases == ("missing screw", "dent")


def test_phrases_of_several_prompts_belong_to_one_class() -> None:
    ontology = Ontology(
        (LabelClass("scratch", ("scratch", "Scuff  mark")), LabelClass("dent")), (LabelClass("glare", ("reflection",)),)
    )
    assert ontology.phrases == ("scratch", "scuff mark", "dent", "reflection")
    assert ontology.phrase_owners == (0, 0, 1, 2)
    assert ontology.names == ("scratch", "dent")
    assert [c.name for c in ontology.all_classes] == ["scratch", "dent", "glare"]


def test_classes_that_collide_after_normalisation_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'Oil stain' and 'oil_stain' are the same after normalisation \('oil stain'\)"
    ):
        Ontology.from_prompt("Oil stain. oil_stain.")


def test_a_phrase_of_two_classes_is_named() -> None:
    with pytest.raises(ConfigError, match="phrase 'mark' belongs to both 'scratch' and 'stain'"):
        Ontology((LabelClass("scratch", ("mark",)), LabelClass("stain", ("Mark",))))


def test_a_negative_may_not_collide_with_a_class() -> None:
    with pytest.raises(ConfigError, match="same after normalisation"):
        Ontology((LabelClass("dent"),), (LabelClass("Dent"),))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"name": "a", "prompts": ("b", " . ")}, "empty phrase"),
        ({"name": "a", "min_score": 1.3}, r"min_score must be in \[0, 1\], got 1.3 \(class 'a'\)"),
        ({"name": "a", "min_prob": -0.1}, "min_prob must be in"),
        ({"name": "a", "min_area_px": -1}, "min_area_px must be >= 0"),
    ],
)
def test_a_wrong_class_names_field_and_value(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LabelClass(**values)  # type: ignore[arg-type]


def test_no_classes_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no classes"):
        Ontology(())


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "." not in once
    assert "?" not in once
