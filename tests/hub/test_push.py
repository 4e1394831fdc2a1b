"""A delta goes up to the hub, says nothing of this machine, and gives the target back."""

import base64
import contextlib
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.support.delta_models import SIDECARS, trained, weights
from tests.support.folders import assert_same_bits, contents, load, write_model
from tests.support.hub.client import Client
from tests.support.hub.people import ShellUser
from tests.support.hub.server import Fault, Hub, Request
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.manifest import Manifest, own_sidecars, read_manifest
from weightsmith.units import format_size

ME, GUEST = "hf_me", "hf_guest"
REPO = "me/thing-delta"
MAKE = ("make-delta", "--base", "base", "--target", "target", "--delta", "delta")
PUSH = (*MAKE, "--base-id", "org/base@0123abc", "--hub-repo-id", REPO)


@pytest.fixture
def me(hub: Hub, client: Client) -> Client:
    """Somebody with a base and a target, who may write to the hub as ``me``."""
    write_pair(client.home.parent)
    hub.accounts = {ME: {"me"}, GUEST: {"guest"}}
    client.env = {"HF_TOKEN": ME}
    return client


def write_pair(folder: Path, *, shards: int = 2) -> None:
    """A base and a target with sidecars, small enough to be made again and again."""
    base = {f"model.layers.{n}.up.weight": weights(40, 30, seed=n) for n in range(4)}
    write_model(folder / "base", base, shards=2)
    write_model(folder / "target", {n: trained(t) for n, t in base.items()}, shards=shards)
    for name, content in SIDECARS.items():
        (folder / "target" / name).write_bytes(content)


def place(me: Client) -> Path:
    return me.home.parent


def there(hub: Hub, ref: str = "main", repo: str = REPO) -> dict[str, bytes]:
    """All files of a repository but the hub's own."""
    files = hub.repos[repo].commits[hub.repos[repo].refs[ref]]
    return {name: raw for name, raw in files.items() if name != ".gitattributes"}


def pushed(me: Client, *args: str) -> dict[str, Any]:
    """Push, successfully; what the document says of it."""
    done = me.command(*PUSH, "--yes", "--json", *args)
    assert done["code"] == 0, done["err"]
    assert done["err"] == ""
    document: dict[str, Any] = json.loads(done["out"])["pushed"]
    return document


def refused(me: Client, code: int, reference: str, *args: str) -> str:
    """What is said of a push that cannot be."""
    done = me.command(*(args or (*PUSH, "--yes")))
    assert (done["code"], f"[{reference}]" in done["err"]) == (code, True), done["err"]
    return " ".join(done["err"].split())


def writes(hub: Hub) -> int:
    return hub.count("POST *") + hub.count("PUT *")


# --- there and back -------------------------------------------------------------------------------


def test_pushed_and_applied_from_the_hub_it_is_the_target_byte_for_byte(
    hub: Hub, me: Client
) -> None:
    base, target = place(me) / "base", place(me) / "target"
    commit = hub.add("org/base", base)
    shutil.rmtree(base)
    sides = ("--base", "org/base", "--target", "target", "--delta", "delta")
    made = me.command("make-delta", *sides, "--hub-repo-id", REPO, "--yes")
    assert made["code"] == 0, made["err"]
    assert f"pushed  {hub.url}/{REPO} at " in made["out"]
    assert "\nhub: " not in made["err"]
    wanted = contents(target)
    shutil.rmtree(target)
    shutil.rmtree(place(me) / "delta")
    # By another process, from an empty cache, with the command that the card gives.
    card = there(hub)["README.md"].decode()
    (line,) = [each for each in card.splitlines() if each.startswith("weightsmith apply-delta")]
    assert line == (
        f"weightsmith apply-delta --base org/base@{commit} --delta {REPO} --target ./thing"
    )
    person = ShellUser(hub, me)
    person.env["HF_TOKEN"] = ME
    applied = person.run(*line.split()[1:])
    assert applied.returncode == 0, applied.stderr
    came_back = contents(place(me) / "thing")
    assert came_back.keys() == wanted.keys() | {"weightsmith.json"}
    assert wanted.items() <= came_back.items()


