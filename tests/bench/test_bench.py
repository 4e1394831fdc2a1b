"""The benchmark measures what it says, in the order it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import models, report
from tests.bench.contest import Contest, hold, spread
from tests.bench.measure import Command, CommandFailed, Measurement, run
from tests.bench.report import Goal

MIB = 1 << 20
REPOSITORY = Path(__file__).parents[2]


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
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
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
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    lean, busy = (Measurement(**each) for each in json.loads(printed.stdout))
    assert lean.peak_bytes < 24 * MIB
    assert 64 * MIB < busy.peak_bytes < 88 * MIB
    assert lean.cpu_s < busy.cpu_s < busy.wall_s + 0.05
    if sys.platform == "linux":
        assert lean.written_bytes is not None
        assert busy.written_bytes is not None
        assert 64 * MIB <= busy.written_bytes - lean.written_bytes < 65 * MIB


def test_a_failing_command_stops_the_benchmark_and_its_output_is_kept(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with status 3"):
        run(python("print('no such model'); raise SystemExit(3)"), tmp_path / "log")
    assert "no such model" in (tmp_path / "log").read_text()


def test_commands_take_turns_with_a_clear_floor(tmp_path: Path) -> None:
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
    assert report.table([contest], []).splitlines()[-1].endswith(" nan")
    assert spread([]).median != spread([]).median


def test_the_table_shows_median_and_extremes_and_which_goals_are_missed() -> None:
    rounds = [(took(1.0), took(2.0)), (took(1.5), took(2.0)), (took(1.25), took(2.5))]
    goals = [Goal("time", 0.5, 1.0), Goal("memory", 321.0, 320.0)]
    lines = report.table([Contest("bin", ("ours", "cp"), rounds)], goals).splitlines()
    assert [line.split()[:3] for line in lines if "-" in line] == [
        ["ours", "1.25", "(1.00-1.50)"],
        ["cp", "2.00", "(2.00-2.50)"],
        ["ours", "/", "theirs"],
    ]
    assert lines[-2].split() == ["met", "time", "0.5", "at", "most", "1"]
    assert lines[-1].split() == ["MISSED", "memory", "321", "at", "most", "320"]


def test_the_json_document_holds_every_round() -> None:
    contest = Contest("bin", ("ours",), [(took(1.0),), (took(2.0),)])
    document = report.document("a machine", [contest], [Goal("time", 0.5, 1.0)])
    again = json.loads(json.dumps(document))
    assert [done[0]["wall_s"] for done in again["contests"][0]["rounds"]] == [1.0, 2.0]
    assert again["goals"] == [{"what": "time", "found": 0.5, "limit": 1.0, "met": True}]


def test_both_formats_hold_the_same_tensors_and_a_wrong_sum_is_noticed(tmp_path: Path) -> None:
    from tests.tiny import read_weights

    size = models.Size("small", hidden=64, intermediate=96, layers=2, heads=4, vocab=400)
    models.build(tmp_path, size)
    assert not models.missing(tmp_path, size)
    base, delta = models.inputs(tmp_path, size, "safetensors")
    weights = read_weights(base)
    assert sum(tensor.nbytes for tensor in weights.values()) == size.nbytes
    for file_format in models.FORMATS:
        again = read_weights(models.inputs(tmp_path, size, file_format)[0])
        assert all(again[name].equal(weights[name]) for name in weights)
    assert models.sums_differ(base, delta, base) == [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.mlp.down_proj.weight",
    ]


@pytest.mark.slow
def test_the_quick_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.bench.bench", "--quick"]
    arguments = ["--dir", str(tmp_path / "work"), "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    titles = [
        each["title"] for each in json.loads((tmp_path / "figures.json").read_text())["contests"]
    ]
    modes = ("default flags", "--low-cpu-mem")
    assert titles == ["start", *(f"{kind}, {mode}" for kind in models.FORMATS for mode in modes)]
    assert all(title in done.stdout for title in titles)
    assert not [*(tmp_path / "work" / "out").rglob("*.safetensors")]
