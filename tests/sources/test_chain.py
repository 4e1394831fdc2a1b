"""A model and deltas in one word are the model that applying them would write."""

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import weightsmith
from tests.support.folders import copied
from weightsmith.errors import (
    DeltaInvalid,
    LinkNotDelta,
    NoBase,
    NotFinite,
    RowsUndecided,
    WrongBase,
)
from weightsmith.sources.kinds import Chain
from weightsmith.sources.links import split
from weightsmith.sources.locate import locate
from weightsmith.sources.recognise import recognise

Weights = dict[str, Tensor]
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def write(folder: Path, weights: Weights) -> Path:
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "step": folder.name}))
    return folder


def first(rng: random.Random) -> Weights:
    torch.manual_seed(rng.randrange(2**31))
    weights = {f"w{i}": (torch.randn(70, 40) * 0.02).to(rng.choice(DTYPES)) for i in range(5)}
    return {**weights, "norm.weight": torch.ones(40), "ids": torch.arange(9)}


def changed(weights: Weights, rng: random.Random) -> Weights:
    """The next step: each tensor the same, a little changed, all changed, other, grown or gone."""
    after: Weights = {}
    for name, tensor in weights.items():
        match rng.choice(["same", "same", "sparse", "all", "low-rank", "raw", "grown", "gone"]):
            case "sparse" if tensor.is_floating_point():
                new = tensor.clone()
                new.view(-1)[rng.randrange(new.numel())] += 1
                after[name] = new
            case "all" if tensor.is_floating_point():
                noise = torch.randn(tensor.shape) * 0.001
                after[name] = (tensor.float() + noise).to(tensor.dtype)
            case "low-rank" if tensor.ndim == 2:
                product = torch.randn(tensor.shape[0], 2) @ torch.randn(2, tensor.shape[1]) * 0.01
                after[name] = (tensor.float() + product).to(tensor.dtype)
            case "raw":
                after[name] = torch.randn(3, 7).to(torch.bfloat16)
            case "grown" if tensor.ndim == 2:
                rows = torch.randn(4, tensor.shape[1]).to(tensor.dtype)
                after[name] = torch.cat([tensor, rows])
            case "gone" if name != "norm.weight":
                continue
            case _:
                after[name] = tensor
    return {**after, f"new{rng.randrange(99)}": torch.randn(8)}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[list[Path], str]]:
    """Models of a random run by its seed, and the chain that gives the last one."""

    def make(seed: int) -> tuple[list[Path], str]:
        folder, rng = tmp_path_factory.mktemp(f"run{seed}"), random.Random(seed)
        weights = first(rng)
        models = [write(folder / "m0", weights)]
        for number in range(1, 5):
            weights = changed(weights, rng)
            models.append(write(folder / f"m{number}", weights))
            weightsmith.make_delta(models[-2], models[-1], folder / f"d{number}")
        links = [models[0], *(folder / f"d{number}" for number in range(1, 5))]
        return models, "+".join(map(str, links))

    return make


Steps = Callable[[int], tuple[list[Path], str]]


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_is_the_model_in_every_command(seed: int, steps: Steps, tmp_path: Path) -> None:
    models, chain = steps(seed)
    assert weightsmith.diff(chain, models[-1]).equal
    assert weightsmith.diff(chain.rpartition("+")[0], models[-2]).equal
    report = weightsmith.verify(chain)
    assert report.passed()
    assert {check.name: check.verdict for check in report.checks}["digests"] == "pass"
    written = weightsmith.convert(chain, tmp_path / "written").target
    assert weightsmith.diff(written, models[-1]).equal
    assert json.loads((written / "config.json").read_text())["step"] == "m4"
    weightsmith.make_delta(models[0], chain, tmp_path / "folded")
    weightsmith.apply_delta(models[0], tmp_path / "folded", target=tmp_path / "unfolded")
    assert weightsmith.diff(tmp_path / "unfolded", models[-1]).equal
    applied = weightsmith.apply_delta(models[0], chain.split("+")[1:], target=tmp_path / "applied")
    raw = (models[-1] / "model.safetensors").read_bytes()
    assert (applied.target / "model.safetensors").read_bytes() == raw
    with weightsmith.open_checkpoint(chain) as opened:
        for name, tensor in opened.iter_tensors():
            stored = weightsmith.open_checkpoint(models[-1])[name].torch()
            assert torch.equal(tensor, stored)