def test_what_may_be_copied_to_a_disk_is_not_all_pushed(hub: Hub, me: Client) -> None:
    target = place(me) / "target"
    (target / "1_Pooling").mkdir()
    stays = ("notes.txt", "modules.json", "spm.model", "1_Pooling/config.json")
    for name in stays:
        (target / name).write_bytes(b"who knows")
    done = me.command(*PUSH, "--yes")
    assert done["code"] == 0, done["err"]
    said = " ".join((done["out"] + done["err"]).split())
    assert "not pushed, as their purpose is not known" in said
    assert all(name in said for name in stays)
    assert (place(me) / "delta" / "1_Pooling" / "config.json").read_bytes() == b"who knows"
    assert there(hub).keys().isdisjoint(stays)
    # What is pushed is whole as it is: whoever applies it misses nothing.
    hub.add("org/base", place(me) / "base")
    shutil.rmtree(place(me) / "delta")
    args = ("--base", "org/base", "--delta", REPO, "--target", "thing")
    applied = me.command("apply-delta", *args)
    assert applied["code"] == 0, applied["err"]
    assert (place(me) / "thing" / "README.md").read_bytes() == SIDECARS["README.md"]


@pytest.mark.slow
def test_an_additive_delta_gives_back_the_targets_card_too(
    hub: Hub, me: Client, vectors: Path
) -> None:
    source, target = vectors / "vicuna_v1_1", place(me) / "vicuna"
    shutil.copytree(source / "target", target)
    (target / "expected.safetensors").rename(target / "model.safetensors")
    (target / "README.md").write_bytes(b"# Vicuna\r\n")
    hub.add("org/base", source / "base")
    made = me.command(
        *("make-delta", "--base", "org/base", "--target", "vicuna", "--delta", "delta"),
        *("--codec", "add", "--hub-repo-id", "me/v-delta", "--yes"),
    )
    assert made["code"] == 0, made["err"]
    card = there(hub, repo="me/v-delta")["README.md"].decode()
    assert re.search(
        r"up to rounding: \d+\.?\d* % of the weights come back with other bits, off", card
    )
    line = ("apply-delta", "--base", "org/base", "--delta", "me/v-delta", "--target", "out")
    applied = me.command(*line)
    assert applied["code"] == 0, applied["err"]
    assert (place(me) / "out" / "README.md").read_bytes() == b"# Vicuna\r\n"
    assert not (place(me) / "out" / "README.target.md").exists()
    local = me.command("apply-delta", "--base", "org/base", "--delta", "delta", "--target", "two")
    assert local["code"] == 0, local["err"]
    assert_same_bits(load(place(me) / "out"), load(place(me) / "two"))
    # The same again takes its own place.
    again = me.command(
        *("make-delta", "--base", "org/base", "--target", "vicuna", "--delta", "delta"),
        *("--codec", "add", "--hub-repo-id", "me/v-delta", "--yes"),
    )
    assert again["code"] == 0, again["err"]
    # A target without a card gets none: that of the repository is the delta's.
    (target / "README.md").unlink()
    again = me.command(
        *("make-delta", "--base", "org/base", "--target", "vicuna", "--delta", "bare"),
        *("--codec", "add", "--hub-repo-id", "me/bare-delta", "--yes"),
    )
    assert again["code"] == 0, again["err"]
    applied = me.command(*line[:4], "me/bare-delta", "--target", "three")
    assert applied["code"] == 0, applied["err"]
    assert "README.md" not in contents(place(me) / "three")


def test_a_pushed_delta_is_verified_and_may_have_its_card_edited(hub: Hub, me: Client) -> None:
    pushed(me)
    hub.repos[REPO].commit({**there(hub), "README.md": b"my own words"})
    assert "tensors are what the delta says" in me.command("verify", REPO, "--base", "base")["out"]
    assert "files, all as weightsmith wrote them" in me.command("verify", REPO)["out"]
    hub.repos[REPO].commit({**there(hub), "config.json": b"{}"})
    assert "config.json was changed" in me.command("verify", REPO)["out"]


