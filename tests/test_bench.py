"""The benchmark measures what it says, in the order it says."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench import bench, build, models, peers, report, trained
from tests.bench.contest import Contest, hold, spread
from tests.bench.measure import Command, CommandFailed, Measurement, run
from tests.bench.report import Goal
from tests.bench.rivals.xor_blocks import combine
from tests.bench.section import Findings, Section, Setup, WrongResult
from tests.bench.sections import deltas
from tests.support.file_releases import xor
from tests.support.paths import ROOT

MIB = 1 << 20
SMALL = models.Size("small", hidden=64, intermediate=256, layers=2, heads=4, vocab=448)


def python(code: str, *makes: Path, name: str = "python") -> Command:
    return Command(name, [sys.executable, "-c", code], makes=makes)


def took(wall_s: float, written: int | None = 0) -> Measurement:
    return Measurement(wall_s, 1.0, 10 * MIB, 0, written)


def test_the_measuring_process_imports_nothing_heavy() -> None:
    code = (
        "import sys, tests.bench.bench; "
        "print({'torch', 'numpy', 'safetensors', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"


def test_peak_memory_cpu_and_bytes_are_those_of_the_child(tmp_path: Path) -> None:
    allocate = f"import os; x = os.urandom({64 * MIB}); open('written', 'wb').write(x)"
    # In a process of its own: this one has torch in it, which its children would seem to need.
    measure = (
        "import dataclasses, json, sys; from pathlib import Path; "
        "from tests.bench.measure import Command, run; "
        "command = lambda code: Command('python', [sys.executable, '-c', code]); "
        f"done = [run(command(code), Path('log')) for code in ('pass', {allocate!r})]; "
        "print(json.dumps([dataclasses.asdict(each) for each in done]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", measure],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lean, busy = (Measurement(**each) for each in json.loads(printed.stdout))
    assert lean.peak_bytes < 24 * MIB
    assert 64 * MIB < busy.peak_bytes < 88 * MIB
    assert lean.cpu_s < busy.cpu_s < busy.wall_s + 0.05
    if sys.platform == "linux":
        assert lean.written_bytes is not None
        assert busy.written_bytes is not None
        # A first reader writes too: when that was. What stays in memory is not written.
        expected = 0 if report.file_system(tmp_path) == "tmpfs" else 64 * MIB
        assert abs(busy.written_bytes - lean.written_bytes - expected) < MIB


def test_a_failing_command_stops_the_benchmark_and_its_output_is_kept(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with status 3"):
        run(python("print('no such model'); raise SystemExit(3)"), tmp_path / "log")
    assert "no such model" in (tmp_path / "log").read_text()


@pytest.fixture(autouse=True)
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each sync, which does not happen: the disk is full of what other tests write."""
    found: list[None] = []
    monkeypatch.setattr(os, "sync", lambda: found.append(None))
    return found


def test_commands_take_turns_with_a_clear_floor(tmp_path: Path, syncs: list[None]) -> None:
    order = tmp_path / "order"
    made = [tmp_path / "a-made", tmp_path / "b-made"]
    code = (
        f"import os; from pathlib import Path; made = [Path(p) for p in {[*map(str, made)]}]; "
        "assert not any(p.exists() for p in made), 'left over'; made[{0}].mkdir(); "
        f"open({str(order)!r}, 'a').write('{{1}}')"
    )
    commands = [python(code.format(i, name), made[i], name=name) for i, name in enumerate("ab")]
    told: list[str] = []
    checks: list[bool] = []
    contest = hold(
        "title",
        commands,
        2,
        tmp_path / "log",
        tell=told.append,
        check=lambda: checks.append(made[0].exists()),
    )
    assert order.read_text() == "ababab"
    assert len(syncs) == 6
    assert checks == [True]
    assert [line.split("  ")[0] for line in told] == [
        "title: warm-up",
        "title: round 1 of 2",
        "title: round 2 of 2",
    ]
    assert (contest.names, [len(done) for done in contest.rounds]) == (("a", "b"), [2, 2])
    assert not any(path.exists() for path in made)


def test_ratios_are_taken_round_by_round() -> None:
    rounds = [(took(1.0), took(2.0)), (took(9.0), took(10.0)), (took(4.0), took(5.0))]
    contest = Contest("t", ("ours", "theirs"), rounds)
    ratio = contest.ratio("wall_s")
    assert (ratio.median, ratio.low, ratio.high) == (0.8, 0.5, 0.9)
    assert contest.spread(0, "wall_s").median == 4.0


