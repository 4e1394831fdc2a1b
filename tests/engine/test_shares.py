"""An output made in shares is the output of one run, however the shares come and go."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.children import KILLED, Children
from tests.support.delta_models import write_pair
from tests.support.folders import contents, hidden, staging
from tests.support.saved_plans import SHARDS, Shared
from tests.support.world import at_step, flip
from weightsmith import (
    Job,
    Options,
    finish_plan,
    fs,
    make_delta,
    plan_apply_delta,
    plan_combine,
    plan_convert,
    plan_make_delta,
    plan_merge_lora,
    run_share,
)
from weightsmith.engine import receipts
from weightsmith.engine.share import share_of
from weightsmith.errors import (
    MachinesDiffer,
    PlanNotSaved,
    SharesMissing,
    StagingBusy,
    StagingOfAnotherPlan,
    VerificationFailed,
    WeightsmithError,
)


@pytest.fixture
def shared(vectors: Path, tmp_path: Path) -> Shared:
    return Shared(vectors, tmp_path)


@pytest.fixture(scope="module")
def expected(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that one run makes by itself."""
    shared = Shared(vectors, tmp_path_factory.mktemp("alone"))
    shared.job().run()
    return contents(shared.target)


def apply(vectors: Path, target: Path) -> Job:
    vicuna = vectors / "vicuna_v1_1"
    base, delta = vicuna / "base", vicuna / "delta"
    return plan_apply_delta(base, delta, target=target, max_shard_nbytes=SHARDS)


def merge(vectors: Path, target: Path) -> Job:
    vector = vectors / "lora" / "rslora_pattern_fp32"
    loras = [vector / "adapter", vector / "adapter"]
    return plan_merge_lora(vector / "base", loras, target, max_shard_nbytes=SHARDS)


def cast(vectors: Path, target: Path) -> Job:
    base = vectors / "vicuna_v1_1" / "base"
    return plan_convert(base, target, dtype="float32", max_shard_nbytes=SHARDS)


def average(vectors: Path, target: Path) -> Job:
    base = vectors / "vicuna_v1_1" / "base"
    other = target.with_name("other") / "model"
    if not other.exists():
        shutil.copytree(base, other)
    return plan_combine(f"0.25*{base} + 0.75*{other}", target, max_shard_nbytes=SHARDS)


def restore(_: Path, target: Path) -> Job:
    base, delta = exact_delta(target)
    return plan_apply_delta(base, delta, target=target)


def restore_two(_: Path, target: Path) -> Job:
    base, delta = exact_delta(target)
    last = delta.with_name("last")
    if not last.exists():
        make_delta(f"{base}+{delta}", delta.with_name("target"), last)
    return plan_apply_delta(base, [delta, last], target=target)


def convert_chain(_: Path, target: Path) -> Job:
    base, delta = exact_delta(target)
    return plan_convert(f"{base}+{delta}", target, dtype="float16", max_shard_nbytes=1 << 19)


def exact_delta(target: Path) -> tuple[Path, Path]:
    """A base of three files, and an exact delta of it."""
    folder = target.with_name("pair")
    if not folder.exists():
        make_delta(*write_pair(folder, shards=3), folder / "delta")
    return folder / "base", folder / "delta"


def decode(vectors: Path, target: Path) -> Job:
    release = vectors / "oasst_xor"
    return plan_apply_delta(release / "base", release / "delta", target=target)


def join(vectors: Path, target: Path) -> Job:
    ranks = vectors / "training" / "fsdp2_fp32" / "ckpt"
    return plan_convert(ranks, target, max_shard_nbytes=SHARDS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "plan",
    [apply, merge, cast, average, restore, restore_two, convert_chain, decode, join],
)
def test_shares_make_the_bytes_of_one_run(
    plan: Callable[[Path, Path], Job], vectors: Path, tmp_path: Path
) -> None:
    plan(vectors, tmp_path / "alone").run()
    job = plan(vectors, tmp_path / "shared")
    job.save(tmp_path / "plan.json", Options(workers=1))
    count = len(job.plan.shards)
    assert count > 1
    for number in reversed(range(1, count + 1)):
        run_share(tmp_path / "plan.json", f"{number}/{count}")
    outcome = finish_plan(tmp_path / "plan.json")
    assert outcome.manifest.plan == job.plan.digest
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert not hidden(tmp_path)


def test_every_file_is_in_one_share(shared: Shared) -> None:
    plan = shared.job().plan
    for count in range(1, 12):
        shares = [share_of(plan, number, count) for number in range(1, count + 1)]
        assert [n for share in shares for n in share] == [*range(len(plan.shards))]
        assert count > len(plan.shards) or all(shares)


def identities(folder: Path) -> dict[Path, fs.Identity]:
    """Of every file in it: what tells of a write, and nothing that a read changes."""
    return {each: fs.identity_of(each.stat()) for each in folder.rglob("*") if each.is_file()}