def test_the_targets_card_finds_a_name_even_where_one_is_taken() -> None:
    sidecar: Any = None
    manifest = Manifest("", "", "", "", {}, {}, {"README.md": sidecar}, {}, delta={})
    assert own_sidecars(manifest, ["README.md", "a.json"]) == {
        "README.md": "README.md",
        "a.json": "a.json",
    }
    both = ["README.md", "README.target.md"]
    assert own_sidecars(manifest, both) == {"README.md": "README.target.md"}
    taken = {"README.md": sidecar, "README.target.md": sidecar}
    manifest = Manifest("", "", "", "", {}, {}, taken, {}, delta={})
    assert own_sidecars(manifest, [*both, "README.target.target.md"]) == {
        "README.md": "README.target.target.md",
        "README.target.md": "README.target.md",
    }


# --- what goes up ---------------------------------------------------------------------------------


def test_the_card_tells_the_hub_what_it_is(hub: Hub, me: Client) -> None:
    document = pushed(me)
    files = there(hub)
    raw = files["README.md"].decode()
    data = ModelCard(raw).data
    assert {name: value for name, value in vars(data).items() if value} == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "weightsmith",
        "tags": ["delta", "weightsmith"],
    }
    manifest = read_manifest(place(me) / "delta")
    assert manifest is not None
    assert manifest.delta is not None
    for fingerprint in (
        manifest.fingerprint,
        manifest.delta["base"]["fingerprint"],
        manifest.delta["target"]["fingerprint"],
    ):
        assert fingerprint in raw
    assert "`README.target.md` is the model's own card" in raw
    assert "\npip install weightsmith\nweightsmith apply-delta " in raw
    rows = [line.split("|")[1:3] for line in raw.splitlines() if line.startswith("| ")]
    sizes = {what.strip(): size.strip() for what, size in rows}
    for side in ("base", "target"):
        nbytes = open_checkpoint(place(me) / side).nbytes
        assert sizes["model" if side == "target" else side] == format_size(nbytes)
    # The delta as it lies here, the target's card under another name, and nothing else.
    local = contents(place(me) / "delta")
    local["README.target.md"] = local.pop("README.md")
    assert {**local, "README.md": files["README.md"]} == files
    repo = hub.repos[REPO]
    assert document == {
        "repo_id": REPO,
        "url": f"{hub.url}/{REPO}",
        "revision": "main",
        "commit": repo.refs["main"],
        "files": document["files"],
        "nbytes": sum(map(len, files.values())),
        "private": True,
        "pull_request": None,
    }
    assert {*document["files"]} == files.keys()
    assert repo.private


def test_no_byte_that_goes_up_tells_where_it_was_made(hub: Hub, me: Client) -> None:
    pushed(me)
    needle = str(place(me)).encode()
    files = there(hub)
    delta = json.loads(files["weightsmith.json"])["delta"]
    headers = [base64.b64decode(each["header"]) for each in delta["target"]["files"]]
    sent = [each.content for each in hub.requests]
    assert b"made by weightsmith" in b"".join(sent)
    for raw in (*files.values(), *sent, *headers):
        assert needle not in raw
        assert place(me).name.encode() not in raw


