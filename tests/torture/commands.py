"""Every command that writes, with what it needs: one row each.

A row is all that the rest knows of a command. What must hold after any disturbance follows from
what the area holds before the command and after an undisturbed run of it (`judge.py`).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.delta_models import SIDECARS, trained, weights
from tests.support.folders import copied, write_model
from tests.support.hub.cache_maker import Maker
from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import BLANK_TOKENS, document, write
from tests.torture.bench import WHO, Bench

SHARDS: Final = ("--max-shard-size", "30KB", "--workers", "2")
VERSION: Final = "weight_v000001"
REPO: Final = f"{WHO}/thing-delta"


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, and how its world is set up."""

    name: str
    line: Sequence[str]
    """Words; ``{in}`` is the folder of its inputs, and it runs in the area."""
    prepare: Callable[[Bench, Path, Path], None]
    """Fills the folder of inputs and the area; may run commands of its own there."""
    whole: str = "out"
    """The entry of the area that is there as before or as afterwards, whole. Of others that the
    command changes the same holds one by one; where this is empty, of all.
    """
    remote: str = ""
    """A repository of the hub that it writes to."""
    for_later: str = ""
    """What of its work it may leave to another command: an expression of paths."""
    slow: bool = False
    """It takes seconds, so a sample has few cases of it."""

    def words(self, bench: Bench) -> list[str]:
        """The command line as it is run."""
        inputs = f"../inputs/{self.name}"
        return [word.replace("{in}", inputs) for word in self.line]


def _vicuna(_: Bench, inputs: Path, __: Path) -> None:
    for side in ("base", "delta", "target"):
        copied(VECTORS / "vicuna_v1_1" / side, inputs / side, tokenizer=False)
    (inputs / "target" / "expected.safetensors").rename(inputs / "target" / "model.safetensors")


def _vicuna_and_predecessor(bench: Bench, inputs: Path, area: Path) -> None:
    _vicuna(bench, inputs, area)
    (area / "out" / "notes").mkdir(parents=True)
    (area / "out" / "notes" / "mine.txt").write_text("not weightsmith's")
    (area / "out" / "model-00001-of-00005.safetensors").write_text("of the same name")


def _exact(bench: Bench, inputs: Path, area: Path) -> None:
    _vicuna(bench, inputs, area)
    sides = [word.replace("{in}", str(inputs)) for word in _PAIR]
    made = bench.run(["make-delta", *sides, "--delta", f"{inputs}/exact"])
    if made.exit:
        raise RuntimeError(made.said)


def _plan(bench: Bench, inputs: Path, area: Path) -> None:
    _shares(bench, inputs, area, made=())


def _shares(
    bench: Bench, inputs: Path, area: Path, *, made: Sequence[str] = ("1/2", "2/2")
) -> None:
    _vicuna(bench, inputs, area)
    line = [word.replace("{in}", str(inputs)) for word in (*_APPLY, *_VERBATIM)]
    shares = [("run-plan", "plan.json", "--partition", each) for each in made]
    for words in ([*line, "--save-plan", "plan.json"], *shares):
        ended = bench.run(words)
        if ended.exit:
            raise RuntimeError(ended.said)
    for path in [*bench.area.glob("plan.json"), *bench.area.glob(".out.*")]:
        path.rename(area / path.name)


def _lora(_: Bench, inputs: Path, __: Path) -> None:
    for side in ("base", "adapter"):
        shutil.copytree(VECTORS / "lora" / "plain_fp16" / side, inputs / side)


def _merged(_: Bench, inputs: Path, __: Path) -> None:
    shapes = {"self_attn.q_proj": (96, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128)}
    base = {
        f"model.layers.{n}.{name}.weight": weights(*shape, seed=10 * n + len(name))
        for n in range(3)
        for name, shape in shapes.items()
    }
    steps = {
        name: weights(w.shape[0], 2, seed=7).float() @ weights(2, w.shape[1], seed=8).float()
        for name, w in base.items()
    }
    target = {name: (w.float() + steps[name]).to(w.dtype) for name, w in base.items()}
    write_model(inputs / "base", base, shards=2)
    write_model(inputs / "target", target, shards=2)


def _meta(_: Bench, inputs: Path, __: Path) -> None:
    folder = copied(VECTORS / "meta_llama1_2shards" / "meta" / "13B", inputs / "meta")
    (folder / "tokenizer.model").unlink(missing_ok=True)


def _training(_: Bench, inputs: Path, __: Path) -> None:
    shutil.copytree(VECTORS / "training" / "dcp_plain_w4" / "ckpt", inputs / "ckpt")


def _pair(_: Bench, inputs: Path, __: Path) -> None:
    base = {f"model.layers.{n}.up.weight": weights(60, 50, seed=n) for n in range(8)}
    write_model(inputs / "base", base, shards=2, suffix="bin")
    write_model(inputs / "target", {n: trained(t) for n, t in base.items()}, shards=2)
    for name, content in SIDECARS.items():
        (inputs / "target" / name).write_bytes(content)


def _whole_files(_: Bench, inputs: Path, __: Path) -> None:
    for side in ("base", "delta"):
        shutil.copytree(VECTORS / "oasst_xor" / side, inputs / side)


def _old_config(_: Bench, __: Path, area: Path) -> None:
    shutil.copytree(VECTORS / "skew" / "eos-lacks-turn-end" / "broken", area / "model")