def test_what_the_system_does_not_tell_is_shown_as_nan() -> None:
    contest = Contest("t", ("ours",), [(took(1.0, None),)])
    assert contest.values(0, "written_bytes") == []
    assert report.table([contest]).splitlines()[-1].endswith(" nan")
    assert spread([]).median != spread([]).median


def test_the_table_shows_median_and_extremes() -> None:
    rounds = [(took(1.0), took(2.0)), (took(1.5), took(2.0)), (took(1.25), took(2.5))]
    lines = report.table([Contest("bin", ("ours", "cp"), rounds)]).splitlines()
    assert [line.split()[:3] for line in lines if "-" in line] == [
        ["ours", "1.25", "(1.00-1.50)"],
        ["cp", "2.00", "(2.00-2.50)"],
        ["ours", "/", "theirs"],
    ]


def test_goals_are_bounds_from_above_or_from_below() -> None:
    goals = [
        Goal("time", 0.5, 1.0),
        Goal("memory", 321.0, 320.0),
        Goal("speed", 0.4, 0.35, is_floor=True),
        Goal("speed", 0.3, 0.35, is_floor=True),
    ]
    assert [line.split() for line in report.verdicts(goals).splitlines()] == [
        ["met", "time", "0.5", "at", "most", "1"],
        ["MISSED", "memory", "321", "at", "most", "320"],
        ["met", "speed", "0.4", "at", "least", "0.35"],
        ["MISSED", "speed", "0.3", "at", "least", "0.35"],
    ]


def test_the_json_document_holds_every_round() -> None:
    contest = Contest("bin", ("ours",), [(took(1.0),), (took(2.0),)])
    goals = [Goal("time", 0.5, 1.0)]
    document = report.document("a machine", [contest], goals, {"exact": {"cases": []}})
    again = json.loads(json.dumps(document))
    assert [done[0]["wall_s"] for done in again["contests"][0]["rounds"]] == [1.0, 2.0]
    goal = {"what": "time", "found": 0.5, "limit": 1.0, "is_floor": False, "met": True}
    assert again["goals"] == [goal]
    assert again["exact"] == {"cases": []}


# --- inputs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with every kind of input that a section asks for, in a small size."""
    folder = tmp_path_factory.mktemp("work")
    asked = [kinds for section in bench.SECTIONS.values() for kinds in section.inputs.values()]
    kinds = sorted(set().union(*asked))
    build.build(folder, SMALL, kinds)
    assert not build.missing(folder, SMALL, kinds)
    return folder


@pytest.mark.slow
def test_both_formats_hold_the_same_tensors(work: Path) -> None:
    from tests.support.tiny import read_weights

    weights = read_weights(models.folder(work, SMALL, "base-safetensors"))
    assert sum(tensor.nbytes for tensor in weights.values()) == SMALL.nbytes
    again = read_weights(models.folder(work, SMALL, "base-bin"))
    assert weights.keys() == again.keys()
    assert all(again[name].equal(weights[name]) for name in weights)


@pytest.mark.slow
def test_a_wrong_result_is_noticed(work: Path) -> None:
    base, target = (
        models.folder(work, SMALL, f"{side}-safetensors") for side in ("base", "target")
    )
    assert not models.differing(target, SMALL, "target")
    assert models.differing(base, SMALL, "target") == [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    ]


@pytest.mark.slow
def test_weightsmith_makes_of_each_input_what_the_benchmark_expects(
    work: Path, tmp_path: Path
) -> None:
    from weightsmith.ops.apply_delta import apply_delta
    from weightsmith.ops.convert import convert
    from weightsmith.ops.merge_lora import merge_lora

    def built(kind: str) -> Path:
        return models.folder(work, SMALL, kind)

    apply_delta(built("base-bin"), built("delta-bin"), target=tmp_path / "sum")
    assert not models.differing(tmp_path / "sum", SMALL, "target")
    convert(built("base-meta"), tmp_path / "converted")
    assert not models.differing(tmp_path / "converted", SMALL, "base")
    merge_lora(built("base-safetensors"), [built("adapter")], target=tmp_path / "merged")
    assert not models.differing(tmp_path / "merged", SMALL, "merged")
    assert models.differing(tmp_path / "merged", SMALL, "base")
    merge_lora(built("experts"), [built("experts-adapter")], target=tmp_path / "mixture")
    assert not trained.differing(tmp_path / "mixture", SMALL, "experts")
    assert trained.differing(built("experts"), SMALL, "experts")
    convert(built("base-fp8"), tmp_path / "floats", dequantize=True)
    assert not trained.differing(tmp_path / "floats", SMALL, "fp8")
    apply_delta(built("base-bin"), built("delta-xor"), target=tmp_path / "out" / "target")
    setup(tmp_path).check_files(built("delta-bin"))()
    (tmp_path / "out" / "target" / "config.json").unlink()
    with pytest.raises(WrongResult, match=r"config\.json"):
        setup(tmp_path).check_files(built("delta-bin"))()


