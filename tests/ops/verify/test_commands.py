"""What the command line says of checks, in its three modes, and after other commands."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import Said, Weightsmith
from tests.support.story_models import Copy, Models, change_weights
from weightsmith.ops.verify.verify import verify
from weightsmith.smoke.runner import Runner

APPLY = ("apply-delta", "--smoke", "--json")


def document(said: Said) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_three_modes_say_the_same(models: Models, weightsmith: Weightsmith) -> None:
    human = weightsmith("verify", models.result)
    found = document(weightsmith("verify", models.result, "--json"))
    assert found["schema"] == "weightsmith.verify/1"
    assert found["passed"] is True
    for check in found["checks"]:
        assert human.verdict(check["name"]) == check["verdict"]
        for detail in check["details"]:
            assert detail in human.words
    assert human.out.splitlines()[-1] == f"pass  {len(found['checks'])} checks"
    assert weightsmith("verify", models.result, "-q").out == "pass\n"
    assert weightsmith("verify", models.delta, "-q").out == "FAIL\n"
    silent = weightsmith("verify", models.delta, "-qq")
    assert (silent.code, silent.out, silent.err) == (1, "", "")


def test_smoke_is_part_of_the_document(models: Models, weightsmith: Weightsmith) -> None:
    options = ("--smoke", "--json", "--max-new-tokens", "5", "--prompt", "Where is the drum?")
    said = weightsmith("verify", models.result, *options)
    found = document(said)
    assert said.code == 0
    assert found["smoke"]["prompt"] == "Where is the drum?"
    assert len(found["smoke"]["tokens"]) <= 5
    assert {"bos", "logits", "text", "round trip", "perplexity"} <= {
        check["name"] for check in found["checks"]
    }
    assert said.err == ""


def test_smoke_streams_the_text_and_no_library_says_a_word(
    models: Models, weightsmith: Weightsmith
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as outside of tests
        said = weightsmith("verify", models.result, "--smoke", "--max-new-tokens", "8")
    assert said.code == 0
    first, loading, asked, text, *rest = [line for line in said.err.splitlines() if line]
    assert first.startswith("reading: ")
    assert loading == f"loading {models.result} for a smoke test"
    assert asked == "> What is a fox?"
    assert len(text) > 3
    assert [line.partition(":")[0] for line in rest] == ["on cpu"]


def test_smoke_is_left_out_where_there_is_no_model_to_load(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    (folder / "model.safetensors").write_bytes(b"short")
    said = weightsmith("verify", folder, "--smoke")
    assert said.code == 1
    assert said.verdict("smoke") == ""
    assert said.verdict("files") == "FAIL"


def test_apply_delta_ends_with_the_smoke_test(
    models: Models, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    target = tmp_path / "out"
    options = ("--base", models.base, "--delta", models.delta, "--target", target)
    said = weightsmith(*APPLY, *options)
    found = document(said)
    assert (said.code, found["passed"], found["target"]) == (0, True, str(target))
    assert found["smoke"]["finite"] is True
    assert found["checks"][0]["name"] == "bos"
    said = weightsmith("apply-delta", "--smoke", *options)  # already done, and tried again
    assert said.code == 0
    assert said.verdict("perplexity") == "pass"
    assert "already done" in said.out


def test_failed_smoke_test_is_exit_1_and_the_result_stays(
    models: Models, copy: Copy, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    other = copy(models.base)
    order = torch.randperm(448, generator=torch.Generator().manual_seed(5))
    name = "model.embed_tokens.weight"
    change_weights(other, lambda w: w | {name: w[name][order]})
    target = tmp_path / "out"
    options = ("--base", other, "--delta", models.delta, "--target", target)
    said = weightsmith("apply-delta", "--smoke", *options)
    assert (said.code, said.verdict("perplexity")) == (1, "FAIL")
    assert f"done  {target}" in said.out
    assert f"the smoke test failed; {target} stays as it is" in said.err
    assert verify(target).passed(strict=True)
    assert document(weightsmith(*APPLY, *options))["passed"] is False


def test_result_stands_where_its_smoke_test_cannot_be_made(
    models: Models, tmp_path: Path, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weightsmith.ops.verify.smoke.available_memory", lambda: 10_000_000)
    monkeypatch.setattr(Runner, "choose_device", lambda *_, **__: "cpu")  # a GPU has its own memory
    options = ("--base", models.base, "--delta", models.delta, "--target", tmp_path / "out")
    said = weightsmith("apply-delta", "--smoke", *options)
    assert said.code == 8
    assert f"done  {tmp_path / 'out'}" in said.out
    assert "[memory-too-small]" in said.err
    said = weightsmith("apply-delta", "--smoke", "--low-cpu-mem", *options)
    assert said.code == 0


@pytest.mark.slow
def test_convert_ends_with_the_smoke_test(
    models: Models, tmp_path: Path, weightsmith: Weightsmith
) -> None:
    said = weightsmith(
        "convert", models.result, tmp_path / "out", "--dtype", "bfloat16", "--smoke", "--json"
    )
    found = document(said)
    assert (said.code, found["passed"]) == (0, True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")
def test_gpu_gives_the_same_verdict_and_text(models: Models, weightsmith: Weightsmith) -> None:
    options = ("--smoke", "--json", "--max-new-tokens", "12", "--prompt", "Where is the drum?")
    ran = [
        document(weightsmith("verify", models.result, *options, "--device", device))
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (each["smoke"] for each in ran)
    assert ran[0]["checks"][:-1] == ran[1]["checks"][:-1]
    assert all(check["verdict"] == "pass" for each in ran for check in each["checks"])
    assert (gpu["device"], gpu["text"], gpu["tokens"]) == ("cuda", cpu["text"], cpu["tokens"])
    assert gpu["perplexity"] == pytest.approx(cpu["perplexity"], rel=0.01)
    assert gpu["tokens_per_s"] > 0
    low = document(weightsmith("verify", models.result, *options, "--device=cuda", "--low-cpu-mem"))
    assert low["smoke"]["tokens"] == gpu["tokens"]