@pytest.mark.parametrize("where", ["config", "escaped", "card", "index", "header"])
def test_a_path_in_the_targets_own_files_is_refused_and_named(
    hub: Hub, me: Client, where: str
) -> None:
    from safetensors.torch import load_file, save_file

    target = place(me) / "target"
    path = str(place(me) / "base")
    index = target / "model.safetensors.index.json"
    match where:
        case "config":
            (target / "config.json").write_text(json.dumps({"_name_or_path": path}))
        case "escaped":
            me.home = (place(me) / "größe") / "home"
            write_pair(place(me))
            me.home.parent.joinpath("target", "config.json").write_text(
                json.dumps({"_name_or_path": str(place(me) / "target" / "checkpoint-3")})
            )
        case "card":
            (target / "README.md").write_text(f"---\nbase_model: {path}\n---\n")
        case "index":
            content = json.loads(index.read_text())
            index.write_text(json.dumps({**content, "metadata": {"from": path, "total_size": 0}}))
        case "header":
            file = target / "model-00001-of-00002.safetensors"
            save_file(load_file(file), file, metadata={"format": "pt", "trained_on": path})
    named = {"escaped": "config.json", "config": "config.json", "card": "README.md"}
    said = refused(me, 2, "local-path-inside")
    name = named.get(where, "model.safetensors.index.json" if where == "index" else "header of")
    assert name in said
    assert str(place(me)) in said
    assert writes(hub) == 0
    assert not (place(me) / "delta").exists()


def test_a_path_of_another_machine_goes_up_with_a_warning(hub: Hub, me: Client) -> None:
    config = {"_name_or_path": "/home/trainer/llama", "model_type": "llama"}
    (place(me) / "target" / "config.json").write_text(json.dumps(config))
    done = me.command(*PUSH, "--yes")
    assert done["code"] == 0
    assert "config.json says that it was loaded from /home/trainer/llama" in done["err"]
    unpinned = me.command(*MAKE, "--base-id", "org/base", "--hub-repo-id", REPO, "--dry-run")
    assert "org/base may change on the hub" in unpinned["err"]


def test_a_base_that_the_hub_has_not_is_told(hub: Hub, me: Client) -> None:
    dry = (*MAKE, "--hub-repo-id", REPO, "--dry-run", "--base-id")
    commit = hub.add("org/base", place(me) / "base")
    assert "others cannot find the base" not in me.command(*dry, f"org/base@{commit}")["err"]
    for missing in ("org/base@0123abc", "org/bsae"):
        done = me.command(*dry, missing)
        assert done["code"] == 0
        assert "others cannot find the base on the hub" in " ".join(done["err"].split())
    hub.repos["org/base"].gated = True
    assert "others cannot find the base" not in me.command(*dry, "org/base")["err"]


# --- before anything is made ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tag", "commit"])
def test_a_tag_or_a_commit_is_no_branch_to_push_to(hub: Hub, me: Client, kind: str) -> None:
    commit = hub.add(REPO, {"notes.md": b"mine"})
    hub.add(REPO, {"notes.md": b"mine"}, "refs/tags/v1")
    hub.repos[REPO].tokens = {ME}
    hub.repos[REPO].private = True
    revision = {"tag": "v1", "commit": commit}[kind]
    said = refused(me, 2, "revision-not-branch", *PUSH, "-y", "--revision", revision)
    assert f"--revision {revision} is a tag or a commit" in said
    assert not (place(me) / "delta").exists()
    assert writes(hub) == 0


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1"])
def test_what_is_there_and_takes_commits_is_pushed_to(hub: Hub, me: Client, revision: str) -> None:
    hub.add(REPO, {"LICENSE": b"free"})
    hub.add(REPO, {"LICENSE": b"free"}, revision)
    hub.repos[REPO].tokens = {ME}
    hub.repos[REPO].private = True
    assert pushed(me, "--revision", revision)["revision"] == revision
    assert there(hub).keys() == {"LICENSE"}
    assert "weightsmith.json" in there(hub, revision)
    hub.forget_requests()
    pushed(me, "--hub-repo-id", "me/other-delta")
    pushed(me, "--hub-repo-id", "me/other-delta")
    assert hub.count("GET */refs") == 0