def test_a_link_that_was_made_for_another_base_is_named(steps: Steps) -> None:
    models, chain = steps(0)
    base, one, two, *_ = chain.split("+")
    for wrong in (f"{base}+{two}", f"{models[2]}+{one}", f"{base}+{one}+{one}"):
        with pytest.raises(WrongBase) as caught:
            weightsmith.diff(wrong, models[-1])
        assert caught.value.exit_code == 7
        assert wrong.rpartition("+")[0] in str(caught.value)
        assert caught.value.context[0] == f"the delta is {wrong.rpartition('+')[2]}"


def test_of_deltas_in_the_wrong_order_the_one_that_does_not_fit_is_named_alone(
    steps: Steps, tmp_path: Path
) -> None:
    base, one, two, *_ = steps(0)[1].split("+")
    with pytest.raises(WrongBase) as caught:
        weightsmith.apply_delta(base, [two, one], target=tmp_path / "out")
    named = [line for line in caught.value.context if line.startswith("the delta is ")]
    assert named == [f"the delta is {two}"]


def test_what_is_no_delta_is_no_link(steps: Steps) -> None:
    models, _ = steps(0)
    with pytest.raises(LinkNotDelta, match="not a delta but a model") as caught:
        weightsmith.diff(f"{models[0]}+{models[1]}", models[1])
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_hundreds_of_links_are_no_deeper_than_one(rounds: int, tmp_path: Path) -> None:
    weights = {"w": torch.zeros(64, 32, dtype=torch.bfloat16)}
    steps = [write(tmp_path / "m0", weights)]
    links = [str(steps[0])]
    for number in range(1, 6):
        weights = {"w": weights["w"].clone()}
        weights["w"][number] = number % 2  # there and back again
        steps.append(write(tmp_path / f"m{number}", weights))
        weightsmith.make_delta(steps[-2], steps[-1], tmp_path / f"d{number}")
        weightsmith.make_delta(steps[-1], steps[-2], tmp_path / f"u{number}")
        links.append(str(tmp_path / f"d{number}"))
    up, down = links[1:], [str(tmp_path / f"u{number}") for number in range(5, 0, -1)]
    chain = "+".join([links[0], *(up + down) * rounds, *up])
    assert chain.count("+") == 10 * rounds + 5
    assert weightsmith.diff(chain, steps[-1]).equal


def test_an_additive_delta_is_a_link_too(vectors: Path, tmp_path: Path) -> None:
    vicuna = vectors / "vicuna_v1_1"
    applied = weightsmith.apply_delta(vicuna / "base", vicuna / "delta", target=tmp_path / "v")
    chain = f"{vicuna / 'base'}+{vicuna / 'delta'}"
    assert weightsmith.diff(chain, applied.target).equal
    folder = vectors / "vicuna_v0"
    with pytest.raises(RowsUndecided):
        weightsmith.diff(f"{folder / 'base'}+{folder / 'delta'}", applied.target)


