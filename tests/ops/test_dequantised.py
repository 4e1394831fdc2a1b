"""Quantised models become floats as their libraries make them, and are known for what they are."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from tests.support.vector_sums import expected_sums, tensor_sum, tensor_sums
from weightsmith.engine.options import Options
from weightsmith.errors import (
    NotQuantised,
    QuantisationInvalid,
    QuantisationUnknown,
    WeightsmithError,
)
from weightsmith.ops.convert import convert, plan_convert
from weightsmith.ops.diff import diff
from weightsmith.ops.inspect import inspect
from weightsmith.ops.job import needs
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora
from weightsmith.ops.verify.verify import verify
from weightsmith.sources.dequantised import dequantised, quantisation_of
from weightsmith.sources.recognise import open_model

SCHEMES = {
    "q_awq": "awq, 4 bit",
    "q_bnb_int8": "bitsandbytes, 8 bit",
    "q_bnb_nf4": "bitsandbytes, 4 bit",
    "q_bnb_nf4_double": "bitsandbytes, 4 bit",
    "q_ct_fp8_channel": "compressed-tensors, 8 bit",
    "q_ct_int4_pack": "compressed-tensors, 4 bit",
    "q_fp8_block128": "fp8, 8 bit",
    "q_fp8_block128_bf16scale_ue8m0": "fp8, 8 bit",
    "q_fp8_block32": "fp8, 8 bit",
    "q_gptq4": "gptq, 4 bit",
    "q_gptq4_desc_act": "gptq, 4 bit",
    "q_gptq4_v2": "gptq, 4 bit",
    "q_mxfp4_gpt_oss": "mxfp4, 4 bit",
    "q_torchao_int8": "torchao, 8 bit",
}
Edit = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize("name, said", SCHEMES.items(), ids=list(SCHEMES))
def test_convert_makes_the_floats_that_its_library_makes(
    name: str, said: str, vectors: Path, tmp_path: Path
) -> None:
    vector = vectors / "merge" / name
    job = plan_convert(vector / "base", tmp_path / "out", dequantize=True)
    assert any(said in note and "quantization_config is removed" in note for note in job.plan.notes)
    job.run()
    expected = expected_sums(vector, "dequantised")
    found = tensor_sums(tmp_path / "out")
    assert {each: found[each] for each in expected} == expected
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert inspect(vector / "base").quantised == said
    assert inspect(tmp_path / "out").quantised == ""


def test_the_result_may_have_another_dtype(vectors: Path, tmp_path: Path) -> None:
    base = vectors / "merge" / "q_fp8_block32" / "base"
    for dtype in ("float16", "float32"):
        convert(base, tmp_path / dtype, dequantize=True, dtype=dtype)
        found = load_file(tmp_path / dtype / "model.safetensors")
        assert {tensor.dtype for tensor in found.values()} == {getattr(torch, dtype)}
    exact = load_file(tmp_path / "float32" / "model.safetensors")
    stored = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    blocks = stored[f"{name}_scale_inv"].repeat_interleave(32, 0).repeat_interleave(32, 1)
    assert torch.equal(exact[name], stored[name].float() * blocks)


@pytest.mark.parametrize("name", SCHEMES)
def test_any_range_of_a_weight_is_the_same_as_of_the_whole(name: str, vectors: Path) -> None:
    model = open_model(vectors / "merge" / name / "base")
    found = quantisation_of(model)
    assert found is not None
    floats = dequantised(model, found, "BF16")
    for each in sorted(found.names)[:3]:
        nbytes = floats.tensors[each].info.nbytes
        whole = bytearray(nbytes)
        floats.read_into(each, 0, memoryview(whole))
        for start, stop in ((2, 4), (126, 390), (nbytes - 6, nbytes), (254, nbytes - 254)):
            part = bytearray(stop - start)
            floats.read_into(each, start, memoryview(part))
            assert part == whole[start:stop], (each, start, stop)


def test_what_is_no_quantised_model_is_not_dequantized(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(NotQuantised):
        plan_convert(vectors / "merge" / "set_dora" / "base", tmp_path / "out", dequantize=True)


def test_no_library_of_a_quantiser_nor_torch_is_imported(vectors: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from weightsmith.ops.convert import convert;"
        "[convert(f'{sys.argv[1]}/merge/{name}/base', f'{sys.argv[2]}/{name}', dequantize=True)"
        " for name in sys.argv[3:]]; print(*sys.modules)"
    )
    args = [sys.executable, "-c", code, str(vectors), str(tmp_path), *SCHEMES]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "weightsmith" in modules
    assert not modules & {"torch", "bitsandbytes", "compressed_tensors", "torchao", "transformers"}


# --- merging --------------------------------------------------------------------------------------


def test_a_merge_says_what_becomes_of_the_base(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "q_bnb_nf4"
    job = plan_merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out")
    assert job.plan.notes[0] == (
        "7 quantised weights (bitsandbytes, 4 bit) become bfloat16, and quantization_config is "
        "removed from the config"
    )
    job.run()
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_an_adapter_of_other_layers_leaves_what_is_quantised(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "q_torchao_int8"
    job = plan_merge_lora(vector / "base", [vector / "adapter_plain"], tmp_path / "out")
    assert job.plan.notes[0] == "no quantised weight is changed: the base stays torchao, 8 bit"
    job.run()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == json.loads((vector / "base" / "config.json").read_text())
    # Torchao's loader reads in the files' metadata which weights are quantised, and how.
    assert metadata(tmp_path / "out") == metadata(vector / "base")


def test_a_copy_of_a_quantised_model_keeps_its_metadata(vectors: Path, tmp_path: Path) -> None:
    base = vectors / "merge" / "q_torchao_int8" / "base"
    convert(base, tmp_path / "out", max_shard_nbytes=20_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == metadata(base)


def test_a_quantised_model_that_deltas_make_is_copied_too(vectors: Path, tmp_path: Path) -> None:
    base, tuned = (vectors / "merge" / "q_gptq4" / "base", tmp_path / "tuned")
    shutil.copytree(base, tuned)
    held = load_file(tuned / "model.safetensors")
    held["model.norm.weight"] = held["model.norm.weight"] * 2
    save_file(held, tuned / "model.safetensors", metadata(base))
    make_delta(base, tuned, tmp_path / "delta")
    convert(f"{base}+{tmp_path / 'delta'}", tmp_path / "copy")
    assert tensor_sums(tmp_path / "copy") == tensor_sums(tuned)
    convert(f"{base}+{tmp_path / 'delta'}", tmp_path / "floats", dequantize=True)
    convert(tuned, tmp_path / "expected", dequantize=True)
    assert tensor_sums(tmp_path / "floats") == tensor_sums(tmp_path / "expected")


def metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / "model.safetensors", "pt") as opened:
        found: dict[str, str] = opened.metadata()
        return found


def test_an_adapter_of_experts_goes_onto_experts_in_mxfp4(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "q_mxfp4_gpt_oss"
    merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", rounding="peft")
    assert tensor_sums(tmp_path / "out") == expected_sums(vector, "expected")


def test_weights_and_a_scale_go_with_a_quantised_base(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "q_gptq4"
    merge_lora(vector / "base", [vector / "adapter"], tmp_path / "none", scale=0.0)
    convert(vector / "base", tmp_path / "floats", dequantize=True)
    assert tensor_sums(tmp_path / "none") == tensor_sums(tmp_path / "floats")


# --- diff and verify ------------------------------------------------------------------------------


def test_diff_says_the_error_of_each_tensor(vectors: Path, tmp_path: Path) -> None:
    base = vectors / "merge" / "q_awq" / "base"
    convert(base, tmp_path / "source", dequantize=True)
    same = diff(base, tmp_path / "source")
    assert same.equal
    assert any("A is quantised (awq, 4 bit)" in note for note in same.notes)
    held = load_file(tmp_path / "source" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    held[name] = held[name] * 1.5
    save_file(held, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    other = diff(tmp_path / "source", base)
    assert [each.name for each in other.tensors if each.status != "same"] == [name]
    (changed,) = other.most_changed()
    assert changed.size == pytest.approx(1 / 3, rel=0.01)


def test_verify_checks_a_quantised_model_by_its_own_rules(vectors: Path) -> None:
    report = verify(vectors / "merge" / "q_gptq4" / "base")
    checks = {check.name: check for check in report.checks}
    assert checks["quantised"].verdict == "pass"
    assert checks["quantised"].details == ("gptq, 4 bit: 7 weights, each with all its parts",)
    assert checks["shapes"].verdict == "pass"


# --- what is wrong with a quantised model ---------------------------------------------------------

L = "model.layers.0.mlp.down_proj"


def drop(name: str) -> Edit:
    return lambda held: held.pop(f"{L}.{name}")


def put(name: str, change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(held: dict[str, Tensor]) -> None:
        held[f"{L}.{name}"] = change(held[f"{L}.{name}"]).contiguous()

    return edit


def nan(tensor: Tensor) -> Tensor:
    wrong = tensor.flatten().clone()
    wrong[-1] = float("nan")
    return wrong.reshape(tensor.shape)


def restated(tensor: Tensor, **said: object) -> Tensor:
    """A state of bitsandbytes that says something else."""
    state = json.loads(bytes(tensor.tolist())) | said
    return torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)


def damaged(vectors: Path, name: str, folder: Path, edit: Edit | None, **config: Any) -> Path:
    """A vector's base with something wrong with it."""
    base = folder / name
    shutil.copytree(vectors / "merge" / name / "base", base)
    if edit is not None:
        held = load_file(base / "model.safetensors")
        said = metadata(base)
        edit(held)
        save_file(held, base / "model.safetensors", said)
    settings = json.loads((base / "config.json").read_text())
    settings["quantization_config"] |= config
    (base / "config.json").write_text(json.dumps(settings))
    return base


