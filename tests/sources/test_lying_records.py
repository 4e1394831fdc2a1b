"""A record that lies, inside a chain: the link is named, and nothing is published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.delta_models import trained, weights
from tests.support.folders import contents, write_model
from weightsmith.checkpoint.digest import fingerprint
from weightsmith.errors import WeightsmithError
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta

NAME = "model.layers.0.up.weight"
OTHER = "0" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``m0`` to ``m2``, and the deltas ``d1`` and ``d2`` between them."""
    home = tmp_path_factory.mktemp("made")
    tensors = {NAME: weights(60, 50), "model.norm.weight": weights(50, seed=1).abs() + 1}
    for number in range(3):
        write_model(home / f"m{number}", tensors)
        tensors = {name: trained(each, seed=number) for name, each in tensors.items()}
    for number in (1, 2):
        make_delta(home / f"m{number - 1}", home / f"m{number}", home / f"d{number}")
    return home


def other_size(document: dict[str, Any]) -> None:
    (file,) = document["delta"]["target"]["files"]
    file["size"] += 2


def other_shape(document: dict[str, Any]) -> None:
    tensor = named(document["delta"]["target"]["tensors"])
    tensor["shape"] = [61, 50]


def other_digest(document: dict[str, Any]) -> None:
    """Of what it makes; the fingerprint is made to agree."""
    target = document["delta"]["target"]
    named(target["tensors"])["digest"] = OTHER
    target["fingerprint"] = fingerprint(
        {each["name"]: each["digest"] for each in target["tensors"]}
    )


def other_fingerprint(document: dict[str, Any]) -> None:
    document["delta"]["target"]["fingerprint"] = OTHER


def other_base(document: dict[str, Any]) -> None:
    """Of what it is put on; the fingerprint is made to agree."""
    base = document["delta"]["base"]
    for each in base["tensors"]:
        each[3] = OTHER if each[0] == NAME else each[3]
    base["fingerprint"] = fingerprint({name: digest for name, _, _, digest in base["tensors"]})


def other_payload(document: dict[str, Any]) -> None:
    named(document["delta"]["target"]["tensors"])["payload"] = "model.norm.weight"


def no_payload(document: dict[str, Any]) -> None:
    named(document["delta"]["target"]["tensors"])["payload"] = None


def named(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each for each in tensors if each["name"] == NAME)
    return found


LIES = (
    *(other_size, other_shape, other_digest, other_fingerprint, other_base),
    *(other_payload, no_payload),
)


@pytest.mark.parametrize("number", [1, 2], ids=["inner", "last"])
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_record_that_lies_in_a_chain(
    lie: Callable[[dict[str, Any]], None], number: int, made: Path, tmp_path: Path
) -> None:
    deltas = []
    for each in (1, 2):
        deltas.append(tmp_path / f"d{each}")
        deltas[-1].mkdir()
        for name, raw in contents(made / f"d{each}").items():
            (deltas[-1] / name).write_bytes(raw)
    path = deltas[number - 1] / "weightsmith.json"
    document = json.loads(path.read_bytes())
    lie(document)
    path.write_text(json.dumps(document))

    target = tmp_path / "out"
    with pytest.raises(WeightsmithError) as caught:
        apply_delta(made / "m0", deltas, target=target)
    assert caught.value.exit_code in {6, 7}
    assert not target.exists()
    said = " ".join([str(caught.value), *caught.value.context, caught.value.hint_text])
    # What the first makes, and what the second was made on, tell against each other.
    between = lie in {other_shape, other_digest, other_base}
    assert str(deltas[number - 1]) in said or (between and str(deltas[0]) in said)