@pytest.mark.parametrize("nbytes", [0, 4095, 4096, 9000, 20000])
def test_the_loop_over_blocks_pads_the_base_with_zeros_or_cuts_it(nbytes: int) -> None:
    payload, base, out = os.urandom(9000), os.urandom(nbytes), io.BytesIO()
    combine(io.BytesIO(payload), io.BytesIO(base), out)
    assert out.getvalue() == xor(payload, base)


# --- sections -------------------------------------------------------------------------------------


def setup(work: Path) -> Setup:
    return Setup(work, rounds=1, peer_rounds=1, with_peers=False, quick=True)


def test_without_peers_nothing_is_measured_that_needs_them() -> None:
    alone = [each.name for each in bench.select([], with_peers=False)]
    assert alone[:3] == ["copy", "xor", "exact"]
    assert alone[3:] == ["training", "fold", "thirty", "tensors", "bases", "step", "scale", "nodes"]
    assert bench.select([], with_peers=True) == list(bench.SECTIONS.values())
    asked = bench.select(["convert", "merge-lora"], with_peers=True)
    assert [each.name for each in asked] == ["merge-lora", "convert"]


def test_every_environment_is_pinned() -> None:
    named = {name for section in bench.SECTIONS.values() for name in section.environments}
    assert named == peers.ENVIRONMENTS.keys()
    assert all("==" in each for wanted in peers.ENVIRONMENTS.values() for each in wanted)


def test_too_small_a_disk_is_noticed_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Setup(tmp_path, rounds=1, peer_rounds=1, with_peers=False, quick=False)
    section = bench.SECTIONS["convert"]
    needed = 3 * models.SIZES["third"].nbytes
    for free, enough in ((needed, True), (needed - 1, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        if enough:
            bench.require_disk(full, [section])
        else:
            with pytest.raises(SystemExit, match="not enough disk"):
                bench.require_disk(full, [section])
    assert "needs 4.0 GB more" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_section_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(setup: Setup) -> Findings:
        raise WrongResult("one bit is wrong")

    def succeed(setup: Setup) -> Findings:
        return Findings([Contest("second", ("ours",), [(took(1.0),)])], tables=["a table"])

    finders = {"first": fail, "second": succeed}
    inputs = {"full": ()}
    sections = {name: Section(name, "", inputs, find) for name, find in finders.items()}
    monkeypatch.setattr(bench, "SECTIONS", sections)
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--dir", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="first: one bit is wrong"):
        bench.main()
    shown = capsys.readouterr().out
    assert "second (rounds: 1)" in shown
    assert "a table" in shown


@pytest.mark.parametrize("others", [0, 1, 2])
def test_each_rival_is_met_in_a_contest_of_its_own(others: int, tmp_path: Path) -> None:
    commands = [python("pass", name=str(number)) for number in range(1 + others)]
    contests = deltas.in_pairs("make", commands, setup(tmp_path))
    names = [["0", str(1 + number)] for number in range(others)] or [["0"]]
    assert [[*contest.names] for contest in contests] == names


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.bench.bench", "--quick"]
    arguments = ["--dir", str(tmp_path / "work"), "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads((tmp_path / "figures.json").read_text())
    titles = [each["title"] for each in found["contests"]]
    modes = ("default flags", "--low-cpu-mem")
    copies = [f"apply-delta, {kind}, {mode}" for kind in build.FORMATS for mode in modes]
    assert titles[:6] == ["start", *copies, "apply-delta, XOR release"]
    others = [*dict.fromkeys(title.split(",")[0] for title in titles[6:])]
    assert others[:2] == ["make-delta", "apply-delta"]
    assert all(title in done.stdout for title in titles)
    sizes = {each["case"]: each["ours"] for each in found["exact"]["cases"]}
    assert sizes["BF16, 1 % changed"] < 1 / 30 < 1 < sizes["BF16, unrelated bits"] < 1.001
    assert 0.4 < found["exact"]["model"][0]["size"] < 0.6
    assert not [*(tmp_path / "work" / "out").rglob("*.safetensors")]
