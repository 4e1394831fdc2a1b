"""Tensors are chosen and renamed as asked for, and a slip is refused."""

import pytest

from weightsmith.errors import NamesAmbiguous, NothingLeft, NothingNamed, RenameInvalid
from weightsmith.plan.selection import Selection

NAMES = (
    "model.language_model.layers.0.mlp.weight",
    "model.language_model.layers.1.mlp.weight",
    "model.visual.blocks.0.weight",
    "lm_head.weight",
)


def left(selection: Selection) -> list[str]:
    names = selection.names("x", NAMES)
    return [names.get(name, name) for name in NAMES if names.get(name, name)]


def test_a_text_model_comes_out_of_a_vision_one() -> None:
    keep = ("model.language_model.*", "lm_head.weight")
    assert left(Selection(("model.language_model=model",), (), keep)) == [
        "model.layers.0.mlp.weight",
        "model.layers.1.mlp.weight",
        "lm_head.weight",
    ]
    assert left(Selection((), ("model.visual.*",))) == [NAMES[0], NAMES[1], NAMES[3]]


@pytest.mark.parametrize(
    "rename, name",
    [
        ("model.language_model.=model.", "model.layers.0.mlp.weight"),
        ("model.language_model=", "layers.0.mlp.weight"),
        ("model.*.layers.*.mlp=m.*.l.*.ffn", "m.language_model.l.0.ffn.weight"),
        ("*.layers=x", "x.0.mlp.weight"),
        (" model.language_model = model ", "model.layers.0.mlp.weight"),
        (f"{NAMES[0]}=w", "w"),
    ],
)
def test_the_beginning_of_a_name_is_replaced(rename: str, name: str) -> None:
    assert Selection((rename,)).names("x", NAMES)[NAMES[0]] == name


def test_the_first_rename_that_fits_counts() -> None:
    renames = ("model.language_model.layers.0=first", "model.language_model=rest")
    found = Selection(renames).names("x", NAMES)
    assert found[NAMES[0]] == "first.mlp.weight"
    assert found[NAMES[1]] == "rest.layers.1.mlp.weight"


@pytest.mark.parametrize(
    "selection",
    [
        Selection(("language_model=x",)),  # no name begins with it
        Selection(("model.lang=x",)),  # not up to a dot
        Selection((), ("model.vision.*",)),
        Selection((), (), ("lm_head.weights",)),
    ],
)
def test_what_names_nothing_is_refused(selection: Selection) -> None:
    with pytest.raises(NothingNamed) as caught:
        selection.names("x", NAMES)
    assert caught.value.exit_code == 2
    assert caught.value.context


@pytest.mark.parametrize("rename", ["", "a", "=b", "a=*", f"{NAMES[3]}="])
def test_what_does_not_say_from_what_to_what_is_refused(rename: str) -> None:
    with pytest.raises(RenameInvalid):
        Selection((rename,)).names("x", NAMES)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(drop=("*",)),
        Selection(drop=("*.weight",)),
        Selection(drop=("lm*",), keep=("lm*",)),
    ],
)
def test_a_choice_that_leaves_no_tensor_is_refused(selection: Selection) -> None:
    with pytest.raises(NothingLeft, match="all its 4 tensors would be dropped"):
        selection.names("x", NAMES)


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(NamesAmbiguous, match="after renaming"):
        Selection(("model.language_model.layers.*=model.layers",)).names("x", NAMES)