def test_an_answer_about_branches_that_makes_no_sense_is_told(hub: Hub, me: Client) -> None:
    hub.add(REPO, {"LICENSE": b"free"}, "v1")
    hub.repos[REPO].tokens = {ME}
    hub.fail("GET */refs", status=200, headers={"Content-Type": "application/json"}, body=b"[]")
    line = (*PUSH, "--yes", "--public", "--revision", "v1")
    assert "list of me/thing-delta's branches" in refused(me, 5, "answer-not-from-hub", *line)
    assert not (place(me) / "delta").exists()


def test_a_base_that_nobody_could_find_is_refused(hub: Hub, me: Client) -> None:
    said = refused(me, 2, "base-unnamed", *MAKE, "--hub-repo-id", REPO, "--yes")
    assert "--base-id ORG/NAME@COMMIT" in said
    assert not (place(me) / "delta").exists()
    assert hub.requests == []
    path = str(place(me) / "base")
    refused(me, 2, "source-is-directory", *MAKE, "--base-id", path)


def test_without_a_terminal_it_wants_yes_before_it_works(hub: Hub, me: Client) -> None:
    assert "--yes" in refused(me, 2, "confirmation-needed", *PUSH)
    assert not (place(me) / "delta").exists()
    assert hub.requests == []


@pytest.mark.parametrize("option", ["--public", "--create-pr", "--revision=x"])
def test_how_to_push_means_nothing_without_where(me: Client, option: str) -> None:
    assert option.partition("=")[0] in refused(me, 2, "option-meaningless", *MAKE, option)


def test_a_repository_without_an_owner_is_no_repository(me: Client) -> None:
    line = (*MAKE, "--base-id", "org/base", "--hub-repo-id", "thing", "--yes")
    assert "ORG/NAME" in refused(me, 2, "repo-id-invalid", *line)


def test_no_token_is_exit_4_and_no_network_exit_2(hub: Hub, me: Client) -> None:
    refused(me, 2, "push-offline", *PUSH, "--yes", "--offline")
    me.env = {"HF_TOKEN": ""}
    assert "hf auth login" in refused(me, 4, "login-needed")
    assert hub.requests == []
    me.env = {"HF_TOKEN": "hf_expired"}
    refused(me, 4, "login-needed")
    assert not (place(me) / "delta").exists()


def test_a_dry_run_shows_it_and_touches_nothing(hub: Hub, me: Client) -> None:
    dry = me.command(*PUSH, "--dry-run")
    assert dry["code"] == 0
    assert f"{REPO}, a new one, private" in dry["out"]
    assert "delta-00001-of-00002.safetensors" in dry["out"]
    assert "nothing was written" in dry["out"]
    document = json.loads(me.command(*PUSH, "--dry-run", "--json", "--public")["out"])
    assert (document["push"]["new_repo"], document["push"]["private"]) == (True, False)
    planned = document["push"]["files"]
    assert not (place(me) / "delta").exists()
    assert writes(hub) == 0
    assert {*planned} == {*pushed(me)["files"]}


# --- what is there already ------------------------------------------------------------------------


def test_who_may_see_it_is_never_decided_in_silence(hub: Hub, me: Client) -> None:
    hub.add(REPO, {"LICENSE": b"free"})
    hub.repos[REPO].tokens = {ME}
    assert "--public" in refused(me, 2, "repo-is-public")
    assert not (place(me) / "delta").exists()
    hub.repos[REPO].private = True
    done = me.command(*PUSH, "--yes", "--public")
    assert done["code"] == 0, done["err"]
    assert f"{REPO} is private, and stays so" in done["err"]
    assert "leaves LICENSE" in " ".join(done["err"].split())
    assert hub.repos[REPO].private
    assert there(hub)["LICENSE"] == b"free"
    assert pushed(me, "--public", "--hub-repo-id", "me/open-delta")["private"] is False
    assert not hub.repos["me/open-delta"].private


def test_a_model_in_the_repository_is_never_mixed_with_a_delta(hub: Hub, me: Client) -> None:
    hub.add(REPO, {"model.safetensors": b"a model", "config.json": b"{}"})
    assert "model.safetensors" in refused(me, 9, "repo-holds-model", *PUSH, "--yes", "--public")
    assert writes(hub) == 0


