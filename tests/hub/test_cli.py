"""The two commands as a person and a script meet them."""

import json
import random
import signal
import subprocess

import pytest

from tests.support.hub.cache_maker import Maker
from tests.support.hub.client import Client
from tests.support.hub.people import ShellUser
from tests.support.hub.repositories import MODEL, files_in
from tests.support.hub.server import Hub
from tests.support.paths import ROOT

WEIGHTS = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def person(hub: Hub, client: Client) -> ShellUser:
    return ShellUser(hub, client)


def test_faults_of_a_downloaded_copy_are_mended_where_they_are(hub: Hub, person: ShellUser) -> None:
    hub.add("org/model", ROOT / "tests" / "vectors" / "vicuna_v1_1" / "base")
    seen = person.run("inspect", "org/model")
    hint = "hint: to mend a copy of it: weightsmith download org/model --local-dir DIR"
    assert seen.stderr.splitlines()[-1] == hint
    got = person.run("download", "org/model", "--local-dir", "copy")
    assert got.stderr.splitlines()[-1] == "hint: weightsmith fix-tokenizer ./copy"
    assert person.run("fix-tokenizer", "copy").returncode == 0


@pytest.mark.slow
def test_the_hint_for_faults_in_the_hubs_cache_works(hub: Hub, person: ShellUser) -> None:
    """There the files lie behind links, and are mended in a copy."""
    hub.add("org/model", ROOT / "tests" / "vectors" / "vicuna_v1_1" / "base")
    seen = person.run("verify", "org/model")
    assert seen.returncode == 0, seen.stderr
    (hint,) = [line for line in seen.stderr.splitlines() if "fix-tokenizer" in line]
    words = hint.replace("DIR", "mended").split()
    assert person.run(*words[words.index("fix-tokenizer") :]).returncode == 0
    assert (person.cwd / "mended").is_dir()


class TestDownload:
    def test_a_dry_run_then_the_run_then_offline(self, hub: Hub, person: ShellUser) -> None:
        hub.add("huggyllama/llama-7b", MODEL)
        dry = person.run("download", "llama-7b", "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert not person.client.home.exists()
        assert "llama-7b stands for huggyllama/llama-7b" in " ".join(dry.stdout.split())
        done = person.run("download", "huggyllama/llama-7b")
        assert done.returncode == 0, done.stderr
        assert "done" in done.stdout
        quiet = person.run("download", "huggyllama/llama-7b", "--offline", "-q")
        assert files_in(quiet.stdout.strip()) == MODEL
        assert quiet.stderr == ""

    def test_json_is_one_document_with_all_that_is_shown(self, hub: Hub, person: ShellUser) -> None:
        hub.add("org/model", MODEL)
        done = person.run("download", "org/model", "--json", "--local-dir", "here")
        document = json.loads(done.stdout)
        assert document["schema"] == "weightsmith.download/1"
        assert set(document["fetched"]) == set(MODEL)
        assert files_in(person.cwd / "here") == MODEL
        assert done.stderr == ""

    def test_a_gated_repository_tells_the_way_in(self, hub: Hub, person: ShellUser) -> None:
        hub.add("org/model", MODEL)
        hub.repos["org/model"].gated = True
        refused = person.run("download", "org/model")
        assert refused.returncode == 4
        assert "[repo-gated]" in refused.stderr
        assert "hint: accept the licence at https://huggingface.co/org/model" in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_an_interrupt_does_not_wait_for_a_silent_server(
        self, hub: Hub, person: ShellUser
    ) -> None:
        hub.add("org/model", {"model.safetensors": WEIGHTS, "config.json": b"{}"})
        hub.fail("GET /cdn/*", hold_at=2_000_000)
        process = person.start("download", "org/model", stderr=subprocess.PIPE)
        person.client.await_bytes(WEIGHTS, 2_000_000)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=240)  # the server may be silent for 100 s
        assert process.returncode == 130
        assert "what has arrived is kept" in said
        assert "weightsmith download org/model" in said
        hub.forget_requests()
        assert person.run("download", "org/model").returncode == 0
        assert hub.ranges("model.safetensors") == ["bytes=2000000-"]

    def test_a_path_is_refused_by_its_name(self, person: ShellUser) -> None:
        refused = person.run("download", "./llama")
        assert refused.returncode == 2
        assert "[source-is-directory]" in refused.stderr