def test_a_share_leaves_what_is_finished_as_it_is(shared: Shared) -> None:
    plan = shared.save()
    first = run_share(plan, "1/2")
    before = identities(staging(shared.target))
    again = run_share(plan, "1/2")
    assert (again.made, again.kept) == ((), first.made)
    assert identities(staging(shared.target)) == before


def test_with_too_few_open_files_nothing_that_is_finished_is_lost(
    shared: Shared, expected: dict[str, bytes]
) -> None:
    """A plan or receipt that cannot be read just now is not taken for none."""
    resource = pytest.importorskip("resource", reason="a system without such limits")
    plan = shared.save()
    run_share(plan, "1/1")
    before = {path: path.read_bytes() for path in identities(staging(shared.target))}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    told = set[str]()
    for more in range(40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + more, hard))
        try:
            finish_plan(plan)
            break
        except WeightsmithError as error:
            told.add(error.reference)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for path, content in before.items():
            assert path.read_bytes() == content, (more, path)
    assert "source-unreadable" in told
    assert "staging-busy" not in told
    assert contents(shared.target) == expected


def test_a_published_plan_needs_no_share_any_more(shared: Shared) -> None:
    plan = shared.save()
    run_share(plan, "1/1")
    finish_plan(plan)
    share = run_share(plan, "1/1")
    assert share.published
    assert finish_plan(plan).already_done
    assert not hidden(shared.target.parent)


def test_what_is_not_whole_is_not_published_and_stays(
    shared: Shared, expected: dict[str, bytes]
) -> None:
    plan = shared.save()
    with pytest.raises(SharesMissing) as caught:
        finish_plan(plan)
    assert caught.value.values["count"] == "4"
    assert not hidden(shared.target.parent)  # who only asks leaves nothing
    run_share(plan, "2/4")
    with pytest.raises(SharesMissing) as caught:
        finish_plan(plan)
    names = [f"model-0000{n}-of-00004.safetensors" for n in (1, 3, 4)]
    assert list(caught.value.context) == names
    assert not shared.target.exists()
    for number in (1, 3, 4):
        assert run_share(plan, f"{number}/4").made
    finish_plan(plan)
    assert contents(shared.target) == expected


def test_an_ordinary_run_goes_on_where_shares_ended(
    shared: Shared, expected: dict[str, bytes]
) -> None:
    run_share(shared.save(), "1/2")
    assert shared.job().run().kept == 2
    assert contents(shared.target) == expected


def test_shares_go_on_where_an_ordinary_run_was_killed(
    shared: Shared, children: Children, expected: dict[str, bytes]
) -> None:
    more = {"max_shard_nbytes": SHARDS, "repair": True}
    died = children.apply(shared.base, shared.delta, shared.target, plan=more, die_at_step=12)
    assert died.exit == KILLED
    plan = shared.save()
    share = run_share(plan, "1/1")
    assert share.kept
    finish_plan(plan)
    assert contents(shared.target) == expected


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_share_killed_at_any_durable_step_is_run_again(
    every: int, shared: Shared, children: Children, expected: dict[str, bytes]
) -> None:
    plan = shared.save()
    step = 1
    while (died := children.share(plan, "1/2", die_at_step=step)).exit == KILLED:
        assert not shared.target.exists()
        again = children.share(plan, "1/2")
        assert (again.exit, again.error, again.unknown) == (0, "", "")
        assert not list((staging(shared.target) / "shares").rglob("*.safetensors"))
        run_share(plan, "2/2")
        finish_plan(plan)
        assert contents(shared.target) == expected
        shutil.rmtree(shared.target)
        step += every
    assert step - every <= died.steps < step
    assert died.steps > 10


