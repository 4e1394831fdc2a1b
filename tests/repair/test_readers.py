"""transformers reads repaired folders as sentencepiece does; before the repair it did not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.tokenizer_folders import (
    OLD_TABLE,
    Files,
    ask_transformers,
    changed,
    mended,
    old_folder,
    read,
    write,
)
from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.folder import Folder, read_folder
from weightsmith.repair.proof import PLAIN, Answers, Truth, probes_for_readers, prove_reader
from weightsmith.smoke import tokenizer as smoke

TRUE_HELLO = [314, 265, 323, 323, 322]
"""What sentencepiece makes of "hello" with the vectors' model."""
STUB = b"""
import pathlib
pathlib.Path(__file__).with_suffix(".called").touch()
def __getattr__(name):
    raise AttributeError(name)
"""
"""A package that leaves a trace when it is imported."""
STARTS_WITH_SPACE = re.compile(r"(^|>|\])[ \u2581]")
"""A text, or what follows a special token in it."""
BASES = [
    "alpaca_wdiff",
    "llava_v0",
    "oasst_xor",
    "vicuna_v0",
    "vicuna_v1_1",
    "vicuna_v1_1_base_fp32_lowmem",
]


@pytest.fixture(scope="module")
def repaired(
    tmp_path_factory: pytest.TempPathFactory, vectors: Path, small_model: bytes, large_model: bytes
) -> dict[str, tuple[Path, Folder]]:
    """Repaired folders: the table of old ones, the vectors' bases, one of LLaMA's size."""
    sources: dict[str, Files] = {row: old_folder(row, small_model) for row in OLD_TABLE}
    sources |= {name: read(vectors / name / "base") for name in BASES}
    sources["vicuna_v0-delta"] = read(vectors / "vicuna_v0" / "delta")
    sources["oasst-target"] = read(vectors / "oasst_xor" / "expected")
    sources["32000-pieces"] = old_folder("decapoda", large_model)
    root = tmp_path_factory.mktemp("repaired")
    after = {name: mended(files) for name, files in sources.items()}
    return {name: (write(root / name, f), read_folder(f)) for name, f in after.items()}


def questions(repaired: dict[str, tuple[Path, Folder]]) -> dict[Path, list[str]]:
    return {path: probes_for_readers(folder) for path, folder in repaired.values()}


@pytest.mark.slow
def test_transformers_5_is_wrong_on_old_folders(tmp_path: Path, small_model: bytes) -> None:
    folders = {row: write(tmp_path / row, old_folder(row, small_model)) for row in OLD_TABLE}
    answers = ask_transformers({path: [*PLAIN] for path in folders.values()})
    truth = Truth(read_folder(mended(old_folder("decapoda", small_model))))
    right = [truth.encode(probe) for probe in PLAIN]
    outcome: dict[str, str] = {}
    for row, path in folders.items():
        answer = answers[path]
        if isinstance(answer, str):
            outcome[row] = answer
        elif answer.ids == right:
            outcome[row] = "right"
        elif answer.ids == [ids[1:] for ids in right]:
            outcome[row] = "no BOS"
        else:
            outcome[row] = "other ids"
    assert outcome == {
        "decapoda": "RecursionError",
        "class-renamed-only": "RecursionError",
        "tokens-mended-only": "other ids",
        "tokens-and-bos-mended-only": "other ids",
        "no-bos-rule": "no BOS",
        "no-bos-rule-fast": "no BOS",
        "no-legacy-rule": "right",  # but not after a special token
        "tokenizer-model-alone": "other ids",
    }


def test_transformers_5_reads_every_repaired_folder_as_sentencepiece_does(
    repaired: dict[str, tuple[Path, Folder]],
) -> None:
    asked = questions(repaired)
    answers = ask_transformers(asked)
    for path, folder in repaired.values():
        answer = answers[path]
        assert isinstance(answer, Answers), f"{path.name}: {answer}"
        assert answer.reader.startswith("5.")
        proof = prove_reader(folder, asked[path], answer)
        assert all(STARTS_WITH_SPACE.search(probe) for probe in proof.departures)


@pytest.mark.slow
@pytest.mark.fresh
def test_nothing_in_the_folder_or_the_working_directory_is_run(
    tmp_path: Path, healthy: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    bait = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\nclass Bait: pass\n"
    code = {f"{name}.py": bait.encode() for name in ("bait", "transformers", "json", "tokenizers")}
    mapped = {"auto_map": {"AutoTokenizer": ["bait.Bait", "bait.Bait"]}}
    files = changed(healthy, "tokenizer_config.json", lambda doc: doc.update(mapped))
    folder = write(tmp_path, {**files, **code})
    monkeypatch.chdir(folder)
    assert smoke.ask_transformers(files, ["hello"], tmp_path / "scratch").ids == [[1, *TRUE_HELLO]]
    assert not list(folder.glob("*.ran"))


@pytest.mark.fresh
def test_nothing_that_settings_or_config_name_is_fetched_or_imported(
    tmp_path: Path, healthy: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = write(tmp_path / "stubs", dict.fromkeys(("kernels.py", "evil.py", "triton.py"), STUB))
    monkeypatch.setenv("PYTHONPATH", str(stubs))
    named = {
        "_attn_implementation": "org/kernel@rev",
        "_experts_implementation": "org/kernel@rev",
        "use_kernels": True,
        "auto_map": {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]},
        "quantization_config": {"quant_method": "evil", "code": "evil.py"},
    }
    files = changed(healthy, "config.json", lambda doc: doc.update(named))
    files = changed(files, "tokenizer_config.json", lambda doc: doc.update(named))
    scratch = tmp_path / "scratch"
    assert smoke.ask_transformers(files, ["hello"], scratch).ids == [[1, *TRUE_HELLO]]
    assert not list(stubs.glob("*.called"))
    copied = [(scratch / name).read_text() for name in ("config.json", "tokenizer_config.json")]
    assert not any(key in text for key in named for text in copied)


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
        "import os; os.system('true')",
    ],
)
def test_who_reads_a_tokenizer_reaches_no_network_and_no_program(attempt: str) -> None:
    code = f"import sys; sys.addaudithook(__import__('read_tokenizer')._refuse); {attempt}"
    path = Path(smoke.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in done.stderr


def test_a_folder_that_transformers_cannot_load_is_told_in_its_words(tmp_path: Path) -> None:
    files = {"tokenizer.json": b'{"version": 5}'}
    with pytest.raises(TokenizerUnproved, match=r"transformers does not .*: [\w.]+Error"):
        smoke.ask_transformers(files, ["hello"], tmp_path / "scratch")


@pytest.fixture(scope="module")
def python_with_transformers_4() -> str:
    """An environment of its own, made once beside the usual one."""
    home = ROOT / ".venv-4.57"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = home / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        wanted = ["transformers==4.57.*", "sentencepiece", "protobuf"]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *wanted], check=True)
        ready.touch()
    return str(python)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_transformers_4_reads_every_repaired_folder_as_sentencepiece_does(
    repaired: dict[str, tuple[Path, Folder]], python_with_transformers_4: str, slow: bool
) -> None:
    asked = questions(repaired)
    answers = ask_transformers(asked, python=python_with_transformers_4, slow=slow)
    for path, folder in repaired.values():
        answer = answers[path]
        assert isinstance(answer, Answers), f"{path.name}: {answer}"
        assert answer.reader.startswith("4.57.")
        truth = Truth(folder)
        assert answer.ids == [truth.encode(probe) for probe in asked[path]], path.name
