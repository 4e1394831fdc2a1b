"""Addresses of repositories, as they are pasted from a browser or the hub's own tools."""

import pytest

from tests.support.hub.client import Client
from tests.support.hub.server import Hub
from weightsmith.errors import AddressNotModel
from weightsmith.hub.resolve import HubSource, parse_source

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    "address, home, revision",
    [
        (f"{HUB}/org/name", "org/name", None),
        (f"{HUB}/org/name/", "org/name", None),
        ("http://www.huggingface.co/org/name?library=transformers#files", "org/name", None),
        ("https://hf.co/org/name", "org/name", None),
        (f"{HUB}/org/name/tree/main", "org/name", "main"),
        (f"{HUB}/org/name/tree/refs%2Fpr%2F1", "org/name", "refs/pr/1"),
        (f"{HUB}/org/name/tree/refs/pr/1", "org/name", "refs/pr/1"),
        ("hf://models/org/name@v1.0", "org/name", "v1.0"),
        ("hf://org/name", "org/name", None),
        ("https://mirror.example/org/name", "org/name", None),
    ],
)
def test_a_models_address_is_its_id(
    address: str, home: str, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    found = parse_source(address)
    assert isinstance(found, HubSource)
    assert (found.homes, found.revision) == ((home,), revision)


@pytest.mark.parametrize(
    "address, what",
    [
        (f"{HUB}/datasets/org/name", "a dataset"),
        ("hf://datasets/org/name", "a dataset"),
        (f"{HUB}/spaces/org/name", "a space"),
        (f"{HUB}/org/name/blob/main/model.safetensors", "a file in"),
        (f"{HUB}/org/name/resolve/main/model.safetensors", "a file in"),
        (f"{HUB}/org/name/discussions/7", "a pull request"),
        (f"{HUB}/org", "no repository"),
        (f"{HUB}/", "no repository"),
        ("https://example.com/org/name", "another host"),
        ("https://huggingface.co.example.com/org/name", "another host"),
    ],
)
def test_any_other_address_is_told_for_what_it_is(address: str, what: str) -> None:
    with pytest.raises(AddressNotModel, match=what) as caught:
        parse_source(address)
    assert "org/name" in caught.value.hint_text or "ORG/NAME" in caught.value.hint_text


def test_what_an_address_names_is_fetched(hub: Hub, client: Client) -> None:
    hub.add("org/model", {"config.json": b"{}", "pytorch_model.bin": b"b" * 100})
    outcome = client.download(f"{hub.url}/org/model/tree/main")
    assert outcome["repo"] == "org/model"
