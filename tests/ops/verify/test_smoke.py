"""What a model does when it is let loose: right ones pass, broken ones are told by their cause."""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import forked
from tests.support.command_line import Weightsmith
from tests.support.story_models import Copy, Models, change_weights, edit, forget, read
from weightsmith.catalogue.load import find_prompt
from weightsmith.errors import MemoryTooSmall, NoCuda, PackageMissing, SourceNotFound
from weightsmith.ops.verify import smoke as smokes
from weightsmith.ops.verify.smoke import Settings, smoke
from weightsmith.smoke import generate, load, runner
from weightsmith.smoke.device import choose_device
from weightsmith.smoke.perplexity import TEXT

HEADS = 4
SHORT = Settings(prompt="Where is the drum?", max_new_tokens=12, device="cpu")


def verdicts(source: Path, settings: Settings = SHORT, **options: Any) -> dict[str, str]:
    """Of the checks that did not pass, with their reasons."""
    _, checks = smoke(source, settings, **options)
    return {c.name: " ".join(c.details) for c in checks if c.verdict != "pass"}


def to_meta_order(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """q and k as they stand in Meta's files: what a converter that forgets to permute leaves."""

    def unpermute(weight: Tensor) -> Tensor:
        rows, columns = weight.shape
        pairs = weight.view(HEADS, 2, rows // HEADS // 2, columns)
        return pairs.transpose(1, 2).reshape(rows, columns)

    rotated = ("q_proj.weight", "k_proj.weight")
    return {n: unpermute(t) if n.endswith(rotated) else t for n, t in weights.items()}


def scrambled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of the embedding in another order."""
    order = torch.randperm(448, generator=torch.Generator().manual_seed(0))
    return weights | {"model.embed_tokens.weight": weights["model.embed_tokens.weight"][order]}


# --- right models ---------------------------------------------------------------------------------


def test_right_models_pass(models: Models) -> None:
    for source in (models.base, models.result):
        assert not verdicts(source)
    assert not verdicts(models.result, base=models.base)


def test_what_is_written_is_streamed_in_pieces_and_is_what_was_judged(models: Models) -> None:
    pieces: list[str] = []
    did, _ = smoke(models.result, SHORT, on_text=pieces.append)
    assert did is not None
    assert len([piece for piece in pieces if piece.strip()]) > 3
    assert "".join(pieces).strip() == did.text.strip()
    assert len(did.tokens) <= SHORT.max_new_tokens
    assert did.first_id == did.bos_id == 1
    assert did.perplexity < did.vocab_size / 20
    assert did.tokens_per_s > 0
    assert did.peak_memory_nbytes > 10**8


def test_text_is_that_of_transformers_own_greedy_generation(models: Models) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(models.result)
    tokenizer: Any = AutoTokenizer.from_pretrained(models.result)
    given = tokenizer(SHORT.prompt, return_tensors="pt")
    made = model.generate(**given, do_sample=False, max_new_tokens=12, pad_token_id=0)[0]
    loss = model(**(text := tokenizer(TEXT, return_tensors="pt")), labels=text["input_ids"]).loss
    did, _ = smoke(models.result, SHORT)
    assert did is not None
    assert did.tokens == tuple(made[given["input_ids"].shape[1] :].tolist())
    assert did.perplexity == pytest.approx(float(loss.detach().exp()), rel=0.01)


def test_stopping_at_eos_is_told_from_reaching_the_limit(models: Models) -> None:
    ends, _ = smoke(models.result, Settings(prompt="Where is the drum?", max_new_tokens=64))
    cut, _ = smoke(models.base, Settings(prompt="Once upon a time", max_new_tokens=4))
    assert ends is not None
    assert cut is not None
    assert ends.stopped
    assert ends.tokens[-1] == 2
    assert (cut.stopped, len(cut.tokens)) == (False, 4)


# --- broken models, each told by its cause --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("change,base", [(scrambled, False), (to_meta_order, False)])
def test_scrambled_and_unpermuted_tensors_show_as_perplexity(
    models: Models, copy: Copy, change: Callable[..., dict[str, Tensor]], base: bool
) -> None:
    for source in (models.base, models.result):
        folder = copy(source)
        change_weights(folder, change)
        assert "perplexity" in verdicts(folder)


def test_unpermuted_q_and_k_are_called_by_their_name(models: Models, copy: Copy) -> None:
    folder = copy(models.tuned)
    right, _ = smoke(folder, SHORT)
    change_weights(folder, to_meta_order)
    reason = verdicts(folder)["perplexity"]
    assert right is not None
    assert "q_proj and k_proj seem to be in the order of Meta's files" in reason
    assert f"perplexity is {right.perplexity:.4g} instead of" in reason  # as if it were mended
    reason = verdicts(folder, Settings(max_new_tokens=2, low_cpu_mem=True))["perplexity"]
    assert "q_proj and k_proj" in reason


@pytest.mark.slow
def test_delta_used_as_a_model_shows_as_perplexity_near_the_vocabulary_size(
    models: Models,
) -> None:
    did, _ = smoke(models.delta, SHORT)
    assert did is not None
    assert did.vocab_size / 2 < did.perplexity < did.vocab_size * 2
    reason = verdicts(models.delta)["perplexity"]
    assert "the square root of 448, the perplexity of guessing at random" in reason


def test_perplexity_is_held_against_that_of_the_base(models: Models, copy: Copy) -> None:
    worse = copy(models.base)
    change_weights(worse, lambda w: w | {"lm_head.weight": w["lm_head.weight"] * 0.37})
    did, _ = smoke(worse, SHORT)
    theirs, _ = smoke(models.base, SHORT)
    assert did is not None
    assert theirs is not None
    assert 3 * theirs.perplexity < did.perplexity < 21  # the root of 448
    assert not verdicts(worse)
    assert (
        f"3 times the base's {theirs.perplexity:.4g}"
        in verdicts(worse, base=models.base)["perplexity"]
    )


def test_base_that_cannot_run_is_no_yardstick_and_no_obstacle(models: Models, copy: Copy) -> None:
    broken = copy(models.base)
    change_weights(broken, lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"})
    _, checks = smoke(models.result, SHORT, base=broken)
    said = next(" ".join(check.details) for check in checks if check.name == "perplexity")
    assert f"transformers cannot run {broken}" in said
    with pytest.raises(SourceNotFound):
        smoke(models.result, SHORT, base=broken / "nothing")
    assert all(check.verdict == "pass" for check in checks)


def test_limit_of_the_user_counts(models: Models) -> None:
    reason = verdicts(models.result, Settings(max_new_tokens=2, max_perplexity=1.5))["perplexity"]
    assert "the limit is 1.5: as `max_perplexity` says" in reason


def test_one_token_over_and_over_is_told(models: Models, copy: Copy) -> None:
    folder = copy(models.tuned)
    change_weights(folder, lambda w: w | {"lm_head.weight": w["lm_head.weight"] * 0})
    found = verdicts(folder)
    assert found["text"] == "it wrote token 0 over and over"
    assert "448 on the built-in text" in found["perplexity"]


def test_logits_that_are_no_numbers_are_told_and_the_document_stays_json(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    weights = read(folder)
    weights["model.norm.weight"][0] = torch.nan
    change_weights(folder, lambda _: weights)
    found = verdicts(folder)
    assert found["logits"] == "some are NaN or infinite"
    assert found["perplexity"].startswith("inf on the built-in text")
    said = weightsmith("verify", folder, "--smoke", "--json", "--max-new-tokens", "2")
    document = json.loads(said.out, parse_constant=pytest.fail)
    assert document["smoke"]["perplexity"] is None


def test_prompt_without_bos_is_told(models: Models, copy: Copy) -> None:
    folder = copy(models.tuned)
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    document = json.loads((folder / "tokenizer.json").read_bytes())
    document["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(document))
    assert "BOS is 1" in verdicts(folder)["bos"]


# --- prompts --------------------------------------------------------------------------------------


def test_release_is_asked_in_the_form_that_it_was_trained_on(models: Models, copy: Copy) -> None:
    folder = copy(models.result)
    edit(folder / "weightsmith.json", release="vicuna-7b-v1.1")
    did, _ = smoke(folder, SHORT)
    template = find_prompt("vicuna-v1.1")
    assert template is not None
    assert did is not None
    assert did.prompt == template.fill(SHORT.prompt)
    assert did.prompt.endswith("USER: Where is the drum? ASSISTANT:")


def test_chat_template_is_used_and_its_bos_is_not_doubled(models: Models, copy: Copy) -> None:
    folder = copy(models.result)
    template = "{{ bos_token }}USER: {{ messages[0].content }} ASSISTANT:"
    edit(folder / "tokenizer_config.json", chat_template=template)
    did, _ = smoke(folder, SHORT)
    assert did is not None
    assert did.prompt == "<s>USER: Where is the drum? ASSISTANT:"
    assert did.first_id == 1
    assert did.text.startswith("With pleasure")


# --- little memory, and other containers ----------------------------------------------------------


@pytest.mark.slow
def test_low_cpu_mem_gives_the_same_text_and_perplexity(models: Models) -> None:
    whole, _ = smoke(models.result, SHORT)
    parts, _ = smoke(models.result, Settings(SHORT.device, SHORT.prompt, 12, low_cpu_mem=True))
    assert whole is not None
    assert parts is not None
    assert (parts.text, parts.tokens) == (whole.text, whole.tokens)
    assert parts.perplexity == whole.perplexity


@pytest.mark.parametrize("low_cpu_mem", [False, True])
def test_tied_model_runs(models: Models, copy: Copy, low_cpu_mem: bool) -> None:
    folder = copy(models.base)
    edit(folder / "config.json", tie_word_embeddings=True)
    change_weights(folder, lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"})
    did, _ = smoke(folder, Settings(max_new_tokens=2, low_cpu_mem=low_cpu_mem))
    assert did is not None  # it was trained untied, so what it writes means nothing


@pytest.mark.parametrize("low_cpu_mem", [False, True])
def test_missing_and_misshapen_tensors_are_named_rather_than_made_up(
    models: Models, copy: Copy, low_cpu_mem: bool
) -> None:
    folder = copy(models.base)
    lacking = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda w: {n: t for n, t in w.items() if n != lacking})
    settings = Settings(max_new_tokens=2, low_cpu_mem=low_cpu_mem)
    assert lacking in verdicts(folder, settings)["smoke"]
    if not low_cpu_mem:
        change_weights(folder, lambda w: {**w, lacking: torch.zeros(7, 7).half()})
        assert f"{lacking} has another shape" in verdicts(folder, settings)["smoke"]


def test_folder_in_metas_own_layout_runs_as_it_is(vectors: Path) -> None:
    folder = vectors / "meta_llama1_2shards" / "meta" / "13B"
    did, _ = smoke(folder, SHORT)
    assert did is not None  # its weights are random
    assert did.vocab_size == 400


def test_torch_files_are_never_unpickled(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(runner, "start", forked.start_here)
    monkeypatch.setattr(torch, "load", refuse)
    did, _ = smoke(models.delta, SHORT)
    assert did is not None


def test_nothing_that_lies_beside_the_weights_is_run(
    models: Models, copy: Copy, tmp_path: Path
) -> None:
    folder = copy(models.result)
    evil = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    names = ("modeling_x", "configuration_x", "tokenization_x", "generate", "conftest")
    for name in names:
        (folder / f"{name}.py").write_text(evil + "class X: pass\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(evil)
    classes = {
        "AutoConfig": "configuration_x.X",
        "AutoModelForCausalLM": "modeling_x.X",
        "AutoTokenizer": ["tokenization_x.X", None],
    }
    edit(folder / "config.json", auto_map=classes)
    edit(folder / "tokenizer_config.json", auto_map=classes)
    did, checks = smoke(folder, SHORT)
    assert did is not None
    assert all(check.verdict == "pass" for check in checks)
    edit(folder / "config.json", model_type="x")
    assert "no causal language model for x" in verdicts(folder)["smoke"]
    assert not (tmp_path / "ran").exists()


# --- where it cannot be done ----------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["rwkv9", "vit"])
def test_architecture_without_a_language_model_is_not_checked(
    models: Models, copy: Copy, weightsmith: Weightsmith, model_type: str
) -> None:
    folder = copy(models.result)
    forget(folder)
    edit(folder / "config.json", model_type=model_type)
    said = weightsmith("verify", folder, "--smoke")
    assert said.verdict("smoke") == "not checked"
    assert f"transformers has no causal language model for {model_type}" in said.words
    assert said.verdict("numbers") == "pass"
    assert said.code == 0
    assert weightsmith("verify", folder, "--smoke", "--strict").code == 1


@pytest.mark.parametrize(
    "architecture", ["BertModel", "RobertaForMaskedLM", "LlamaForSequenceClassification"]
)
def test_a_model_that_writes_nothing_is_not_checked(
    architecture: str, models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    edit(folder / "config.json", architectures=[architecture])
    said = weightsmith("verify", folder, "--smoke")
    assert said.verdict("smoke") == "not checked"
    assert f"{architecture} generates no text" in said.words


def test_missing_tokenizer_fails_and_does_not_crash(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    said = weightsmith("verify", folder, "--smoke")
    assert (said.code, said.verdict("smoke")) == (1, "FAIL")
    assert "transformers cannot run" in said.words
    assert "backend tokenizer from one of: (1) " in said.words
    assert "Traceback" not in said.err


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "file,values",
    [
        ("config.json", {"hidden_size": "many"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"hidden_act": "sillu"}),
        ("tokenizer.json", {"model": {"type": "none"}}),
        ("tokenizer_config.json", {"bos_token": 7}),
        ("generation_config.json", {"eos_token_id": "end"}),
    ],
)
def test_nonsense_in_small_files_fails_and_does_not_crash(
    models: Models, copy: Copy, file: str, values: dict[str, Any]
) -> None:
    folder = copy(models.tuned)
    edit(folder / file, **values)
    found = verdicts(folder)
    assert not found or found.keys() & {"smoke", "bos", "perplexity", "round trip"}


def test_no_cuda_is_said_before_anything_is_read(models: Models, weightsmith: Weightsmith) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = weightsmith("verify", models.result, "--smoke", "--device", "cuda")
    assert (said.code, said.out) == (2, "")
    assert "[no-cuda]" in said.err
    with pytest.raises(NoCuda):
        smoke(models.result, Settings(device="cuda"))


def test_accelerate_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PackageMissing, match="`low_cpu_mem` needs the package accelerate"):
        choose_device("cpu", low_cpu_mem=True)
    assert choose_device("cpu") == "cpu"


def test_model_larger_than_memory_is_refused_before_it_is_loaded(
    models: Models, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smokes, "available_memory", lambda: 10_000_000)
    with pytest.raises(MemoryTooSmall):
        smoke(models.result, SHORT)
    said = weightsmith("verify", models.result, "--smoke", "--device", "cpu")
    assert said.code == 8
    assert "try --low-cpu-mem" in said.err
    assert not verdicts(models.result, Settings(max_new_tokens=2, low_cpu_mem=True))


def test_memory_that_torch_does_not_get_is_exit_8_with_the_way_out(
    models: Models, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "start", forked.start_here)
    monkeypatch.setattr(load, "_whole", lambda *_: torch.empty(10**15))
    said = weightsmith("verify", models.result, "--smoke", "--device", "cpu")
    assert said.code == 8
    assert "does not fit into memory [out-of-memory]" in said.err
    assert "try --low-cpu-mem" in said.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS counts elsewhere otherwise")
def test_out_of_memory_is_exit_8_with_the_way_out(
    models: Models, copy: Copy, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(models.tuned)
    edit(folder / "config.json", vocab_size=600_000)

    def grow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        large = torch.zeros(600_000, 80, dtype=torch.float16)  # 96 MB
        return weights | {"model.embed_tokens.weight": large, "lm_head.weight": large.clone()}

    change_weights(folder, grow)
    load_it = load.load

    def load_with_little_memory(*args: Any, **options: Any) -> Any:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000,) * 2)
        return load_it(*args, **options)

    monkeypatch.setattr(runner, "start", forked.start_here)
    monkeypatch.setattr(generate, "load", load_with_little_memory)
    said = weightsmith("verify", folder, "--smoke", "--device", "cpu")
    assert said.code == 8, said.err
    assert "does not fit into memory [out-of-memory]" in said.err
    assert "try --low-cpu-mem" in said.err
