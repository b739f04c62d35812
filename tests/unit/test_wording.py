"""Rules for labels, texts and camera types; prompt templates."""

import pytest

from domain.errors import InvalidLabels, InvalidTexts, UnknownCameraType
from domain.prompts import TEMPLATES, CameraType, prompts_for
from domain.wording import check_each_text, check_labels, check_text, check_texts


@pytest.mark.parametrize(
    ("labels", "code", "detail"),
    [
        ([], "no_labels", "1 to 100"),
        ([str(n) for n in range(101)], "too_many_labels", "101 entries; at most 100"),
        (["a", " \n"], "blank_label", r"labels\[1\] is blank"),
        (["a", "b", "a"], "repeated_label", r"labels\[2\] repeats labels\[0\] \('a'\)"),
        (["a", " a "], "repeated_label", r"labels\[1\] repeats"),
    ],
)
def test_labels_that_break_a_rule(labels: list[str], code: str, detail: str) -> None:
    with pytest.raises(InvalidLabels, match=detail) as caught:
        check_labels(labels)
    assert caught.value.code == code


def test_one_and_a_hundred_labels_are_fine() -> None:
    check_labels(["a"])
    check_labels([str(n) for n in range(100)])


def test_texts_have_their_own_limit() -> None:
    check_texts(["a", "b"], limit=2)
    with pytest.raises(InvalidTexts, match="3 entries; at most 2") as caught:
        check_texts(["a", "b", "c"], limit=2)
    assert caught.value.code == "too_many_texts"


def test_texts_that_are_answered_in_their_order_may_come_twice() -> None:
    check_each_text(["a", "a"], limit=2)
    with pytest.raises(InvalidTexts, match=r"texts\[1\] is blank"):
        check_each_text(["a", " "], limit=2)


def test_a_blank_text_is_refused() -> None:
    check_text("a")
    with pytest.raises(InvalidTexts):
        check_text("\t ")


@pytest.mark.parametrize("camera_type", list(CameraType))
def test_each_camera_type_has_five_different_templates(camera_type: CameraType) -> None:
    prompts = prompts_for("a {dog}", camera_type)
    assert len(set(prompts)) == len(TEMPLATES[camera_type]) == 5
    assert all("a {dog}" in prompt for prompt in prompts)
    assert all(template.count("{}") == 1 for template in TEMPLATES[camera_type])


def test_an_unknown_camera_type_names_the_known_ones() -> None:
    assert CameraType.named("doorbell") is CameraType.DOORBELL
    with pytest.raises(UnknownCameraType, match=r"'space'.*standard, night_vision"):
        CameraType.named("space")
