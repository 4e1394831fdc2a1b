"""An address names a place in a store, and never a secret."""

import pytest

from weightsmith.errors import ObjectAddressInvalid
from weightsmith.objects.address import is_object_address, parse_address
from weightsmith.sources.links import split


@pytest.mark.parametrize(
    "text, address",
    [
        ("s3://bucket/models/llama", "s3://bucket/models/llama"),
        ("S3://bucket/models/", "s3://bucket/models"),
        ("gs://my.bucket", "gs://my.bucket"),
        ("az://container/a/b/", "az://container/a/b"),
    ],
)
def test_an_address_is_a_bucket_and_a_prefix(text: str, address: str) -> None:
    assert is_object_address(text)
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///models", "s3://b/..", "s3://bucket/a/../b", "s3://bucket/a//b", "s3://-/x"],
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ObjectAddressInvalid):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["s3://me:hunter2@bucket/x", "az://box/x?sig=hunter2", "s3://bucket#hunter2/x"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ObjectAddressInvalid) as caught:
        parse_address(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["org/name", "./s3", "hf://models/org/name", "https://x/y"])
def test_other_sources_are_no_such_address(text: str) -> None:
    assert not is_object_address(text)


def test_addresses_make_a_chain() -> None:
    assert split("s3://b/base+gs://b/one+org/two") == ["s3://b/base", "gs://b/one", "org/two"]
