"""A delta with its base is checked as the model that it makes, which is written nowhere."""

import json
import random
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.folders import state
from tests.support.story_models import Copy, Models, change_weights, edit, read
from weightsmith.engine.manifest import read_manifest
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.smoke import Settings, smoke
from weightsmith.ops.verify.verify import verify


def test_delta_with_its_base_has_the_fingerprint_of_what_applying_it_gives(
    models: Models, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", models.delta, "--base", models.base, "--json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    written = read_manifest(models.result)
    assert written is not None
    assert document["fingerprint"] == written.fingerprint
    assert document["source"] == f"{models.delta} on {models.base}"
    verdicts = {check["name"]: check["verdict"] for check in document["checks"]}
    assert verdicts.pop("digests") == "not checked"
    assert set(verdicts.values()) == {"pass"}
    assert {"kind", "shapes", "tokenizer", "checksums", "numbers"} <= verdicts.keys()


def test_nothing_is_written_anywhere(models: Models, tmp_path: Path) -> None:
    folders = (models.base, models.delta, tmp_path)
    before = state(*folders)
    report = verify(models.delta, base=models.base)
    assert report.passed()
    assert state(*folders) == before


def test_digests_of_a_delta_of_2023_are_not_checked_and_strict_says_no(
    models: Models, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", models.delta, "--base", models.base)
    assert said.verdict("digests") == "not checked"
    assert "a delta of 2023 carries no digests" in said.words
    assert weightsmith("verify", models.delta, "--base", models.base, "--strict").code == 1


def test_delta_with_its_base_is_compared_with_what_was_applied_before(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    options = ("--base", models.base, "--against")
    said = weightsmith("verify", models.delta, *options, models.result)
    assert (said.code, said.verdict("against")) == (0, "pass")
    other = copy(models.result)
    change_weights(other, lambda w: w | {"model.norm.weight": w["model.norm.weight"] * 2})
    said = weightsmith("verify", models.delta, *options, other)
    assert (said.code, said.verdict("against")) == (1, "FAIL")
    assert "model.norm.weight differs" in said.words


def test_base_of_another_size_does_not_fit_and_says_where(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    other = copy(models.base)
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(other, lambda w: w | {name: w[name][:100]})
    said = weightsmith("verify", models.delta, "--base", other)
    assert (said.code, said.verdict("base")) == (1, "FAIL")
    assert f"shapes differ in {name}: base [100, 80], delta [216, 80]" in said.words
    assert "use the base that the delta's card names" in said.err


def test_rows_that_only_the_user_can_decide_on_are_not_checked(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    smaller = copy(models.base)
    edit(smaller / "config.json", vocab_size=440)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    change_weights(smaller, lambda w: w | {name: w[name][:440] for name in names})
    said = weightsmith("verify", models.delta, "--base", smaller)
    assert (said.code, said.verdict("base")) == (0, "not checked")
    assert weightsmith("verify", models.delta, "--base", smaller, "--strict").code == 1


def test_infinite_sum_of_finite_sides_is_found(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    base, delta = copy(models.base), copy(models.delta)
    name = "lm_head.weight"

    def enlarge(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if name in weights:
            weights[name][3, 5] = 60_000.0
        return weights

    change_weights(base, enlarge)
    for path in delta.glob("*.bin"):
        torch.save(enlarge(torch.load(path, weights_only=True)), path)
    for source in (base, delta):
        assert weightsmith("verify", source).verdict("numbers") == "pass"
    said = weightsmith("verify", delta, "--base", base)
    assert (said.code, said.verdict("numbers")) == (1, "FAIL")
    assert f"{name} holds 0 NaN and 1 infinite values" in said.words


@pytest.mark.sampled(1)
@pytest.mark.parametrize("low_cpu_mem", [False, True])
def test_delta_runs_on_its_base_without_being_applied(models: Models, low_cpu_mem: bool) -> None:
    settings = Settings(prompt="Where is the drum?", max_new_tokens=8, low_cpu_mem=low_cpu_mem)
    there, _ = smoke(models.result, settings)
    nowhere, checks = smoke(models.delta, settings, base=models.base)
    assert there is not None
    assert nowhere is not None
    assert (nowhere.tokens, nowhere.perplexity) == (there.tokens, there.perplexity)
    assert all(check.verdict == "pass" for check in checks)


def test_model_with_a_base_stays_the_model(models: Models, weightsmith: Weightsmith) -> None:
    said = weightsmith("verify", models.result, "--base", models.base, "--json")
    document = json.loads(said.out)
    assert document["source"] == str(models.result)
    assert weightsmith("verify", models.result, "--base", models.base / "nothing").code == 3


# --- exact deltas, which carry the digests of their base and of what they make --------------------


@pytest.fixture(scope="module")
def exact(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exact delta of the fine-tune."""
    folder = tmp_path_factory.mktemp("exact") / "delta"
    make_delta(models.base, models.tuned, folder)
    return folder


def test_exact_delta_with_its_base_has_all_digests_checked(
    models: Models, exact: Path, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", exact, "--base", models.base, "--strict", "--json")
    assert said.code == 0, said.out
    found = json.loads(said.out)
    verdicts = {check["name"]: check["verdict"] for check in found["checks"]}
    assert verdicts["digests"] == "pass"
    assert set(verdicts.values()) == {"pass"}
    assert found["fingerprint"] == verify(models.tuned).fingerprint


def with_another_number(folder: Path, name: str) -> Path:
    """The folder, one number of a matrix changed in it."""
    weights = read(folder)
    weights[name][5, 5] += 0.5
    change_weights(folder, lambda _: weights)
    return folder


def test_wrong_base_is_found_by_the_manifest_of_the_delta(
    models: Models, exact: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", exact, "--base", models.tuned)
    assert (said.code, said.verdict("base")) == (1, "FAIL")
    name = "model.layers.0.mlp.gate_proj.weight"
    other = with_another_number(copy(models.base), name)
    said = weightsmith("verify", exact, "--base", other)
    assert (said.code, said.verdict("base")) == (1, "FAIL")
    assert name in said.words


def test_wrong_base_that_planning_overlooks_is_found_by_what_comes_out(
    models: Models,
    exact: Path,
    copy: Copy,
    weightsmith: Weightsmith,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("weightsmith.sources.exact._GLANCE_NBYTES", 0)  # as with large tensors
    name = "model.layers.0.mlp.gate_proj.weight"
    other = with_another_number(copy(models.base), name)
    said = weightsmith("verify", exact, "--base", other)
    assert (said.code, said.verdict("base")) == (1, "FAIL")
    assert "is not what the delta was made from: it differs in 1 tensor" in said.words
    assert name in said.words
    said = weightsmith("verify", exact, "--base", models.tuned)  # which nothing decodes against
    assert (said.code, said.verdict("base")) == (1, "FAIL")


def test_exact_delta_alone_passes_what_can_be_checked_without_its_base(
    exact: Path, models: Models, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", exact, "--smoke", "--against", models.tuned, "--json")
    assert said.code == 0, said.out
    checks = {check["name"]: check for check in json.loads(said.out)["checks"]}
    verdicts = {name: check["verdict"] for name, check in checks.items()}
    assert verdicts == {
        **dict.fromkeys(("files", "kind", "shapes", "tokenizer", "leftovers", "digests"), "pass"),
        **dict.fromkeys(("base", "against", "smoke"), "not checked"),
    }
    assert "an exact delta, no model" in checks["kind"]["details"][0]
    assert "names and shapes are those of the config" in checks["shapes"]["details"][0]
    assert f"weightsmith verify {exact} --base BASE" in checks["base"]["hint"]
    assert weightsmith("verify", exact, "--strict").code == 1


@pytest.mark.parametrize("at", [-100, 9])
def test_exact_delta_alone_fails_when_a_byte_of_it_is_wrong(
    exact: Path, copy: Copy, weightsmith: Weightsmith, at: int
) -> None:
    folder = copy(exact)
    (path,) = folder.glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    said = weightsmith("verify", folder)
    assert said.code == 1
    assert "FAIL" in {said.verdict("digests"), said.verdict("files")}


def test_exact_delta_whose_model_would_not_be_that_of_its_config_fails(
    exact: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(exact)
    edit(folder / "config.json", hidden_size=96)
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("shapes"), said.verdict("digests")) == (1, "FAIL", "FAIL")
    assert "config.json was changed" in said.words


def test_exact_delta_whose_record_names_a_payload_that_is_not_there_fails(
    exact: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(exact)
    path = folder / "weightsmith.json"
    document = json.loads(path.read_bytes())
    document["delta"]["target"]["tensors"][0]["payload"] = "elsewhere"
    path.write_text(json.dumps(document))
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("files")) == (1, "FAIL")
    assert "tensor elsewhere in the delta is damaged" in said.words


def test_faults_of_a_deltas_sidecars_are_mended_in_its_target(
    models: Models, exact: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    """In the delta's own folder a repair would break what its record promises."""
    for delta in (exact, models.delta):
        folder = copy(delta)
        edit(folder / "config.json", bos_token_id=0, eos_token_id=1)
        said = weightsmith("verify", folder)
        assert said.verdict("tokenizer") == "warn"
        assert "weightsmith fix-tokenizer TARGET" in said.err
        assert f"fix-tokenizer {folder}" not in said.err


@pytest.mark.parametrize("flips", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_each_flipped_bit_in_an_exact_delta_is_found_by_what_comes_out(
    flips: int, models: Models, exact: Path, copy: Copy
) -> None:
    folder = copy(exact)
    (path,) = folder.glob("*.safetensors")
    raw = path.read_bytes()
    rng = random.Random(11)
    missed = []
    for _ in range(flips):
        offset, bit = rng.randrange(len(raw)), rng.randrange(8)
        path.write_bytes(raw[:offset] + bytes([raw[offset] ^ 1 << bit]) + raw[offset + 1 :])
        if verify(folder, base=models.base).passed():
            missed.append((offset, bit))
    assert not missed


@pytest.mark.slow
def test_exact_delta_runs_on_its_base_as_the_fine_tune(models: Models, exact: Path) -> None:
    settings = Settings(prompt="Where is the drum?", max_new_tokens=8)
    there, _ = smoke(models.tuned, settings)
    nowhere, _ = smoke(exact, settings, base=models.base)
    assert there is not None
    assert nowhere is not None
    assert (nowhere.tokens, nowhere.perplexity) == (there.tokens, there.perplexity)
