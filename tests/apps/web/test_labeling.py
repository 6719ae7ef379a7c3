"""The labeling interface of a project."""

from __future__ import annotations

import pytest
from tests.support.label_studio import APART, BRUSH, build_config

from annofree.apps.web.label_studio.labeling import parse_labeling
from annofree.errors import InputError


def test_labels_become_classes_with_other_words_and_what_regions_carry() -> None:
    labeling = parse_labeling(BRUSH)
    assert labeling.key == "image" and labeling.labels == ("cat", "D")
    assert labeling.vocabulary.synonyms == (("cat", "kitten", "tabby"), ("dog",))
    assert {(c.name, c.kind, c.image) for c in labeling.controls} == {("brush", "brushlabels", "photo")}


@pytest.mark.parametrize("tags", [("RectangleLabels", "BrushLabels"), ("RectangleLabels", "PolygonLabels")])
def test_of_several_tags_the_one_that_tells_most_of_a_mask_is_taken(tags: tuple[str, str]) -> None:
    both = "".join(f'<{tag} name="{tag}" toName="i"><Label value="cat"/></{tag}>' for tag in tags)
    labeling = parse_labeling(f'<View><View><Image name="i" value="$x"/></View>{both}</View>')
    assert [c.name for c in labeling.controls] == [tags[1]]


def test_a_label_that_only_boxes_have_is_given_as_a_box() -> None:
    more = '<RectangleLabels name="r" toName="photo"><Label value="cat"/><Label value="bird"/></RectangleLabels></View>'
    labeling = parse_labeling(build_config("BrushLabels").replace("</View>", more))
    assert dict(zip(labeling.labels, [c.kind for c in labeling.controls], strict=True)) == {
        "cat": "brushlabels",
        "dog": "brushlabels",
        "bird": "rectanglelabels",
    }


def test_labels_may_stand_apart_from_their_shape() -> None:
    (control,) = parse_labeling(APART).controls
    assert (control.name, control.kind, control.labels) == ("b", "brush", "l")


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "<View>",
        "<Other/>",
        "<View/>",
        '<View><Text name="t" value="$t"/><Labels name="l" toName="t"><Label value="a"/></Labels></View>',
        '<View><Image name="i" value="$x"/><BrushLabels name="b" toName="other"><Label value="a"/></BrushLabels></View>',
        '<View><Image name="i" value="$x"/><BrushLabels name="b" toName="i" value="$labels"/></View>',
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>',
        "<View>" + " " * (1 << 20) + "</View>",
    ],
)
def test_an_interface_that_cannot_be_answered_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="labeling interface"):
        parse_labeling(text)


def test_more_labels_than_can_be_asked_for_are_refused() -> None:
    many = "".join(f'<Label value="l{k}"/>' for k in range(2001))
    words = f'<Label value="a" synonyms="{"|".join(str(k) for k in range(2001))}"/>'
    for labels in (many, words):
        with pytest.raises(InputError, match="at most 2000 labels and synonyms"):
            parse_labeling(BRUSH.replace("</BrushLabels>", f"{labels}</BrushLabels>"))


def test_many_shapes_and_labels_of_one_image_are_read_once_each() -> None:
    tags = '<Brush name="b" toName="i"/>' * 5000 + '<Labels name="l" toName="i"/>' * 5000
    label = '<Labels name="l" toName="i"><Label value="cat"/></Labels>'
    (control,) = parse_labeling(f'<View><Image name="i" value="$x"/>{tags}{label}</View>').controls
    assert (control.name, control.kind) == ("b", "brush")