@pytest.mark.parametrize(
    "name, edit, blamed, why",
    [
        ("q_gptq4", drop("qzeros"), "qweight", "qzeros is missing"),
        ("q_gptq4", drop("scales"), "qweight", "scales is missing"),
        ("q_gptq4", put("scales", lambda t: t[:-1]), "scales", "it is [2, 64]"),
        ("q_gptq4", put("scales", nan), "scales", "NaN"),
        ("q_gptq4", put("g_idx", lambda t: t[:-1]), "g_idx", "it is [95]"),
        ("q_gptq4", put("g_idx", lambda t: t + 1), "g_idx", "groups beyond the 3"),
        ("q_gptq4", put("qweight", lambda t: t.long()), "qweight", "it is I64, not I32"),
        ("q_awq", drop("qzeros"), "qweight", "qzeros is missing"),
        ("q_awq", put("qzeros", lambda t: t[:, :-1]), "qzeros", "it is [3, 7]"),
        ("q_awq", put("scales", nan), "scales", "NaN"),
        ("q_bnb_nf4", drop("weight.absmax"), "weight", "absmax is missing"),
        ("q_bnb_nf4", drop("weight.quant_map"), "weight", "quant_map is missing"),
        (
            "q_bnb_nf4",
            drop("weight.quant_state.bitsandbytes__nf4"),
            "weight",
            "quant_state is missing",
        ),
        ("q_bnb_nf4", put("weight", lambda t: t[:-1]), "weight", "it has 3071 bytes"),
        ("q_bnb_nf4", put("weight.absmax", lambda t: t[:-1]), "weight.absmax", "it is [95]"),
        ("q_bnb_nf4", put("weight.absmax", nan), "weight.absmax", "NaN"),
        (
            "q_bnb_nf4",
            put("weight.quant_state.bitsandbytes__nf4", lambda t: t[:-1]),
            "weight.quant_state.bitsandbytes__nf4",
            "its state is not what bitsandbytes writes",
        ),
        (
            "q_bnb_nf4",
            put("weight.quant_state.bitsandbytes__nf4", lambda t: restated(t, blocksize=math.inf)),
            "weight.quant_state.bitsandbytes__nf4",
            "its state is not what bitsandbytes writes",
        ),
        (
            "q_bnb_nf4",
            put("weight.quant_state.bitsandbytes__nf4", lambda t: restated(t, dtype="float64")),
            "weight.quant_state.bitsandbytes__nf4",
            "weights were float64",
        ),
        (
            "q_bnb_nf4_double",
            put(
                "weight.quant_state.bitsandbytes__nf4",
                lambda t: restated(t, nested_offset=math.nan),
            ),
            "weight.quant_state.bitsandbytes__nf4",
            "an offset of nan",
        ),
        ("q_bnb_nf4_double", drop("weight.nested_absmax"), "weight", "nested_absmax is missing"),
        ("q_bnb_int8", put("SCB", lambda t: t[:-1]), "SCB", "it is [63]"),
        ("q_bnb_int8", put("SCB", nan), "SCB", "NaN"),
        ("q_bnb_int8", drop("SCB"), "weight", "no part of what bitsandbytes leaves"),
        ("q_fp8_block32", drop("weight_scale_inv"), "weight", "weight_scale_inv is missing"),
        ("q_fp8_block32", put("weight_scale_inv", lambda t: t.T), "weight_scale_inv", "[3, 2]"),
        ("q_fp8_block32", put("weight_scale_inv", nan), "weight_scale_inv", "NaN"),
        ("q_ct_fp8_channel", drop("weight_scale"), "weight", "weight_scale is missing"),
        ("q_ct_fp8_channel", put("weight_scale", lambda t: t[:-1]), "weight_scale", "[63, 1]"),
        ("q_ct_int4_pack", drop("weight_shape"), "weight_packed", "weight_shape is missing"),
        (
            "q_ct_int4_pack",
            put("weight_packed", lambda t: t[:, :-1]),
            "weight_packed",
            "it is [64, 11]",
        ),
        ("q_ct_int4_pack", put("weight_scale", nan), "weight_scale", "NaN"),
        ("q_torchao_int8", drop("_weight_scale"), "_weight_qdata", "_weight_scale is missing"),
        ("q_torchao_int8", put("_weight_scale", lambda t: t[:-1]), "_weight_scale", "[63, 1]"),
    ],
)
def test_a_part_that_is_not_as_it_should_be_is_named(
    name: str, edit: Edit, blamed: str, why: str, vectors: Path, tmp_path: Path
) -> None:
    base = damaged(vectors, name, tmp_path, edit)
    adapter = vectors / "merge" / name / "adapter"
    with pytest.raises(QuantisationInvalid) as converted:
        convert(base, tmp_path / "converted", dequantize=True)
    with pytest.raises(QuantisationInvalid) as merged:
        merge_lora(base, [adapter], tmp_path / "merged")
    for error in (converted.value, merged.value):
        assert error.exit_code == 6
        assert f"{L}.{blamed} is not as" in str(error)
        assert why in str(error)
    assert not [path for path in tmp_path.iterdir() if path.name in {"converted", "merged"}]


