"""Label Studio's labeling configuration: as it is written, and what is made of other people's."""

from __future__ import annotations

import pytest

from autolabel.errors import AutolabelError
from autolabel.ontology import LabelClass, Ontology
from autolabel_connectors.label_studio.convert import to_regions
from autolabel_connectors.label_studio.label_config import check_label_config, label_config
from autolabel_connectors.shapes import draw
from tests.connectors.cases import annotation, picture

ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass('Öl & "dent" <1>')))


def test_a_config_of_ours_has_every_class_in_its_colour():
    xml = label_config(ONTOLOGY, "auto", ["#112233", "#445566"])
    assert xml.count('background="#112233"') == 3
    assert "&lt;1&gt;" in xml
    assert label_config(ONTOLOGY, "box").count("<Label ") == 2
    for shape in ("box", "polygon", "mask", "auto"):
        assert check_label_config(label_config(ONTOLOGY, shape), ONTOLOGY, shape)[1] == []
    assert len(check_label_config(label_config(ONTOLOGY, "box"), ONTOLOGY, "auto")[1]) == 2


def test_what_does_not_fit_is_said_in_plain_words():
    xml = """<View><Image name="img" value="$photo"/>
      <RectangleLabels name="b" toName="img"><Label value="dent"/></RectangleLabels></View>"""
    controls, problems = check_label_config(xml, ["scratch", "dent"], "box")
    assert problems == [
        "the label config has no <Label> for 'scratch' in <RectangleLabels>; add it in the project's settings"
    ]
    assert controls.find("box", "dent").name == "b"
    with pytest.raises(AutolabelError, match="'scratch' cannot be drawn as box"):
        to_regions(annotation(), picture(9, 9), draw(annotation()), controls)
    assert "no <Image> tag" in check_label_config("<View/>", ["dent"])[1][0]
    assert (
        "no <RectangleLabels>" in check_label_config('<View><Image name="i" value="$i"/></View>', ["dent"], "box")[1][0]
    )
    with pytest.raises(AutolabelError, match="no valid XML"):
        check_label_config("<View>", ["dent"])


def test_labels_are_found_whatever_the_control_is_called_and_however_they_are_written():
    xml = """<View><Image name="one" value="$a"/><Image name="two" value="$b"/>
      <RectangleLabels name="first" toName="two"><Label value="Deep_Scratch"/></RectangleLabels>
      <RectangleLabels name="second" toName="two"><Label value="dent"/></RectangleLabels></View>"""
    controls, problems = check_label_config(xml, ["deep scratch", "dent"], "box")
    assert (controls.to_name, controls.image_key) == ("two", "b")
    assert controls.find("box", "deep scratch").labels["deep scratch"] == "Deep_Scratch"
    assert controls.find("box", "dent").name == "second"
    assert controls.ours("Deep_Scratch") == "deep scratch"
    assert controls.ours("rust") == "rust"
    assert problems == ["the label config shows 2 images to a task; regions go to 'two'"]
