"""What is downloaded, what is not, and what a second time costs."""

import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from tests.support.hub.client import Client
from tests.support.hub.repositories import MODEL, NOT_NEEDED, SHARDS, files_in, scan_warnings
from tests.support.hub.server import Hub, git_sha1


class TestWhatIsNeeded:
    def test_one_weight_format_and_the_sidecars_and_nothing_else(
        self, hub: Hub, client: Client
    ) -> None:
        hub.add("org/model", MODEL | NOT_NEEDED)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == MODEL
        assert set(outcome["left"]) >= {
            "pytorch_model.bin",
            "optimizer.bin",
            "original/consolidated.00.pth",
        }
        assert any("not fetched" in line and "pytorch_model.bin" in line for line in outcome["why"])
        fetched = [r.path for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
        assert not any(name in path for path in fetched for name in NOT_NEEDED)

    def test_bin_is_taken_when_asked_for(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL | NOT_NEEDED)
        outcome = client.download("org/model", weights="bin")
        taken = set(files_in(outcome["folder"]))
        assert "pytorch_model.bin" in taken
        assert not any(name.endswith(".safetensors") for name in taken)

    def test_bin_is_taken_when_there_is_nothing_else(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", {"config.json": b"{}", "pytorch_model.bin": b"b" * 100})
        assert client.download("org/model")["format"] == "bin"

    def test_metas_own_layout_comes_with_its_params(self, hub: Hub, client: Client) -> None:
        meta = {"consolidated.00.pth": b"c" * 99, "params.json": b"{}", "tokenizer.model": b"t"}
        hub.add("org/meta", meta)
        assert files_in(client.download("org/meta")["folder"]) == meta

    def test_an_adapter_is_taken_when_asked_for(self, hub: Hub, client: Client) -> None:
        adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a" * 99}
        hub.add("org/lora", adapter | {"adapter_model.bin": b"b" * 99})
        assert files_in(client.download("org/lora", kind="adapter")["folder"]) == adapter

    def test_modules_in_subfolders_are_the_models(self, hub: Hub, client: Client) -> None:
        modules = {
            "modules.json": b"[]",
            "1_Pooling/config.json": b"{}",
            "2_Dense/model.safetensors": b"d" * 99,
        }
        hub.add("org/model", MODEL | modules | {"onnx/config.json": b"{}"})
        outcome = client.download("org/model")
        found = files_in(outcome["folder"])
        assert found.keys() == MODEL.keys() | modules.keys()
        assert {name: found[name] for name in modules} == modules
        assert "2_Dense/model.safetensors" not in outcome["left"]

    def test_a_dry_run_knows_every_byte_and_writes_nothing(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        plan = client.run("download", "org/model", dry=True)
        assert plan["code"] == 0
        assert plan["fetch_nbytes"] == plan["nbytes"] == sum(map(len, MODEL.values()))
        assert {file["name"]: file["digest"] for file in plan["files"]} == {
            name: hashlib.sha256(raw).hexdigest() if name[-1] in "sl" else git_sha1(raw)
            for name, raw in MODEL.items()
        } | {name: git_sha1(MODEL[name]) for name in MODEL if name.endswith((".json", ".md"))}
        assert not client.home.exists()

    def test_an_empty_file_and_two_alike_are_no_trouble(self, hub: Hub, client: Client) -> None:
        files = {
            "model.safetensors": b"m",
            "LICENSE": b"",
            "added_tokens.json": b"{}",
            "config.json": b"{}",
        }
        hub.add("org/model", files)
        assert files_in(client.download("org/model")["folder"]) == files


class TestTheSecondTime:
    def test_nothing_that_is_there_is_fetched_again(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        first = client.download("org/model")
        assert [phase[0] for phase in first["phases"]] == ["downloading"]
        hub.requests.clear()
        second = client.download("org/model")
        assert [r.path for r in hub.requests] == ["/api/models/org/model/revision/main"]
        assert second["fetched"] == []
        assert second["phases"] == [["checking", first["nbytes"], first["nbytes"]]]

    def test_progress_counts_every_byte_once(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        total = sum(map(len, MODEL.values()))
        assert client.download("org/model")["phases"] == [["downloading", total, total]]

    def test_a_new_commit_fetches_only_what_changed(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        client.download("org/model")
        changed = MODEL | {"config.json": b'{"model_type": "llama", "x": 1}'}
        hub.add("org/model", changed)
        hub.requests.clear()
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == changed
        assert [
            r.path.rpartition("/")[2]
            for r in hub.requests
            if "/resolve/" in r.path and r.method == "GET"
        ] == ["config.json"]
        assert hub.count("GET /cdn/*") == 0
        assert scan_warnings(client) == []

    def test_a_damaged_file_is_noticed_and_fetched_anew(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        folder = Path(client.download("org/model")["folder"])
        name = next(iter(SHARDS))
        blob = (folder / name).resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
        outcome = client.download("org/model")
        assert outcome["fetched"] == [name]
        assert any(name in note for note in outcome["notes"])
        assert files_in(folder) == MODEL

    def test_a_damaged_file_that_revisions_share_is_mended_for_all(
        self, hub: Hub, client: Client
    ) -> None:
        hub.add("org/model", MODEL)
        old = Path(client.download("org/model")["folder"])
        hub.add("org/model", MODEL | {"config.json": b"{}"})
        name = next(iter(SHARDS))
        (old / name).resolve().write_bytes(bytes(700_000))
        hub.fail(f"GET /cdn/*/{name}", times=1, flip=5)
        assert client.run("download", "org/model")["reference"] == "hash-mismatch"
        assert scan_warnings(client) == []
        client.download("org/model")
        assert files_in(old) == MODEL

    def test_a_damaged_file_stays_when_it_cannot_be_replaced(
        self, hub: Hub, client: Client
    ) -> None:
        hub.add("org/model", MODEL)
        folder = Path(client.download("org/model")["folder"])
        (folder / "tokenizer.model").resolve().write_bytes(bytes(5_000))
        outcome = client.run("download", "org/model", offline=True)
        assert (outcome["code"], outcome["reference"]) == (6, "hash-mismatch")
        assert (folder / "tokenizer.model").read_bytes() == bytes(5_000)


class TestWithoutANetwork:
    def test_what_was_downloaded_is_there_offline(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        online = client.download("org/model")
        hub.requests.clear()
        outcome = client.download("org/model", offline=True)
        client.env["HF_HUB_OFFLINE"] = "1"
        assert client.download("org/model")["folder"] == outcome["folder"] == online["folder"]
        assert hub.requests == []
        assert any("using what the cache holds" in line for line in outcome["why"])

    def test_what_was_not_is_missing_and_not_temporary(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        outcome = client.run("download", "org/model", offline=True)
        assert (outcome["code"], outcome["reference"]) == (3, "not-cached")
        assert hub.requests == []

    def test_half_of_a_model_is_not_taken_for_all_of_it(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        folder = Path(client.download("org/model")["folder"])
        (folder / next(iter(SHARDS))).unlink()
        outcome = client.run("download", "org/model", offline=True)
        assert (outcome["code"], outcome["reference"]) == (3, "not-cached")

    def test_a_hub_out_of_reach_is_said_and_the_cache_used(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        online = client.download("org/model")
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))  # nobody else gets this port, and nobody listens
            nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            outcome = client.download("org/model", endpoint=nobody)
            other = client.run("download", "org/other", endpoint=nobody)
        assert outcome["folder"] == online["folder"]
        assert any(
            nobody in line and "using what the cache holds" in line for line in outcome["why"]
        )
        assert (other["code"], other["reference"]) == (5, "hub-unreachable")


class TestRevisions:
    def test_branch_tag_and_commit_name_the_same_files(self, hub: Hub, client: Client) -> None:
        old = hub.add("org/model", MODEL, ref="v1")
        hub.add("org/model", MODEL | {"config.json": b"{}"})
        by_tag = client.download("org/model@v1")
        assert by_tag["commit"] == old
        assert client.download("org/model", revision="v1")["folder"] == by_tag["folder"]
        assert client.download(f"org/model@{old}", offline=True)["folder"] == by_tag["folder"]
        assert client.download("org/model@v1", offline=True)["folder"] == by_tag["folder"]

    def test_a_commit_that_moves_meanwhile_mixes_nothing(self, hub: Hub, client: Client) -> None:
        first = hub.add("org/model", MODEL)
        moving = iter(range(1000))
        hub.before_answer = lambda _: hub.add(
            "org/model", MODEL | {"config.json": b"%d" % next(moving)}
        )
        outcome = client.download("org/model")
        assert outcome["commit"] == first
        assert files_in(outcome["folder"]) == MODEL
        assert client.download("org/model", offline=True)["commit"] == first
        assert scan_warnings(client) == []


class TestWhoMayRead:
    def test_a_private_repository_opens_with_the_token(self, hub: Hub, client: Client) -> None:
        hub.add("org/secret", MODEL)
        hub.repos["org/secret"].private = True
        hub.repos["org/secret"].tokens = {"hf_mine"}
        assert client.run("download", "org/secret")["reference"] == "repo-not-found"
        client.env["HF_TOKEN"] = "hf_mine"
        assert files_in(client.download("org/secret")["folder"]) == MODEL

    def test_and_with_that_of_hf_auth_login(self, hub: Hub, client: Client) -> None:
        hub.add("org/secret", MODEL)
        hub.repos["org/secret"].private = True
        hub.repos["org/secret"].tokens = {"hf_mine"}
        client.home.mkdir()
        (client.home / "token").write_text("hf_mine")
        client.env["HF_HUB_DISABLE_XET"] = "1"  # a fresh process, which looks for its token
        assert files_in(client.download("org/secret")["folder"]) == MODEL

    def test_the_token_never_leaves_the_hub(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        hub.repos["org/model"].tokens = {"hf_mine"}
        client.env["HF_TOKEN"] = "hf_mine"
        client.download("org/model")
        to_cdn = [r for r in hub.requests if r.path.startswith("/cdn/")]
        assert to_cdn
        assert {r.token for r in to_cdn} == {None}
        assert {r.token for r in hub.requests if "/resolve/" in r.path} == {"hf_mine"}


class TestIntoADirectory:
    def test_files_stand_there_under_their_names(
        self, hub: Hub, client: Client, tmp_path: Path
    ) -> None:
        hub.add("org/model", MODEL)
        outcome = client.download("org/model", local_dir=str(tmp_path / "here"))
        assert files_in(tmp_path / "here") == MODEL
        assert not client.cache.exists()
        assert not any(path.is_symlink() for path in (tmp_path / "here").rglob("*"))
        hub.requests.clear()
        assert client.download("org/model", local_dir=str(tmp_path / "here"))["fetched"] == []
        assert outcome["folder"] == str(tmp_path / "here")
        assert hub.count("GET */resolve/*") == 0

    def test_what_the_cache_holds_is_copied(self, hub: Hub, client: Client, tmp_path: Path) -> None:
        hub.add("org/model", MODEL)
        client.download("org/model")
        hub.requests.clear()
        client.download("org/model", local_dir=str(tmp_path / "here"))
        assert files_in(tmp_path / "here") == MODEL
        assert hub.count("GET *.safetensors") == 0

    def test_a_link_there_is_replaced_not_written_through(
        self, hub: Hub, client: Client, tmp_path: Path
    ) -> None:
        hub.add("org/model", MODEL)
        precious = tmp_path / "precious"
        precious.write_bytes(b"precious")
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "config.json").symlink_to(precious)
        client.download("org/model", local_dir=str(tmp_path / "here"))
        assert files_in(tmp_path / "here") == MODEL
        assert precious.read_bytes() == b"precious"

    def test_a_copy_from_the_cache_does_not_write_through_a_link(
        self, hub: Hub, client: Client, tmp_path: Path
    ) -> None:
        hub.add("org/model", MODEL)
        client.download("org/model")
        precious = tmp_path / "precious"
        precious.write_bytes(b"precious")
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "tokenizer.model").symlink_to(precious)
        client.download("org/model", local_dir=str(tmp_path / "here"))
        assert files_in(tmp_path / "here") == MODEL
        assert precious.read_bytes() == b"precious"

    def test_a_stale_index_there_decides_nothing(
        self, hub: Hub, client: Client, tmp_path: Path
    ) -> None:
        hub.add("org/model", MODEL)
        (tmp_path / "here").mkdir()
        stale = json.dumps({"weight_map": {"w": "model-stray.safetensors"}})
        (tmp_path / "here" / "model.safetensors.index.json").write_text(stale)
        client.download("org/model", local_dir=str(tmp_path / "here"))
        assert files_in(tmp_path / "here") == MODEL


class TestWithoutLinks:
    """As on Windows, where links are a privilege."""

    def test_files_stand_in_the_snapshot_once(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        client.env["HF_HUB_DISABLE_SYMLINKS"] = "1"
        folder = client.download("org/model")["folder"]
        assert files_in(folder) == MODEL
        assert not list(client.cache.rglob("blobs/*"))
        hub.requests.clear()
        assert client.download("org/model")["fetched"] == []
        assert hub.count("GET */resolve/*") == 0

    def test_a_damaged_one_is_fetched_anew(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        client.env["HF_HUB_DISABLE_SYMLINKS"] = "1"
        folder = Path(client.download("org/model")["folder"])
        (folder / "tokenizer.model").write_bytes(bytes(5_000))
        assert client.download("org/model")["fetched"] == ["tokenizer.model"]
        assert files_in(folder) == MODEL


class TestXet:
    def test_a_mirror_is_not_bypassed_and_that_is_said(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        outcome = client.run("download", "org/model", dry=True)
        assert any("alone, without Xet" in line and hub.url in line for line in outcome["why"])

    @pytest.mark.parametrize("choice", ["0", "1"])
    def test_the_users_own_word_counts(self, hub: Hub, client: Client, choice: str) -> None:
        hub.add("org/model", MODEL)
        client.env["HF_HUB_DISABLE_XET"] = choice
        outcome = client.download("org/model")
        assert not any("alone, without Xet" in line for line in outcome["why"])
        assert files_in(outcome["folder"]) == MODEL

    def test_the_library_replaces_what_is_damaged(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        client.env["HF_HUB_DISABLE_XET"] = "0"
        folder = Path(client.download("org/model")["folder"])
        (folder / "tokenizer.model").resolve().write_bytes(bytes(5_000))
        first = next(iter(SHARDS))
        (folder / first).resolve().write_bytes(b"cut")
        assert set(client.download("org/model")["fetched"]) == {"tokenizer.model", first}
        assert files_in(folder) == MODEL

    def test_what_the_library_brings_is_checked_too(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        bad = next(iter(SHARDS))
        hub.fail(f"GET */{bad}", flip=1234)
        client.env["HF_HUB_DISABLE_XET"] = "0"
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (6, "hash-mismatch")
        names = {path.name for path in client.cache.rglob("snapshots/*/*")}
        assert bad not in names
        digest = hashlib.sha256(SHARDS[bad]).hexdigest()
        assert not [path for path in client.cache.rglob(f"{digest}*") if path.suffix != ".lock"]
        assert scan_warnings(client) == []


def test_nothing_is_read_from_or_written_to_the_users_own_cache(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    before = sorted(Path(os.environ["HF_HOME"]).iterdir())
    client.download("org/model", cache=str(client.home / "elsewhere"))
    assert sorted(Path(os.environ["HF_HOME"]).iterdir()) == before
    assert [path.name for path in client.home.iterdir()] == ["elsewhere"]