class TestCleanCache:
    @pytest.fixture
    def maker(self, person: ShellUser) -> Maker:
        maker = Maker(person.client.cache)
        maker.revision("org/old", {"model.safetensors": maker.raw(5000)}, used=90)
        maker.revision("org/new", {"model.safetensors": maker.raw(3000)}, used=2, ref="main")
        maker.leftover("org/new", f"{'0' * 64}.incomplete", 900)
        return maker

    def test_yes_alone_takes_only_what_nobody_needs(self, person: ShellUser, maker: Maker) -> None:
        done = person.run("clean-cache", "--yes")
        assert done.returncode == 0, done.stderr
        assert "900 B freed, 8.00 kB left" in done.stdout
        assert len(maker.left()) == 2

    def test_without_a_terminal_it_asks_for_yes(self, person: ShellUser, maker: Maker) -> None:
        for args in ([], ["--older-than", "30d"]):
            refused = person.run("clean-cache", *args)
            assert refused.returncode == 2
            assert "--yes" in refused.stderr
        assert len(maker.left()) == 2

    def test_a_dry_run_shows_reasons_and_deletes_nothing(
        self, person: ShellUser, maker: Maker
    ) -> None:
        shown = person.run("clean-cache", "--older-than", "30d", "--dry-run")
        assert "not used for 90 days" in shown.stdout
        assert "used 2 days ago" not in shown.stdout  # only what goes is shown
        assert "staying: 2 rows of 3.90 kB (-v lists all)" in shown.stdout
        assert "used 2 days ago" in person.run("clean-cache", "--older-than=30d", "-nv").stdout
        assert shown.stderr == ""
        assert "dry run: 1 of 3 rows, 5.00 kB would go" in shown.stdout
        assert len(maker.left()) == 2

    def test_the_table_fits_a_narrow_terminal(self, person: ShellUser, maker: Maker) -> None:
        long = f"some-organisation/a-model-with-{'a-long-' * 9}name-7b"
        maker.revision(long, {"model.safetensors": b"x", "pytorch_model.bin": b"y"}, used=400)
        person.env["COLUMNS"] = "80"
        for args, told in ((["--older-than", "30d", "-nv"], ""), (["--list"], "name-7b")):
            lines = person.run("clean-cache", *args).stdout.splitlines()[1:]  # above is a path
            assert max(map(len, lines)) <= 80
            assert len([line for line in lines if line.strip().startswith(("x  some", "some"))]) < 3
            assert [line for line in lines if "some-organ" in line and told in line]
            assert not [line for line in lines if "`" in line or "=True" in line]

    def test_the_list_tells_revisions_sizes_and_last_use(
        self, person: ShellUser, maker: Maker
    ) -> None:
        listed = person.run("clean-cache", "--list").stdout
        old, new = (line for line in listed.splitlines() if "org/" in line and "kB" in line)
        assert old.split()[0] == "org/old"  # the largest first
        assert "90 days ago" in old
        assert new.split()[0] == "org/new@main"
        by_name = person.run("clean-cache", "--list", "--sort", "name", "-q").stdout
        assert by_name.split() == ["org/new", "org/old"]
        assert len(maker.left()) == 2

    def test_a_cache_that_is_not_there_is_an_error(self, person: ShellUser) -> None:
        refused = person.run("clean-cache", "--cache-dir", "./nowhere", "--dry-run")
        assert refused.returncode == 2
        assert "'./nowhere' does not exist" in refused.stderr

    def test_what_is_no_model_goes_by_the_name_in_the_table(
        self, person: ShellUser, maker: Maker
    ) -> None:
        maker.revision("org/texts", {"a.parquet": b"x" * 700}, kind="datasets")
        listed = person.run("clean-cache", "--list", "-q").stdout.split()
        assert "dataset/org/texts" in listed
        done = person.run("clean-cache", "dataset/org/texts", "-y")
        assert "700 B freed" in done.stdout, done.stderr

    def test_v_lists_all_that_the_cache_holds(self, person: ShellUser, maker: Maker) -> None:
        for number in range(9):
            maker.revision(f"org/m{number}", {"model.safetensors": b"x"})
        short = person.run("clean-cache", "org/none", "--dry-run").stderr
        assert "  and 6 more (-v lists all)\n" in short
        whole = person.run("clean-cache", "org/none", "--dry-run", "-v").stderr
        assert "  org/old\n" in whole
        assert "more" not in whole

    def test_json_names_every_row(self, person: ShellUser, maker: Maker) -> None:
        done = person.run("clean-cache", "org/old", "--yes", "--json")
        document = json.loads(done.stdout)
        assert document["schema"] == "weightsmith.clean-cache/1"
        assert document["deleted"] is True
        assert document["freed_nbytes"] == 5000
        assert [row["remove"] for row in document["rows"]] == [False, False, True]
        assert done.stderr == ""

    def test_at_a_terminal_one_chooses_and_is_asked(self, person: ShellUser, maker: Maker) -> None:
        screen = person.at_terminal("clean-cache", answers=["7", "1", "y"])
        assert "7 is neither a number from 1 to 3" in screen
        assert "delete 1 of 3 rows, 5.00 kB?" in screen
        assert "5.00 kB freed" in screen
        assert {name.partition("@")[0] for name in maker.left()} == {"org/new"}

    @pytest.mark.slow
    def test_at_a_terminal_names_will_do(self, person: ShellUser, maker: Maker) -> None:
        screen = person.at_terminal("clean-cache", answers=["org/none", "org/old", "y"])
        assert "org/none is neither a number from 1 to 3 nor a name there" in screen
        assert "5.00 kB freed" in screen

    def test_at_a_terminal_nothing_chosen_is_nothing_deleted(
        self, person: ShellUser, maker: Maker
    ) -> None:
        assert "nothing to delete" in person.at_terminal("clean-cache", answers=[""])
        screen = person.at_terminal("clean-cache", answers=["all", "n"])
        assert "nothing was deleted" in screen
        assert maker.on_disk() == 8900

    def test_a_span_of_time_is_explained_when_it_is_none(self, person: ShellUser) -> None:
        refused = person.run("clean-cache", "--older-than", "soon")
        assert refused.returncode == 2
        assert "30d" in refused.stderr