def test_two_processes_and_a_killed_one_share_a_directory(
    shared: Shared, children: Children, expected: dict[str, bytes]
) -> None:
    """The killed one has begun a file, and left it; two make the same files at the same time."""
    plan = shared.save()
    assert children.share(plan, "1/1", die_at_write=5).exit == KILLED
    begun = list((staging(shared.target) / "shares").rglob("*.safetensors"))
    assert begun
    line = [sys.executable, "-m", "weightsmith", "run-plan", str(plan), "--partition", "1/1"]
    both = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate()[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert not list((staging(shared.target) / "shares").rglob("*.safetensors"))
    finish_plan(plan)
    assert contents(shared.target) == expected


@pytest.mark.parametrize("step", range(4, 20, 3))
def test_whoever_is_overtaken_goes_on_with_what_is_left(
    step: int, shared: Shared, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the same share while this one is at its n-th durable step, and clears
    away what this one had begun.
    """
    plan = shared.save()
    monkeypatch.setattr(fs, "on_durable_step", at_step(step, partial(run_share, plan, "1/2")))
    run_share(plan, "1/1")
    finish_plan(plan)
    assert contents(shared.target) == expected


def test_whose_staging_is_published_by_others_is_done(
    shared: Shared, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = shared.save()

    def overtake() -> None:
        run_share(plan, "1/1")
        finish_plan(plan)

    monkeypatch.setattr(fs, "on_durable_step", at_step(4, overtake))
    run_share(plan, "1/1")
    assert contents(shared.target) == expected
    assert not hidden(shared.target.parent)


def test_whose_staging_is_gone_stops(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = shared.save()
    remove = partial(shutil.rmtree, staging(shared.target))
    monkeypatch.setattr(fs, "on_durable_step", at_step(4, remove))
    with pytest.raises(StagingBusy):
        run_share(plan, "1/1")


def test_two_plans_do_not_share_a_directory(shared: Shared) -> None:
    plan = shared.save()
    run_share(plan, "1/4")
    other = shared.target.parent / "other.json"
    plan_convert(shared.base, shared.target, max_shard_nbytes=SHARDS).save(other)
    with pytest.raises(StagingOfAnotherPlan):
        run_share(other, "1/4")
    (staging(shared.target) / "plan.json").unlink()  # as after an interrupted exchange
    with pytest.raises(StagingOfAnotherPlan, match="no plan"):
        run_share(plan, "2/4")


def test_a_finished_file_that_was_damaged_is_found_and_made_again(
    shared: Shared, expected: dict[str, bytes]
) -> None:
    plan = shared.save()
    run_share(plan, "1/1")
    flip(staging(shared.target) / "output" / "model-00003-of-00004.safetensors")
    with pytest.raises(VerificationFailed) as caught:
        finish_plan(plan)
    assert "run its share again" in caught.value.hint_text
    assert not shared.target.exists()
    share = run_share(plan, "1/1")
    assert share.made == ("model-00003-of-00004.safetensors",)
    finish_plan(plan)
    assert contents(shared.target) == expected


def test_without_locks_shares_are_made_and_finished(
    shared: Shared, children: Children, expected: dict[str, bytes]
) -> None:
    plan = shared.save()
    for number in (1, 2):
        assert children.share(plan, f"{number}/2", absent=["fcntl"]).error == ""
    finish_plan(plan)
    assert contents(shared.target) == expected


def test_products_of_two_types_of_processor_are_not_mixed(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    merge(vectors, tmp_path / "out").save(plan)
    run_share(plan, "1/2")
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "processor", lambda: "x86_64 GenuineElsewhere")
        with pytest.raises(MachinesDiffer) as caught:
            run_share(plan, "2/2")
        assert "x86_64 GenuineElsewhere: this machine" in caught.value.context
        with pytest.raises(SharesMissing):  # who publishes makes no products: any type will do
            finish_plan(plan)


def test_files_of_two_types_of_processor_are_not_published(vectors: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    merge(vectors, tmp_path / "out").save(plan)
    run_share(plan, "1/1")
    left = sorted((tmp_path / ".out.weightsmith-partial" / "receipts").iterdir())
    document = json.loads(left[0].read_bytes())
    document.pop("seal")
    document["machine"] = "aarch64"
    sealed = {**document, "seal": receipts._seal(document)}
    left[0].write_text(json.dumps(sealed))
    with pytest.raises(MachinesDiffer):
        finish_plan(plan)
    assert not (tmp_path / "out").exists()


def test_a_delta_is_made_in_one_process(shared: Shared, tmp_path: Path) -> None:
    job = plan_make_delta(shared.base, shared.delta, tmp_path / "made")
    with pytest.raises(PlanNotSaved, match="make-delta"):
        job.save(tmp_path / "plan.json")


@pytest.mark.slow
def test_four_processes_one_killed_and_run_again_then_finish(
    shared: Shared, children: Children, expected: dict[str, bytes]
) -> None:
    plan = shared.save()

    def start(*args: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "weightsmith", "run-plan", str(plan), *args]
        return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)

    def end(process: subprocess.Popen[str]) -> tuple[int, str]:
        said = process.communicate()[1]
        return process.returncode, said

    others = [start("--partition", f"{number}/4") for number in (1, 2, 4)]
    assert children.share(plan, "3/4", die_at_write=3).exit == KILLED
    assert [end(each)[0] for each in others] == [0, 0, 0]
    code, said = end(start("--finish"))
    assert code == 9
    assert "model-00003-of-00004.safetensors" in said
    for args in (("--partition", "3/4"), ("--finish",)):
        assert end(start(*args))[0] == 0
    assert contents(shared.target) == expected


def test_nothing_is_put_where_a_killed_run_would_leave_it_for_good(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise AssertionError

    plan = shared.save()
    monkeypatch.setattr(fs, "scratch_directory", refuse)
    run_share(plan, "1/1")
    finish_plan(plan)
    assert hidden(shared.target.parent) == []
