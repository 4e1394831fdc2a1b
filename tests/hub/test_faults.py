"""A hub that says no, breaks off, lies, or is none: what is said, and what is left behind."""

import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from tests.support.hub.client import Client
from tests.support.hub.repositories import MODEL, SHARDS, files_in, scan_warnings
from tests.support.hub.server import Hub

BIG = random.Random(1).randbytes(5_000_000)
DIGEST = hashlib.sha256(BIG).hexdigest()
SMALL = {"config.json": b"{}", "tokenizer.model": b"t" * 500}
WEIGHTS = "model.safetensors"
API = "GET /api/models/org/model/*"
FILE = f"GET /cdn/org/model/*/{WEIGHTS}"
"""Where the bytes are, on the CDN."""


@pytest.fixture
def model(hub: Hub) -> dict[str, bytes]:
    """`org/model`: one large file, two small ones."""
    files = {**SMALL, WEIGHTS: BIG}
    hub.add("org/model", files)
    return files


def partials(client: Client) -> list[int]:
    """What has arrived of the large file where it is incomplete.

    Of the small ones nobody knows how far they were when it failed.
    """
    return [path.stat().st_size for path in client.cache.rglob(f"{DIGEST}.incomplete")]


class TestNo:
    def test_a_gated_repository_says_where_the_licence_is(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", {**SMALL, WEIGHTS: b"w"})
        hub.repos["org/model"].gated = True
        hub.add("org/mine", MODEL)
        hub.repos["org/mine"].tokens = {"hf_me"}
        for env in ({}, {"HF_TOKEN": "hf_me"}):
            client.env = env
            outcome = client.run("download", "org/model", dry=True)
            assert (outcome["code"], outcome["reference"]) == (4, "repo-gated")
            assert "https://huggingface.co/org/model" in outcome["hint"]
            assert "hf auth login" in outcome["hint"]
        hub.repos["org/model"].tokens = {"hf_me"}
        assert files_in(client.download("org/model")["folder"]) == {**SMALL, WEIGHTS: b"w"}

    def test_access_withdrawn_between_listing_and_files_is_no_traceback(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        gated = {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"}
        hub.fail("GET /org/model/resolve/*", status=403, headers=gated)
        assert client.run("download", "org/model")["reference"] == "repo-gated"

    def test_a_token_that_the_hub_refuses_is_said(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        client.env["HF_TOKEN"] = "hf_old"
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (4, "login-needed")
        assert "Invalid credentials" in outcome["message"]

    def test_forbidden_is_not_the_same_as_gated(self, hub: Hub, client: Client) -> None:
        hub.fail(API, status=403, headers={"X-Error-Message": "IP not on the list"})
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (4, "access-denied")
        assert "IP not on the list" in outcome["message"]

    def test_an_unknown_repository_offers_the_nearest_known(self, hub: Hub, client: Client) -> None:
        outcome = client.run("download", "lmsys/vicuna-7b-delta-v1.2")
        assert (outcome["code"], outcome["reference"]) == (3, "repo-not-found")
        assert "lmsys/vicuna-7b-delta-v1.1" in outcome["context"][0]

    def test_an_unknown_revision_is_named(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        outcome = client.run("download", "org/model@v9")
        assert (outcome["code"], outcome["reference"]) == (3, "revision-not-found")
        assert "v9" in outcome["message"]

    def test_a_repository_that_the_hub_disabled_is_not_there(
        self, hub: Hub, client: Client
    ) -> None:
        disabled = {"X-Error-Message": "Access to this resource is disabled."}
        hub.fail(API, status=403, headers=disabled)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (3, "repo-not-found")

    @pytest.mark.parametrize(
        "files, reference",
        [
            ({"m.Q4_K_M.gguf": b"G", "config.json": b"{}"}, "only-gguf"),
            ({"adapter_model.bin": b"a", "adapter_config.json": b"{}"}, "only-adapter"),
            ({"config.json": b"{}", "README.md": b"soon"}, "no-weights"),
            ({"flax_model.msgpack": b"f"}, "no-weights"),
            ({"model_world_size_2_rank_0.pt": b"r", "config.json": b"{}"}, "only-training"),
            ({"pytorch_model_fsdp_0_rank0.bin": b"r", "config.json": b"{}"}, "only-training"),
            ({"pytorch_model_fsdp_0/.metadata": b"m", "a/__0_0.distcp": b"d"}, "only-training"),
            ({"shard-00001-model-00001-of-00001.safetensors": b"s"}, "only-training"),
            ({"latest": b"x", "x/mp_rank_00_model_states.pt": b"z"}, "only-training"),
            ({"checkpoint-500/model.safetensors": b"c"}, "only-training"),
            ({"last.ckpt": b"l"}, "only-training"),
        ],
    )
    def test_a_repository_without_a_model_is_called_what_it_is(
        self, hub: Hub, client: Client, files: dict[str, bytes], reference: str
    ) -> None:
        hub.add("org/model", files)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (3, reference)
        assert not client.home.exists()

    def test_an_index_that_names_absent_files_is_refused_before_anything_is_fetched(
        self, hub: Hub, client: Client
    ) -> None:
        present = dict(MODEL)
        absent = next(iter(SHARDS))
        del present[absent]
        hub.add("org/model", present)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (3, "shard-missing")
        assert outcome["context"] == [absent]
        assert not client.home.exists()


class TestLater:
    def test_busy_once_is_waited_for(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(API, times=1, status=429, headers={"Retry-After": "1"})
        hub.fail(API, times=1, status=503)
        hub.fail(FILE, times=1, status=429, headers={"Retry-After": "1"})
        hub.fail(FILE, times=2, status=502)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == model
        assert sum("Rate limited" in note for note in outcome["notes"]) == 2
        assert not any(hub.url in note for note in outcome["notes"])

    @pytest.mark.parametrize("where", [API, FILE])
    def test_too_many_requests_says_when_to_come_back(
        self, hub: Hub, client: Client, model: dict[str, bytes], where: str
    ) -> None:
        hub.fail(where, status=429, headers={"Retry-After": "7"})
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "hub-busy")
        assert "in 7 seconds" in outcome["hint"]

    @pytest.mark.parametrize("where", [API, FILE, "HEAD /org/model/resolve/*"])
    def test_a_hub_that_is_out_of_order_is_temporary(
        self, hub: Hub, client: Client, model: dict[str, bytes], where: str
    ) -> None:
        hub.fail(where, status=503)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "hub-busy")
        hub.faults.clear()
        assert files_in(client.download("org/model")["folder"]) == model

    def test_a_file_that_vanishes_after_the_listing_is_temporary(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        gone = {"X-Error-Code": "EntryNotFound"}
        hub.fail("GET /org/model/resolve/*", status=404, headers=gone)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "repo-changed")


class TestBrokenOff:
    def test_a_cut_connection_goes_on_where_it_stopped(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=3, cut_after=1_200_000)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == model
        assert hub.ranges(WEIGHTS) == [None, "bytes=1200000-", "bytes=2400000-", "bytes=3600000-"]
        assert outcome["phases"][-1][1] == outcome["phases"][-1][2]

    def test_one_that_brings_nothing_any_more_ends_and_keeps_what_came(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=1, cut_after=2_000_000)
        hub.fail(FILE, times=5, cut_after=0)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "hub-unreachable")
        assert partials(client) == [2_000_000]
        hub.requests.clear()
        assert files_in(client.download("org/model")["folder"]) == model
        assert hub.ranges(WEIGHTS) == ["bytes=2000000-"]
        assert not list(client.cache.rglob("*.incomplete"))
        assert scan_warnings(client) == []

    def test_a_server_that_knows_no_ranges_starts_over_and_ends_right(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=1, cut_after=2_000_000)
        hub.fail(FILE, ignore_range=True)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == model
        assert outcome["phases"][-1][1] == outcome["phases"][-1][2]

    def test_a_server_that_refuses_the_range_starts_over_and_ends_right(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=1, cut_after=2_000_000)
        hub.fail(FILE, times=1, status=416)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == model
        assert hub.ranges(WEIGHTS) == [None, "bytes=2000000-", None]
        assert outcome["phases"][-1][1] == outcome["phases"][-1][2]

    def test_a_silent_server_is_left_after_the_timeout(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        client.env["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
        hub.fail(FILE, hold_at=3_000_000)
        outcome = client.download("org/model")
        assert files_in(outcome["folder"]) == model
        assert any("continuing at 3.00 MB" in note for note in outcome["notes"])


class TestLies:
    def test_wrong_bytes_are_not_kept_and_the_rest_is(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=1, flip=4_999_999)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (6, "hash-mismatch")
        assert WEIGHTS in outcome["message"]
        assert any(DIGEST in line for line in outcome["context"])
        assert not [path for path in client.cache.rglob("*") if path.name in {WEIGHTS, DIGEST}]
        assert partials(client) == []
        assert scan_warnings(client) == []
        kept = {path.name for path in client.cache.rglob("snapshots/*/*")}
        hub.requests.clear()
        assert files_in(client.download("org/model")["folder"]) == model
        assert not [name for name in kept if hub.count(f"GET */{name}")]

    def test_wrong_bytes_among_those_kept_from_before_are_noticed(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        hub.fail(FILE, times=1, cut_after=2_000_000)
        hub.fail(FILE, times=5, cut_after=0)
        client.run("download", "org/model")
        (partial,) = client.cache.rglob(f"{DIGEST}.incomplete")
        partial.write_bytes(bytes(2_000_000))
        assert client.run("download", "org/model")["reference"] == "hash-mismatch"
        assert files_in(client.download("org/model")["folder"]) == model

    @pytest.mark.parametrize("name", ["config.json", WEIGHTS])
    def test_a_login_page_in_place_of_a_file_is_not_kept(
        self, hub: Hub, client: Client, model: dict[str, bytes], name: str
    ) -> None:
        hub.fail(FILE, times=1, cut_after=2_000_000)
        page = b"<html>Please log in to the hotel's network</html>"
        html = {"Content-Type": "text/html; charset=utf-8"}
        hub.fail(f"GET */{name}", status=200, headers=html, body=page)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "answer-not-from-hub")
        assert "a web page" in outcome["message"]
        assert name in outcome["message"]
        assert not any(b"hotel" in raw for raw in files_in(client.cache).values())
        hub.faults.clear()
        assert files_in(client.download("org/model")["folder"]) == model

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>Please log in</html>",
            b"{",
            b"[]",
            b"{}",
            json.dumps({"sha": "main", "siblings": []}).encode(),
            json.dumps({"sha": "a" * 40, "siblings": [{"rfilename": "x"}]}).encode(),
            json.dumps({"sha": "../../x" + "a" * 33, "siblings": []}).encode(),
            json.dumps(
                {
                    "sha": "a" * 40,
                    "siblings": [{"rfilename": "x.bin", "size": 1, "blobId": "../../../etc"}],
                }
            ).encode(),
            json.dumps(
                {
                    "sha": "a" * 40,
                    "siblings": [{"rfilename": "x.bin", "size": -1, "blobId": "b" * 40}],
                }
            ).encode(),
        ],
    )
    def test_a_listing_that_is_none_is_not_believed(
        self, hub: Hub, client: Client, body: bytes
    ) -> None:
        hub.fail(API, status=200, headers={"Content-Type": "application/json"}, body=body)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "answer-not-from-hub")
        assert not client.home.exists()

    def test_a_captive_portal_is_said(self, hub: Hub, client: Client) -> None:
        html = {"Content-Type": "text/html; charset=utf-8"}
        hub.fail(API, status=200, headers=html, body=b"<html>")
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (5, "answer-not-from-hub")
        assert "web page" in outcome["message"]

    @pytest.mark.parametrize(
        "name",
        [
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a\\..\\x",
            "C:x",
            "a//b",
            "./x",
            "a/.",
            "x\0",
            "n\ny",
        ],
    )
    def test_a_name_that_leads_outside_is_refused_before_anything_is_fetched(
        self, hub: Hub, client: Client, name: str
    ) -> None:
        hub.add("org/model", {**SMALL, WEIGHTS: b"w", name: b"evil"})
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (6, "file-name-unsafe")
        assert [r.path for r in hub.requests] == ["/api/models/org/model/revision/main"]
        assert not client.home.exists()

    def test_an_index_that_leads_outside_is_refused(self, hub: Hub, client: Client) -> None:
        index = json.dumps({"weight_map": {"w": "../../etc/passwd"}}).encode()
        hub.add("org/model", {**SMALL, "model.safetensors.index.json": index})
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (6, "index-escapes")

    def test_an_index_whose_bytes_are_wrong_decides_nothing(self, hub: Hub, client: Client) -> None:
        hub.add("org/model", MODEL)
        hub.fail("GET */model.safetensors.index.json", flip=3)
        outcome = client.run("download", "org/model")
        assert (outcome["code"], outcome["reference"]) == (6, "hash-mismatch")
        assert not client.home.exists()


class TestNoRoom:
    def test_a_disk_that_is_too_small_is_known_before_anything_is_written(
        self, hub: Hub, client: Client
    ) -> None:
        huge = {"rfilename": WEIGHTS, "size": 10**17, "blobId": "b" * 40}
        listing = json.dumps({"sha": "a" * 40, "siblings": [huge]}).encode()
        hub.fail(API, status=200, body=listing)
        outcome = client.run("download", "org/model", dry=True)
        assert (outcome["code"], outcome["reference"]) == (8, "download-too-large")
        assert "100 PB" in outcome["message"]
        assert not client.home.exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
    def test_a_disk_that_fills_up_half_way_keeps_what_came_and_goes_on(
        self, hub: Hub, client: Client, model: dict[str, bytes]
    ) -> None:
        client.file_limit = 3_000_000
        outcome = client.run("download", "org/model")
        client.file_limit = 0
        assert (outcome["code"], outcome["reference"]) == (8, "disk-full")
        assert partials(client) == [3_000_000]
        assert scan_warnings(client) == []
        assert files_in(client.download("org/model")["folder"]) == model
        assert hub.ranges(WEIGHTS) == [None, "bytes=3000000-"]


class TestAliases:
    """`llama-7b` has two homes in the catalogue."""

    HOMES = ("huggyllama/llama-7b", "baffo32/decapoda-research-llama-7B-hf")

    def test_the_first_home_is_taken_and_said(self, hub: Hub, client: Client) -> None:
        for home in self.HOMES:
            hub.add(home, MODEL)
        outcome = client.download("llama-7b")
        assert outcome["repo"] == self.HOMES[0]
        assert f"llama-7b stands for {self.HOMES[0]}" in outcome["why"]

    def test_the_next_is_taken_only_where_one_is_gone(self, hub: Hub, client: Client) -> None:
        hub.add(self.HOMES[1], MODEL)
        outcome = client.download("llama-7b")
        assert outcome["repo"] == self.HOMES[1]
        assert f"the hub has no repository {self.HOMES[0]}" in outcome["why"]

    @pytest.mark.parametrize("status", [403, 503])
    def test_a_home_that_says_no_is_never_swapped(
        self, hub: Hub, client: Client, status: int
    ) -> None:
        for home in self.HOMES:
            hub.add(home, MODEL)
        hub.fail(f"GET /api/models/{self.HOMES[0]}/*", status=status)
        assert client.run("download", "llama-7b")["code"] in {4, 5}
        assert hub.count(f"GET /api/models/{self.HOMES[1]}/*") == 0

    def test_no_home_left_names_them_all(self, hub: Hub, client: Client) -> None:
        outcome = client.run("download", "llama-7b")
        assert (outcome["code"], outcome["reference"]) == (3, "homes-gone")
        assert all(any(home in line for line in outcome["context"]) for home in self.HOMES)

    def test_offline_takes_the_home_that_is_in_the_cache(self, hub: Hub, client: Client) -> None:
        hub.add(self.HOMES[1], MODEL)
        folder = client.download("llama-7b")["folder"]
        assert client.download("llama-7b", offline=True)["folder"] == folder


def test_the_cache_is_sound_after_a_failed_download(
    hub: Hub, client: Client, model: dict[str, bytes]
) -> None:
    old = client.download("org/model")["folder"]
    hub.add("org/model", {**model, WEIGHTS: BIG[::-1], "config.json": b"[]"})
    hub.fail(FILE, cut_after=10_000, times=1)
    hub.fail(FILE, cut_after=0)
    assert client.run("download", "org/model")["code"] == 5
    assert scan_warnings(client) == []
    assert files_in(old) == model
    assert client.download("org/model", offline=True)["folder"] == old
    assert Path(old).is_dir()