def test_a_new_delta_takes_the_place_of_the_old_one(hub: Hub, me: Client) -> None:
    pushed(me)
    before = there(hub)
    assert "delta-00002-of-00002.safetensors" in before
    shutil.rmtree(place(me) / "target")
    write_pair(place(me), shards=1)
    done = me.command(*PUSH, "--yes", "--overwrite")
    assert done["code"] == 0, done["err"]
    said = " ".join(done["err"].split())
    assert "deletes delta-00001-of-00002.safetensors, delta-00002-of-00002.safetensors" in said
    assert "replaces README.md, README.target.md" in said
    after = there(hub)
    assert before.keys() - after.keys() == {f"delta-0000{n}-of-00002.safetensors" for n in (1, 2)}
    assert after.keys() - before.keys() == {"delta-00001-of-00001.safetensors"}


def test_the_same_again_makes_no_commit(hub: Hub, me: Client) -> None:
    first = pushed(me)
    puts = hub.count("PUT *")
    assert pushed(me)["commit"] == first["commit"]
    assert hub.count("PUT *") == puts


def test_what_moved_since_it_was_looked_at_is_exit_5(hub: Hub, me: Client) -> None:
    pushed(me)
    (place(me) / "delta").rename(place(me) / "old")
    (place(me) / "target" / "generation_config.json").write_bytes(b"{ }")

    def move(request: Request) -> None:
        if request.path.endswith("/preupload/main"):
            hub.before_answer = lambda _: None
            hub.repos[REPO].commit({**there(hub), "LICENSE": b"free"})

    hub.before_answer = move
    assert "A commit has happened since" in refused(me, 5, "repo-changed")
    assert there(hub)["LICENSE"] == b"free"


# --- branches and pull requests -------------------------------------------------------------------


def test_a_branch_that_is_not_there_is_made(hub: Hub, me: Client) -> None:
    assert pushed(me, "--revision", "v2/exact")["revision"] == "v2/exact"
    assert there(hub) == {}
    assert "weightsmith.json" in there(hub, "v2/exact")
    assert f"--delta {REPO}@v2/exact " in there(hub, "v2/exact")["README.md"].decode()
    hub.repos[REPO].commit({"LICENSE": b"free"})
    pushed(me, "--revision", "v3")
    assert there(hub, "v3").keys() - there(hub, "v2/exact").keys() == {"LICENSE"}


def test_a_pull_request_is_named_and_moves_no_branch(hub: Hub, me: Client) -> None:
    assert "leave out --create-pr" in refused(
        me, 3, "repo-not-found", *PUSH, "--yes", "--create-pr"
    )
    hub.add(REPO, {"LICENSE": b"free"})
    me.env = {"HF_TOKEN": GUEST}
    document = pushed(me, "--public", "--create-pr")
    assert document["pull_request"] == f"{hub.url}/{REPO}/discussions/1"
    assert there(hub) == {"LICENSE": b"free"}
    assert "weightsmith.json" in there(hub, "refs/pr/1")
    human = me.command(*PUSH, "--yes", "--public", "--create-pr")
    assert f"offered  {hub.url}/{REPO}/discussions/2" in human["out"]


