"""What a source's text names, and which names are refused."""

from pathlib import Path

import pytest

from weightsmith.errors import (
    NotCached,
    RevisionNotFound,
    SourceIsDirectory,
    SourceNotFound,
    SourceUnknown,
    WeightsmithError,
)
from weightsmith.hub.connection import connect, is_safe_name
from weightsmith.hub.resolve import HubSource, parse_hub_source, parse_source, resolve

LLAMA = ("huggyllama/llama-7b", "baffo32/decapoda-research-llama-7B-hf")


@pytest.mark.parametrize(
    "text, homes, revision",
    [
        ("org/name", ("org/name",), None),
        ("org/name@main", ("org/name",), "main"),
        ("org/name@refs/pr/1", ("org/name",), "refs/pr/1"),
        ("Org-1/na.me_2@v1.0+x", ("Org-1/na.me_2",), "v1.0+x"),
        ("llama-7b", LLAMA, None),
        ("LLaMA-7B", LLAMA, None),
        ("llama-7b@v1", LLAMA, "v1"),
    ],
)
def test_aliases_and_hub_ids_are_told_apart(
    text: str, homes: tuple[str, ...], revision: str | None
) -> None:
    source = parse_hub_source(text)
    assert (source.homes, source.revision) == (homes, revision)


@pytest.mark.parametrize(
    "text, error",
    [
        ("./org/name", SourceIsDirectory),
        ("/models/x", SourceIsDirectory),
        ("~/models", SourceIsDirectory),
        ("a/b/c", SourceIsDirectory),
        ("dir/", SourceIsDirectory),
        ("a\\b", SourceIsDirectory),
        ("C:models", SourceIsDirectory),
        ("org/model.safetensors", SourceIsDirectory),
        ("manifest.json", SourceIsDirectory),
        ("", SourceUnknown),
        ("llama-8b", SourceUnknown),
        ("org/", SourceIsDirectory),
        ("org/na me", SourceUnknown),
        ("org/a--b", SourceUnknown),
        ("org/a..b", SourceUnknown),
        ("org/" + "x" * 97, SourceUnknown),
        ("org/name\n", SourceUnknown),
        ("orgé/name", SourceUnknown),
        ("org/name@", RevisionNotFound),
        ("org/name@../../etc", RevisionNotFound),
        ("org/name@/etc", RevisionNotFound),
        ("org/name@a b", RevisionNotFound),
        ("llama-7b@../x", RevisionNotFound),
    ],
)
def test_what_can_be_neither_is_refused_without_asking_anybody(
    text: str, error: type[WeightsmithError]
) -> None:
    with pytest.raises(error):
        parse_hub_source(text)


def test_an_unknown_alias_offers_the_nearest() -> None:
    with pytest.raises(SourceUnknown) as error:
        parse_hub_source("llama-8b")
    assert "llama-7b" in error.value.context[0]


def test_a_directory_comes_before_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(parse_source("llama-7b"), HubSource)
    (tmp_path / "llama-7b").mkdir()
    assert parse_source("llama-7b") == Path("llama-7b")
    assert parse_source(tmp_path) == tmp_path
    for absent in ("./absent", tmp_path / "absent", "a/b/c"):
        with pytest.raises(SourceNotFound):
            parse_source(absent)


@pytest.mark.parametrize(
    "text, hint",
    [
        ("model/manifest.json", "did you mean model/manifests.json?"),
        ("model/step-9", "write hf://model/step-9"),
        ("model/step-9@main", "write hf://model/step-9@main"),
        ("absent/last.ckpt", "write hf://absent/last.ckpt"),
        ("last.ckpt", "weightsmith help sources"),
        ("./absent", "weightsmith help sources"),
        ("a/b/c", "weightsmith help sources"),
    ],
)
def test_what_looks_like_a_path_is_one_that_is_not_there(
    text: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifests.json").touch()
    with pytest.raises(SourceNotFound, match="no such file or directory") as caught:
        parse_source(text)
    assert hint in caught.value.hint_text


def test_a_folder_that_holds_folders_alone_may_be_called_as_an_organisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "other").mkdir(parents=True)
    (tmp_path / "org" / ".DS_Store").touch()
    named = parse_source("org/name")
    assert isinstance(named, HubSource)
    with pytest.raises(NotCached) as caught:
        resolve(named, connect(cache=tmp_path / "cache", offline=True))
    assert caught.value.context == ("org is a directory here, and there is no name in it",)


@pytest.mark.parametrize(
    "name", ["config.json", "a/b/c.txt", ".gitattributes", "a..b", "...x", "é"]
)
def test_ordinary_names_are_safe(name: str) -> None:
    assert is_safe_name(name)