def _old_tokenizer(_: Bench, __: Path, area: Path) -> None:
    files = {
        "tokenizer.model": (VECTORS / "sp.model").read_bytes(),
        "config.json": document({"model_type": "llama", "pad_token_id": -1}),
        "tokenizer_config.json": document({"tokenizer_class": "LLaMATokenizer", **BLANK_TOKENS}),
    }
    write(area / "model", files)


def _tokenizer_elsewhere(bench: Bench, inputs: Path, _: Path) -> None:
    _old_tokenizer(bench, inputs, inputs)


def _repository(bench: Bench, inputs: Path, area: Path) -> None:
    _pair(bench, inputs, area)
    bench.hub.repos.clear()
    bench.hub.add("org/model", inputs / "target")


def _damaged(bench: Bench, inputs: Path, area: Path) -> None:
    _vicuna(bench, inputs, area)
    made = bench.run([word.replace("{in}", str(inputs)) for word in (*_APPLY, *_VERBATIM)])
    if made.exit:
        raise RuntimeError(made.said)
    (bench.area / "out").rename(area / "model")
    first, second, *_ = sorted((area / "model").glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.write_bytes(second.read_bytes()[:10])
    (area / "model" / "config.json").unlink()


def _damaged_delta(bench: Bench, inputs: Path, area: Path) -> None:
    """Its manifest is changed too, and says its own digest still."""
    _exact(bench, inputs, area)
    delta = (inputs / "exact").rename(area / "delta")
    for path in delta.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    (delta / "config.json").unlink()
    manifest = delta / "weightsmith.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"verb": "make-', b'"verb": "m4ke-'))


def _cache(_: Bench, __: Path, area: Path) -> None:
    maker = Maker(area / "cache" / "hub", now=1_700_000_000)
    for name in ("one", "two", "three"):
        files = {"config.json": b"{}", "model.safetensors": maker.raw(20_000)}
        maker.revision(f"org/{name}", files, ref="main", used=len(name))
    maker.leftover("org/one", "abc.incomplete", 5_000)


_PAIR: Final = ("--base", "{in}/base", "--target", "{in}/target")
_APPLY: Final = ("apply-delta", "--base", "{in}/base", "--delta", "{in}/delta", "--target", "out")
_MAKE: Final = ("make-delta", *_PAIR, "--delta", "out", "--workers", "2")
_PUSH: Final = (*_MAKE, "--base-id", "org/base@0123abc", "--hub-repo-id", REPO, "-y")
_VERBATIM: Final = (*SHARDS, "--no-repair")

COMMANDS: Final = (
    Command("apply", (*_APPLY, *_VERBATIM), _vicuna),
    Command("overwrite", (*_APPLY, *_VERBATIM, "--overwrite"), _vicuna_and_predecessor),
    Command("make", _MAKE, _vicuna),
    Command("make-add", (*_MAKE, "--codec", "add"), _vicuna),
    Command(
        "make-version",
        ("make-delta", *_PAIR, "--delta", VERSION, "--format", "disk-delta"),
        _vicuna,
        whole=VERSION,
    ),
    Command(
        "restore",
        ("apply-delta", "--base", "{in}/base", "--delta", "{in}/exact", "--target", "out"),
        _exact,
    ),
    Command("files", _APPLY, _whole_files),
    Command(
        "merge",
        ("merge-lora", "--base", "{in}/base", "--lora", "{in}/adapter", "-o", "out", *_VERBATIM),
        _lora,
    ),
    Command("convert", ("convert", "{in}/base", "out", *_VERBATIM), _pair),
    Command("convert-meta", ("convert", "{in}/meta", "out", *SHARDS), _meta),
    Command("convert-training", ("convert", "{in}/ckpt", "out", *SHARDS), _training),
    Command(
        "combine",
        ("combine", "0.5*{in}/base + 0.5*{in}/target", "out", *_VERBATIM),
        _pair,
    ),
    Command(
        "extract",
        ("extract-lora", *_PAIR, "-o", "out"),
        _merged,
    ),
    Command(
        "run-share",
        ("run-plan", "plan.json", "--partition", "1/2"),
        _plan,
        whole="",
        for_later=r"\.out\.weightsmith-partial/(shares/.+|.*\.weightsmith-\w+\.tmp)",
    ),
    Command("run-plan", ("run-plan", "plan.json", "--finish"), _shares),
    Command("fix-config", ("fix-tokenizer", "model"), _old_config, whole=""),
    Command("fix-tokenizer", ("fix-tokenizer", "model"), _old_tokenizer, whole="", slow=True),
    Command(
        "fix-files",
        ("verify", "model", "--fix", "--from", "{in}/base+{in}/delta", "--workers", "2"),
        _damaged,
        whole="",
    ),
    Command(
        "fix-delta",
        ("verify", "delta", "--fix", "--from", "{in}/target", "--base", "{in}/base"),
        _damaged_delta,
        whole="",
        slow=True,
    ),
    Command(
        "fix-elsewhere",
        ("fix-tokenizer", "{in}/model", "--local-copy", "out"),
        _tokenizer_elsewhere,
        slow=True,
    ),
    Command("download", ("download", "org/model"), _repository, whole=""),
    Command("download-folder", ("download", "org/model", "-o", "out"), _repository, whole=""),
    Command("push", _PUSH, _pair, remote=REPO),
    Command(
        "clean-cache",
        ("clean-cache", "--older-than", "1d", "--by", "modified", "--keep", "org/two", "-y"),
        _cache,
        whole="",
        # Killed while it deletes, it may leave the folders of what has no byte any more.
        for_later=r"cache/hub/models--org--(one|three)(/(refs(/main)?|snapshots(/\w+)?|blobs))?",
    ),
)
