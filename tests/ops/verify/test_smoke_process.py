"""A smoke test runs nothing but what transformers itself has, and reaches nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.story_models import Copy, Models, edit
from weightsmith.errors import ModelNotRunnable, OutOfMemory
from weightsmith.ops.verify.smoke import Settings, smoke
from weightsmith.smoke import runner
from weightsmith.smoke.allowed import safe_config, safe_settings
from weightsmith.smoke.closed import closed_environment

SHORT = Settings(max_new_tokens=2)
STUB = """
import sys
from pathlib import Path

Path(__file__).with_name("calls").open("a").write("imported\\n")

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    def call(*args, **options):
        Path(__file__).with_name("calls").open("a").write(f"{name} {args} {options}\\n")
        return call
    return call
"""
"""A package that notes whoever imports it, and whatever is asked of it."""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked of a `kernels` that is installed for every process to come."""
    place = tmp_path / "site"
    (place / "kernels").mkdir(parents=True)
    (place / "kernels" / "__init__.py").write_text(STUB)
    facts = place / "kernels-0.18.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.5\n")
    monkeypatch.setenv("PYTHONPATH", str(place))
    return place / "kernels" / "calls"


@pytest.mark.slow
@pytest.mark.fresh
def test_no_setting_makes_a_process_fetch_or_import_anything(
    models: Models, copy: Copy, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(models.result)
    ran = tmp_path / "ran"
    evil = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass X: pass\n"
    (folder / "modeling_x.py").write_text(evil)
    (folder / "transformers.py").write_text(evil)
    monkeypatch.chdir(folder)
    chosen = {
        "_attn_implementation": "org/kernel@rev",
        "_attn_implementation_internal": "org/kernel@rev",
        "attn_implementation": "org/kernel@rev",
        "_experts_implementation": "org/kernel@rev",
        "experts_implementation": "org/kernel@rev",
        "use_kernels": True,
        "kernel_config": {"kernel_mapping": {"RMSNorm": "org/kernel:Layer"}},
        "auto_map": {"AutoConfig": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.X"},
        "some_future_path": "https://example.org/code",
    }
    edit(folder / "config.json", **chosen)
    edit(folder / "generation_config.json", custom_generate="org/generate", cache="org/cache")
    did, checks = smoke(folder, SHORT)
    assert did is not None
    assert {check.verdict for check in checks} == {"pass"}
    told = next(check.details[0] for check in checks if check.name == "config")
    left = [name for name in chosen if name != "kernel_config"]
    assert all(name in told for name in (*left, "kernel_config.kernel_mapping.RMSNorm"))
    assert not calls.exists(), calls.read_text()
    assert not ran.exists()


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes", "org/quantiser"])
def test_a_quantised_model_is_not_run(models: Models, copy: Copy, method: str) -> None:
    folder = copy(models.result)
    edit(folder / "config.json", quantization_config={"quant_method": method})
    did, checks = smoke(folder, SHORT)
    assert did is None
    assert [check.verdict for check in checks] == ["not checked"]
    assert "is quantised" in checks[0].details[0]


def test_a_setting_that_matters_and_cannot_be_handed_on_is_named(
    models: Models, copy: Copy
) -> None:
    """Its default would make another model."""
    folder = copy(models.result)
    edit(folder / "config.json", hidden_size="80")
    did, checks = smoke(folder, SHORT)
    assert did is None
    assert checks[0].verdict == "FAIL"
    assert "hidden_size in its config is no value that may be handed on" in checks[0].details[0]


def test_settings_of_published_models_are_handed_on_whole(vectors: Path) -> None:
    published = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
        "eos_token_id": [128001, 128009],
        "layer_types": ["full_attention", "sliding_attention"],
        "attention_types": [[["global", "local"], 12]],
        "hybrid_override_pattern": "M-M*-",
        "linear_conv_kernel_dim": 4,
        "text_config": {"model_type": "qwen3", "vocab_size": 7, "mlp_only_layers": []},
        "ffn_config": {"ffn_act_fn": {"name": "gelu"}},
        "time_step_rank": "auto",
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    assert safe_config(published) == (published, ())
    for path in vectors.rglob("config.json"):
        raw = path.read_bytes()
        if raw.startswith(b"{"):  # else it is a delta of one
            config = json.loads(raw)
            left = [name for name in safe_config(config)[1] if "._" not in name]  # private ones
            assert set(left) <= {"auto_map", "quantization_config"} & config.keys(), path


@pytest.mark.parametrize(
    "value",
    ["org/kernel", "org/kernel@rev", "https://x", "C:\\x", "../x", ["a", "b/c"], {"a": "b"}, "a:b"],
)
def test_no_word_that_could_name_code_passes_under_any_name(value: Any) -> None:
    for name in ("hidden_act", "anything", "text_config", "rope_type"):
        kept, left = safe_config({name: value})
        assert "/" not in json.dumps(kept)
        assert kept in ({}, {name: {}})
        assert len(left) == 1
    assert safe_settings({"auto_map": value, "tokenizer_file": value, "bos_token": "</s>"}) == {
        "bos_token": "</s>"
    }


# --- the process ----------------------------------------------------------------------------------


def test_it_reaches_no_network() -> None:
    code = (
        "import socket, weightsmith.smoke.child as child\n"
        "child.shut_off()\n"
        "def tried(call, *args):\n"
        "    try: call(*args)\n"
        "    except PermissionError: return\n"
        "    raise SystemExit(call)\n"
        "tried(socket.getaddrinfo, 'localhost', 80)\n"
        "tried(socket.create_connection, ('127.0.0.1', 9))\n"
        "tried(socket.socket().connect, ('127.0.0.1', 9))\n"
        "tried(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b'x', ('127.0.0.1', 9))\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('kernels') is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_process_is_given_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in closed_environment().values()
    assert closed_environment()["PATH"] == os.environ["PATH"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is ended by a signal on POSIX only")
@pytest.mark.parametrize("number,error", [(signal.SIGKILL, OutOfMemory), (signal.SIGSEGV, None)])
def test_a_process_that_ends_in_the_middle_is_told_by_how_it_did(
    number: signal.Signals,
    error: type[Exception] | None,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A system without memory kills; native code crashes."""

    def send(self: runner.Runner, checkpoint: object, name: str) -> None:
        os.kill(pids[0], number)

    pids: list[int] = []
    started = runner.start

    def start(scratch: Path) -> runner.Process:
        process = started(scratch)
        kill = process.kill.__closure__
        pids.extend(cell.cell_contents for cell in kill or () if type(cell.cell_contents) is int)
        return process

    monkeypatch.setattr(runner.Runner, "_send_tensor", send)
    monkeypatch.setattr(runner, "start", start)
    if error is not None:
        with pytest.raises(error):
            smoke(models.result, SHORT)
    else:
        did, checks = smoke(models.result, SHORT)
        assert did is None
        assert "its process ended with SIGSEGV" in checks[0].details[0]


def test_what_reading_the_checkpoint_meets_is_told_as_it_is(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: runner.Runner, checkpoint: object, name: str) -> None:
        raise ModelNotRunnable(source="x", reason=f"{name} cannot be read")

    monkeypatch.setattr(runner.Runner, "_send_tensor", cut)
    _, checks = smoke(models.result, SHORT)
    assert "cannot be read" in checks[0].details[0]
