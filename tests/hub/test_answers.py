"""What a hub, or a mirror, may answer: as much as is sound; and what of it is told."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub.client import Client
from tests.support.hub.repositories import MODEL, SHARDS, files_in
from tests.support.hub.server import Hub
from weightsmith.errors import FileNameUnsafe, HubUnreachable, TensorTwice
from weightsmith.hub.connection import ANSWER_LIMIT_NBYTES, PAGES

API = "GET /api/models/org/model/*"
TREE = "GET /api/models/org/model/tree"


# --- a mirror that knows no hashes ----------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1000, 2])
def test_a_mirror_that_leaves_the_hashes_out_is_asked_for_the_commits_files(
    hub: Hub, client: Client, page_size: int
) -> None:
    hub.add("org/model", MODEL)
    hub.lists_hashes, hub.page_size = False, page_size
    outcome = client.download("org/model")
    assert files_in(outcome["folder"]) == MODEL
    assert all(len(file["digest"]) in {40, 64} for file in outcome["files"])
    pages = -(-(len(MODEL) + 1) // page_size)
    assert hub.count(f"{TREE}/*") == pages
    name = next(iter(SHARDS))
    hub.add("org/other", MODEL)
    hub.fail(f"GET /cdn/org/other/*/{name}", flip=100)
    assert client.run("download", "org/other")["reference"] == "hash-mismatch"


def test_its_next_page_is_looked_for_nowhere_else(hub: Hub, client: Client) -> None:
    commit = hub.add("org/model", MODEL)
    hub.lists_hashes = False
    for url in ("http://169.254.169.254/latest", f"{hub.url}/api/models/org/private/tree/main"):
        headers = {"Content-Type": "application/json", "Link": f'<{url}>; rel="next"'}
        hub.fail(
            f"GET /api/models/org/model/tree/{commit}", status=200, headers=headers, body=b"[]"
        )
        outcome = client.run("download", "org/model")
        assert outcome["reference"] == "answer-not-from-hub"
        assert "the next page of its list lies elsewhere" in outcome["message"]


def test_a_list_of_files_that_never_ends_is_left(hub: Hub, client: Client) -> None:
    commit = hub.add("org/model", MODEL)
    hub.lists_hashes = False
    again = f"{hub.url}/api/models/org/model/tree/{commit}?recursive=true"
    headers = {"Content-Type": "application/json", "Link": f'<{again}>; rel="next"'}
    hub.fail(f"{TREE}/{commit}", status=200, headers=headers, body=b"[]")
    outcome = client.run("download", "org/model")
    assert outcome["reference"] == "answer-not-from-hub"
    assert f"has more than {PAGES} pages" in outcome["message"]
    assert hub.count(f"{TREE}/*") == PAGES


# --- answers that are too large -------------------------------------------------------------------


@pytest.mark.sampled(1)
@pytest.mark.parametrize("status", [200, 400, 404])
def test_an_answer_that_unpacks_to_gigabytes_is_not_unpacked(
    hub: Hub, client: Client, status: int
) -> None:
    hub.add("org/model", MODEL)
    plain = client.run("download", "org/model", dry=True)
    packing = zlib.compressobj(1, wbits=31)
    body = b"".join(packing.compress(bytes(1_000_000)) for _ in range(400)) + packing.flush()
    assert len(body) < 3_000_000
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    hub.fail(API, status=status, headers=headers, body=body)
    outcome = client.run("download", "org/model")
    assert outcome["reference"] == "answer-not-from-hub"
    assert "it sends more than 64.0 MB for an answer" in outcome["message"]
    assert outcome["peak_nbytes"] - plain["peak_nbytes"] < 3 * ANSWER_LIMIT_NBYTES


def test_an_answer_that_is_packed_is_understood(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    plain = client.run("download", "org/model", dry=True)
    record = {"id": "org/model", "sha": plain["commit"], "gated": False}
    siblings: list[dict[str, Any]] = [
        {"rfilename": f["name"], "size": f["nbytes"], "blobId": f["digest"][:40]}
        | ({"lfs": {"size": f["nbytes"], "sha256": f["digest"]}} if len(f["digest"]) > 40 else {})
        for f in plain["files"]
    ]
    body = gzip.compress(json.dumps({**record, "siblings": siblings}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    hub.fail(API, status=200, headers=headers, body=body)
    assert files_in(client.download("org/model")["folder"]) == MODEL


# --- what is told ---------------------------------------------------------------------------------


def test_a_password_in_the_endpoint_is_told_nowhere(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    client.env["HF_ENDPOINT"] = hub.url.replace("://", "://me:secret@")
    outcomes = [client.download("org/model"), client.run("download", "org/none")]
    hub.fail(API, status=200, headers={"Content-Type": "text/html"}, body=b"<html>")
    outcomes.append(client.run("download", "org/model", dry=True))
    hub.forget_requests()
    hub.fail(API, status=503)
    outcomes.append(client.run("download", "org/model", dry=True))
    client.env["HF_ENDPOINT"] = "http://me:secret@127.0.0.1:9"
    outcomes.append(client.run("download", "org/other", dry=True))
    for outcome in outcomes:
        assert "secret" not in json.dumps(outcome)
    assert outcomes[0]["endpoint"] == hub.url.replace("://", "://***@")
    assert "http://***@127.0.0.1" in outcomes[-1]["message"]


def test_names_in_errors_are_cut_and_passwords_masked() -> None:
    long = "x" * 100_000
    error = FileNameUnsafe(repo="org/model", name=long, context=[long])
    assert len(str(error)) < 300
    assert len(error.values["name"]) == 200
    assert str(error).endswith("...")
    assert len(error.context[0]) == 1000
    kept = Path("/", *["directory"] * 40)
    assert str(kept) in str(TensorTwice(count=1, source=kept))
    told = HubUnreachable(endpoint="https://me:pa@ss@host/x", reason="at http://u:p@h/y@z")
    assert str(told) == "cannot reach https://***@host/x: at http://***@h/y@z"