@pytest.mark.parametrize(
    "name, config, error",
    [
        ("q_gptq4", {"bits": 8}, QuantisationInvalid),
        ("q_gptq4", {"group_size": 64}, QuantisationInvalid),
        ("q_gptq4", {"quant_method": "awq", "version": "gemm"}, QuantisationInvalid),
        ("q_awq", {"quant_method": "gptq"}, QuantisationInvalid),
        ("q_bnb_nf4", {"quant_method": "fp8"}, QuantisationInvalid),
        ("q_fp8_block32", {"weight_block_size": [64, 64]}, QuantisationInvalid),
        ("q_fp8_block32", {"weight_block_size": 32}, QuantisationInvalid),
        ("q_ct_int4_pack", {"quant_method": "bitsandbytes"}, QuantisationInvalid),
        ("q_mxfp4_gpt_oss", {"quant_method": "gptq", "bits": 4}, QuantisationInvalid),
        ("q_ct_int4_pack", {"config_groups": {"group_0": 4}}, QuantisationInvalid),
        ("q_gptq4", {"bits": 3}, QuantisationUnknown),
        ("q_gptq4", {"bits": 4.0}, QuantisationUnknown),
        ("q_gptq4", {"bits": [4]}, QuantisationUnknown),
        ("q_gptq4", {"checkpoint_format": "marlin"}, QuantisationUnknown),
        ("q_gptq4", {"checkpoint_format": ["gptq"]}, QuantisationUnknown),
        (
            "q_ct_int4_pack",
            {"config_groups": {"group_0": {"weights": {"num_bits": [4]}}}},
            QuantisationUnknown,
        ),
        ("q_awq", {"version": "gemv"}, QuantisationUnknown),
        ("q_awq", {"quant_method": "hqq"}, QuantisationUnknown),
    ],
)
def test_a_config_that_lies_or_says_what_is_not_known_is_told(
    name: str,
    config: dict[str, Any],
    error: type[WeightsmithError],
    vectors: Path,
    tmp_path: Path,
) -> None:
    base = damaged(vectors, name, tmp_path, None, **config)
    with pytest.raises(error):
        convert(base, tmp_path / "out", dequantize=True)
    assert not (tmp_path / "out").exists()
    checks = {check.name: check for check in verify(base).checks}
    expected = "FAIL" if error is QuantisationInvalid else "not checked"
    assert checks["quantised"].verdict == expected


