"""The plan is a value: JSON in and out, one digest, and nothing of where or when in it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.support.folders import copied
from tests.support.pace import examples
from tests.support.plan_strategies import plans
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.plan.model import (
    DeltaPlan,
    InputFile,
    InputPlan,
    InputTensor,
    Plan,
    ShardPlan,
    SidecarPlan,
    TensorPlan,
)


@settings(max_examples=examples(40))
@given(plans())
def test_a_plan_comes_back_from_its_json_as_it_was(plan: Plan) -> None:
    again = Plan.from_document(json.loads(plan.to_bytes()))
    assert again == plan
    assert again.digest == plan.digest
    assert again.to_bytes() == plan.to_bytes()
    whole = json.dumps(plan.to_document(), sort_keys=True, separators=(",", ":")).encode()
    assert plan.to_bytes() == whole
    assert plan.digest == bytes_digest(whole)
    assert again.nbytes == plan.nbytes
    assert [shard.header for shard in again.shards] == [shard.header for shard in plan.shards]


PLAN = Plan(
    verb="apply-delta",
    inputs=(InputPlan("base", (InputFile("a.bin", 10, "aa"),), "rules"),),
    shards=(
        ShardPlan(
            "model.safetensors",
            (
                TensorPlan(
                    TensorInfo("w", "F16", (2, 3)),
                    "add@1",
                    {"compute": "F16", "dtype": "F16"},
                    (InputTensor("base", TensorInfo("w", "F16", (2, 3))),),
                ),
            ),
        ),
    ),
    sidecars=(SidecarPlan("config.json", "delta", 5, "bb", ("changed",)),),
    dropped=("inv_freq",),
    notes=("a note",),
    repairs=("a-repair",),
    release="vicuna-7b-v1.1",
    delta=DeltaPlan("form", "org/base@0123", "zero", "cc"),
)


def _changes(value: Any) -> list[Any]:
    """Every value that differs from a plan's part in a single place below it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            dataclasses.replace(value, **{field.name: changed})
            for field in dataclasses.fields(value)
            for changed in _changes(getattr(value, field.name))
        ]
    match value:
        case str():
            return ["F32" if value == "F16" else value + "x"]
        case int():
            return [value + 1]
        case tuple():
            longer = [(*value, value[-1])] if value and isinstance(value[0], str) else []
            return [
                *(
                    (*value[:place], changed, *value[place + 1 :])
                    for place, each in enumerate(value)
                    for changed in _changes(each)
                ),
                value[:-1],
                *longer,
            ]
        case dict():
            return [value | {"new_rows": "zero"}, *(value | {k: v + "x"} for k, v in value.items())]
        case None:
            return [{"form": "form", "base": {"id": "org/base@0123"}}]
    raise TypeError(value)


def test_the_digest_changes_with_any_field_of_the_plan() -> None:
    changed = _changes(PLAN)
    assert len(changed) > 40
    digests = [each.digest for each in changed]
    assert PLAN.digest not in digests
    assert len(set(digests)) == len(digests)


def test_a_document_of_another_schema_is_refused() -> None:
    document = PLAN.to_document()
    with pytest.raises(ValueError, match="unknown schema"):
        Plan.from_document({**document, "schema": "weightsmith/plan@2"})
    for key in document:
        with pytest.raises(KeyError):
            Plan.from_document({k: v for k, v in document.items() if k != key})


def test_the_plan_knows_neither_paths_nor_times(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "vicuna_v1_1"
    here = plan_apply_delta(vector / "base", vector / "delta", target=tmp_path / "a")
    text = here.plan.to_bytes().decode()
    assert str(vectors) not in text
    assert str(tmp_path) not in text
    base, delta = (copied(vector / side, tmp_path / side) for side in ("base", "delta"))
    there = plan_apply_delta(base, delta, target=tmp_path / "b" / "c")
    assert there.plan == here.plan
    assert there.bindings.target != here.bindings.target


@pytest.mark.parametrize(
    "other", [{"dtype": "float32"}, {"max_shard_nbytes": 50_000}, {"dtype": "bfloat16"}], ids=str
)
def test_what_changes_the_output_changes_the_plan(
    other: dict[str, Any], vectors: Path, tmp_path: Path
) -> None:
    vector = vectors / "vicuna_v1_1"
    sides = (vector / "base", vector / "delta")
    plan = plan_apply_delta(*sides, target=tmp_path / "a").plan
    assert plan_apply_delta(*sides, target=tmp_path / "a", **other).plan.digest != plan.digest


def test_headers_are_known_before_any_data(vectors: Path, tmp_path: Path) -> None:
    from weightsmith.ops.apply_delta import apply_delta

    vector = vectors / "vicuna_v1_1"
    arguments = {"target": tmp_path / "out", "max_shard_nbytes": 30_000}
    job = plan_apply_delta(vector / "base", vector / "delta", **arguments)  # type: ignore[arg-type]
    apply_delta(vector / "base", vector / "delta", **arguments)  # type: ignore[arg-type]
    assert len(job.plan.shards) > 1
    for shard in job.plan.shards:
        raw = (tmp_path / "out" / shard.name).read_bytes()
        assert raw.startswith(shard.header)
        assert len(raw) == shard.nbytes


def test_planning_imports_neither_torch_nor_numpy(vectors: Path) -> None:
    script = (
        "import sys\n"
        "from weightsmith.ops.apply_delta import plan_apply_delta\n"
        "plan = plan_apply_delta(*sys.argv[1:3], target='/nowhere/out').plan\n"
        "assert plan.tensors\n"
        "heavy = {'torch', 'numpy', 'transformers', 'safetensors', 'huggingface_hub', 'tqdm'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    vector = vectors / "vicuna_v1_1"
    done = subprocess.run(
        [sys.executable, "-c", script, vector / "base", vector / "delta"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