class TestNames:
    def test_a_directory_of_that_name_wins(
        self, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copied(vectors / "vicuna_v1_1" / "base", tmp_path / "a")
        copied(vectors / "vicuna_v1_1" / "delta", tmp_path / "b")
        copied(vectors / "vicuna_v1_1" / "base", tmp_path / "a+b")
        monkeypatch.chdir(tmp_path)
        assert not isinstance(recognise("a+b"), Chain)
        assert isinstance(recognise("./a+./b"), Chain)
        said: list[str] = []
        locate("a+b", note=said.append)
        locate("a", note=said.append)
        assert said == ["a+b is the directory of that name, not a model with deltas"]

    def test_a_name_with_a_plus_sign_that_could_be_nothing_else_is_no_news(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "c+d").mkdir()
        monkeypatch.chdir(tmp_path)
        said: list[str] = []
        locate("c+d", note=said.append)
        assert not said

    @pytest.mark.parametrize(
        "text, links",
        [
            ("a", ["a"]),
            ("a+b", ["a", "b"]),
            ("c+d", ["c+d"]),
            ("c+d+b", ["c+d", "b"]),
            ("a+c+d", ["a", "c+d"]),
            ("llama-7b+lmsys/vicuna-7b-delta-v1.1", ["llama-7b", "lmsys/vicuna-7b-delta-v1.1"]),
            ("org/a@main+org/b", ["org/a@main", "org/b"]),
            ("org/a@v1.0+build", ["org/a@v1.0+build"]),
            ("nowhere+b", ["nowhere+b"]),
            ("a+", ["a+"]),
        ],
    )
    def test_names_that_hold_a_plus_sign_stay_whole(
        self, text: str, links: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a", "b", "c+d"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path)
        assert split(text) == links


def test_without_a_base_the_delta_says_what_it_is(vectors: Path, tmp_path: Path) -> None:
    folder = copied(vectors / "vicuna_v1_1", tmp_path / "v")
    target = weightsmith.apply_delta(folder / "base", folder / "delta", target=tmp_path / "t")
    weightsmith.make_delta(folder / "base", target.target, tmp_path / "d")
    with pytest.raises(NoBase):
        weightsmith.plan_apply_delta(None, tmp_path / "d", target=tmp_path / "x")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """``a``, a model; ``nan`` and ``sound``, additive deltas, the first with a NaN; ``exact``."""
    zeros, ones = torch.zeros(60, 40), torch.ones(60, 40)
    write(tmp_path / "a", {"w": ones, "norm.weight": torch.ones(40)})
    broken = zeros.clone()
    broken[3, 5] = torch.nan
    write(tmp_path / "nan", {"w": broken, "norm.weight": torch.zeros(40)})
    write(tmp_path / "sound", {"w": ones, "norm.weight": torch.zeros(40)})
    write(tmp_path / "b", {"w": 2 * ones, "norm.weight": torch.ones(40)})
    weightsmith.make_delta(tmp_path / "a", tmp_path / "b", tmp_path / "exact", portable=True)
    return tmp_path


def test_what_is_no_number_in_an_inner_delta_is_refused_by_its_name(spoilt: Path) -> None:
    a, nan, sound = spoilt / "a", spoilt / "nan", spoilt / "sound"
    out = spoilt / "out"
    for run in (
        partial(weightsmith.apply_delta, a, [nan, sound], target=out),
        partial(weightsmith.convert, f"{a}+{nan}", out),
        partial(weightsmith.convert, f"{a}+{nan}+{sound}", out),
    ):
        with pytest.raises(NotFinite) as caught:
            run(options=weightsmith.Options())
        assert str(nan) in str(caught.value)
        assert caught.value.context == ("w holds 1 NaN",)
        assert not out.exists()
        done = run(options=weightsmith.Options(allow_nonfinite=True))
        assert any(f"delta {nan} holds" in doubt for doubt in done.doubts)
        shutil.rmtree(out)


def test_what_an_exact_delta_makes_is_proved_below_a_delta_that_says_no_digests(
    spoilt: Path,
) -> None:
    chain = f"{spoilt / 'a'}+{spoilt / 'exact'}+{spoilt / 'sound'}"
    with weightsmith.open_checkpoint(chain) as opened:
        assert torch.equal(dict(opened.iter_tensors())["w"], 3 * torch.ones(60, 40))
    with weightsmith.open_checkpoint(chain) as opened:
        file = spoilt / "a" / "model.safetensors"
        raw = bytearray(file.read_bytes())
        raw[-3] ^= 1  # after the base was glanced at
        file.write_bytes(raw)
        with pytest.raises(WrongBase):
            list(opened.iter_tensors())


def test_a_delta_of_ours_with_what_is_no_number_is_refused_in_a_chain_too(spoilt: Path) -> None:
    broken = torch.ones(60, 40)
    broken[1, 1] = torch.inf
    write(spoilt / "inf", {"w": broken, "norm.weight": torch.ones(40)})
    weightsmith.make_delta(spoilt / "a", spoilt / "inf", spoilt / "ours", codec="add")
    with pytest.raises(NotFinite, match="ours"):
        weightsmith.convert(f"{spoilt / 'a'}+{spoilt / 'ours'}", spoilt / "out")


@pytest.mark.parametrize("broken", ["base", "first", "second"])
def test_the_link_that_is_damaged_is_named(broken: str, tmp_path: Path) -> None:
    """Its bytes are others after the chain was opened, and it decodes all the same."""
    weights = {"w": torch.randn(300, 300).bfloat16()}
    steps = [write(tmp_path / "m0", weights)]
    for number in range(1, 4):
        weights = {"w": torch.randn(300, 300).bfloat16()}
        steps.append(write(tmp_path / f"m{number}", weights))
        weightsmith.make_delta(steps[-2], steps[-1], tmp_path / f"d{number}", portable=True)
    links = {"base": steps[0], "first": tmp_path / "d1", "second": tmp_path / "d2"}
    chain = "+".join(map(str, [steps[0], *(tmp_path / f"d{number}" for number in (1, 2, 3))]))
    with weightsmith.open_checkpoint(chain) as opened:
        (file,) = links[broken].glob("*.safetensors")
        raw = bytearray(file.read_bytes())
        raw[-9] ^= 1
        file.write_bytes(raw)
        with pytest.raises((WrongBase, DeltaInvalid)) as caught:
            list(opened.iter_tensors())
    told = f"{caught.value} {caught.value.hint_text}"
    assert str(links[broken]) in told
    assert not any(str(other) in told for name, other in links.items() if name != broken)