def test_two_configs_of_quantisation_must_agree(vectors: Path, tmp_path: Path) -> None:
    base = damaged(vectors, "q_ct_int4_pack", tmp_path, None)
    config = json.loads((base / "config.json").read_text())
    # The name that compressed-tensors had for it, alone and beside the other.
    config["compression_config"] = config["quantization_config"]
    (base / "config.json").write_text(json.dumps(config))
    convert(base, tmp_path / "both", dequantize=True)
    one = config.pop("quantization_config")
    (base / "config.json").write_text(json.dumps(config))
    convert(base, tmp_path / "old", dequantize=True)
    assert tensor_sums(tmp_path / "both") == tensor_sums(tmp_path / "old")
    left = json.loads((tmp_path / "old" / "config.json").read_text())
    assert not left.keys() & {"compression_config", "quantization_config"}
    config["quantization_config"] = one | {"format": "another"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantisationInvalid, match="contradict each other"):
        convert(base, tmp_path / "out", dequantize=True)


def test_a_base_of_bitsandbytes_needs_no_config(vectors: Path, tmp_path: Path) -> None:
    base = damaged(vectors, "q_bnb_nf4", tmp_path, None)
    config = json.loads((base / "config.json").read_text())
    del config["quantization_config"]
    (base / "config.json").write_text(json.dumps(config))
    convert(base, tmp_path / "out", dequantize=True)
    expected = expected_sums(vectors / "merge" / "q_bnb_nf4", "dequantised")
    found = tensor_sums(tmp_path / "out")
    assert {name: found[name] for name in expected} == expected