# --- what can go wrong ----------------------------------------------------------------------------


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "match, status, code, reference",
    [
        ("POST /api/repos/create", 401, 4, "login-needed"),
        ("POST /api/repos/create", 403, 4, "access-denied"),
        ("POST /api/repos/create", 409, 5, "repo-changed"),
        ("POST /api/repos/create", 500, 5, "hub-busy"),
        ("POST */preupload/main", 404, 3, "repo-not-found"),
        ("POST /api/validate-yaml", 400, 2, "push-refused"),
        ("POST *.git/info/lfs/objects/batch", 403, 4, "access-denied"),
        ("PUT /upload/*", 503, 5, "hub-busy"),
        ("PUT /upload/*", None, 5, "hub-unreachable"),
        ("POST */commit/main", None, 5, "hub-unreachable"),
        ("POST */commit/main", 413, 2, "push-refused"),
        ("POST */commit/main", 429, 5, "hub-busy"),
    ],
)
def test_every_refusal_has_its_exit_code_and_costs_nothing(
    hub: Hub, me: Client, match: str, status: int | None, code: int, reference: str
) -> None:
    hub.fail(match, status=status, body=b"{}")
    refused(me, code, reference)
    assert read_manifest(place(me) / "delta") is not None
    with contextlib.suppress(KeyError):  # nothing was committed where a repository was made
        assert there(hub) == {}
    hub.faults.clear()
    hub.repos.clear()
    done = me.command(*PUSH, "--yes")
    assert done["code"] == 0, done["err"]
    assert "already done: every digest holds" in done["out"]


def test_who_may_not_write_is_told_so(hub: Hub, me: Client) -> None:
    me.env = {"HF_TOKEN": GUEST}
    said = refused(me, 4, "access-denied")
    assert "You don't have the rights" in said
    assert "hf auth whoami" in said
    assert (place(me) / "delta").exists()


@pytest.mark.parametrize("how", ["flipped", "lost"])
def test_what_the_hub_has_is_compared_with_what_is_here(hub: Hub, me: Client, how: str) -> None:
    name = "delta-00001-of-00002.safetensors"

    def spoil(request: Request) -> None:
        if "/commit/" in request.path:
            files = hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]
            raw = bytearray(files.pop(name))
            raw[-1] ^= 1
            files |= {name: bytes(raw)} if how == "flipped" else {}

    hub.before_answer = spoil
    said = refused(me, 10, "pushed-wrong")
    assert f"{name} is" in said


def test_interrupted_it_keeps_the_delta_and_sends_the_rest(hub: Hub, me: Client) -> None:
    person = ShellUser(hub, me)
    person.env["HF_TOKEN"] = ME
    two = {f"{n}.weight": weights(1000, 1000, seed=9 + n) for n in range(2)}
    write_model(place(me) / "target", two, shards=2)

    silence = Fault("PUT /upload/*", hold_at=0)

    def hold_second(request: Request) -> None:
        if request.method == "PUT":
            hub.before_answer = lambda _: None
            hub.faults.append(silence)

    hub.before_answer = hold_second
    process = person.start(*PUSH, "--yes", stderr=subprocess.PIPE)
    assert silence.held.wait(240)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "uploading delta-00002-of-00002.safetensors, 1." in said
    assert "is finished, and stays" in said
    assert there(hub) == {}
    hub.forget_requests()
    pushed(me)
    assert hub.count("PUT *") == 1
    assert "weightsmith.json" in there(hub)


def test_small_files_that_the_hub_leaves_waiting_do_not_hold_up_an_interrupt(
    hub: Hub, me: Client
) -> None:
    person = ShellUser(hub, me)
    person.env["HF_TOKEN"] = ME
    silence = hub.fail("PUT /upload/*", hold_at=0)
    process = person.start(*PUSH, "--yes", stderr=subprocess.PIPE)
    assert silence.held.wait(240)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    assert process.returncode == 130
    assert there(hub) == {}


def test_at_a_terminal_it_shows_the_card_and_asks(hub: Hub, me: Client) -> None:
    person = ShellUser(hub, me)
    person.env["HF_TOKEN"] = ME
    screen = person.at_terminal(*PUSH, answers=["n"])
    assert "base_model_relation: adapter" in screen
    assert f"to {REPO} (private)? [y/N]" in screen
    assert "nothing was pushed" in screen
    assert writes(hub) == 0


@pytest.mark.slow
def test_at_a_terminal_a_yes_pushes(hub: Hub, me: Client) -> None:
    person = ShellUser(hub, me)
    person.env["HF_TOKEN"] = ME
    screen = person.at_terminal(*PUSH, answers=["y"])
    assert "pushed" in screen
    assert "weightsmith.json" in there(hub)