def test_exponents_of_bytes_are_powers_of_two(vectors: Path, tmp_path: Path) -> None:
    """FP8 with scales in E8M0, which no vector has."""

    def as_exponents(held: dict[str, Tensor]) -> None:
        for name in [name for name in held if name.endswith("_scale_inv")]:
            held[name] = torch.full(held[name].shape, 124, dtype=torch.uint8)

    base = damaged(vectors, "q_fp8_block32", tmp_path, as_exponents)
    convert(base, tmp_path / "out", dequantize=True)
    stored, found = (load_file(p / "model.safetensors") for p in (base, tmp_path / "out"))
    expected = (stored[f"{L}.weight"].float() / 8).bfloat16()
    assert tensor_sum(found[f"{L}.weight"]) == tensor_sum(expected)


# --- memory ---------------------------------------------------------------------------------------


def write_large(folder: Path, method: str, layers: int) -> Path:
    """A quantised model of so many matrices of 8 MiB each as bfloat16."""
    out, into = 1024, 4096
    tensors: dict[str, Tensor] = {"model.norm.weight": torch.ones(8).bfloat16()}
    for number in range(layers):
        layer = f"model.layers.{number}.mlp.down_proj"
        if method == "fp8":
            tensors[f"{layer}.weight"] = torch.ones(out, into).to(torch.float8_e4m3fn)
            tensors[f"{layer}.weight_scale_inv"] = torch.ones(out // 128, into // 128)
        else:
            tensors[f"{layer}.qweight"] = torch.ones(into // 8, out, dtype=torch.int32)
            tensors[f"{layer}.qzeros"] = torch.ones(into // 128, out // 8, dtype=torch.int32)
            tensors[f"{layer}.scales"] = torch.ones(into // 128, out).half()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings: dict[str, Any] = {"quant_method": method, "bits": 4, "group_size": 128}
    config = {"quantization_config": settings | {"weight_block_size": [128, 128]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@HAS_PEAK
@pytest.mark.parametrize("method", ["fp8", "gptq"])
def test_memory_does_not_depend_on_how_many_weights_there_are(method: str, tmp_path: Path) -> None:
    program = """
import sys
from weightsmith.engine.options import Options
from weightsmith.ops.convert import convert
convert(sys.argv[1], sys.argv[2], dequantize=True, options=Options(workers=1))
"""
    peaks = [
        peak_nbytes(
            program,
            write_large(tmp_path / f"{method} {layers}", method, layers),
            tmp_path / f"out {layers}",
        )
        for layers in (4, 12)
    ]
    assert peaks[1] - peaks[0] < 16 * MIB


def test_a_plan_counts_what_is_held_of_weights_that_lie_the_other_way(tmp_path: Path) -> None:
    needed = {}
    for layers in (1, 4, 12):
        source = write_large(tmp_path / f"source {layers}", "gptq", layers)
        job = plan_convert(source, tmp_path / "out", dequantize=True)
        needed[layers] = needs(job, Options(workers=1)).memory_nbytes
    # Four of them are held at most, of 2 MiB each with their scales.
    assert needed[4] - needed[1] >= 3 * 2 * MIB
    assert needed[12] == needed[4]
