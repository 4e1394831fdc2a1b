"""Tensors are laid out into shards: all of them, once, in order, within the limit."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pace import examples
from tests.support.plan_strategies import many_tensor_plans
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import TensorPlan
from weightsmith.plan.shards import lay_out


@settings(max_examples=examples(40))
@given(many_tensor_plans(), st.integers(1, 20_000))
def test_every_tensor_has_one_place_and_the_order_is_kept(
    tensors: list[TensorPlan], limit: int
) -> None:
    shards = lay_out(tensors, limit)
    assert [tensor for shard in shards for tensor in shard.tensors] == tensors
    assert all(shard.tensors for shard in shards) or not tensors
    assert len({shard.name for shard in shards}) == len(shards)


@settings(max_examples=examples(40))
@given(many_tensor_plans(min_size=1), st.integers(1, 20_000))
def test_a_shard_is_full_but_never_over_the_limit(tensors: list[TensorPlan], limit: int) -> None:
    shards = lay_out(tensors, limit)
    for shard in shards:
        assert shard.data_nbytes <= limit or len(shard.tensors) == 1
    for shard, following in itertools.pairwise(shards):
        assert shard.data_nbytes + following.tensors[0].output.nbytes > limit


@settings(max_examples=examples(40))
@given(many_tensor_plans())
def test_without_a_limit_there_is_one_file(tensors: list[TensorPlan]) -> None:
    assert [shard.name for shard in lay_out(tensors, 10**15)] == ["model.safetensors"]


def test_shards_are_named_as_the_hub_names_them() -> None:
    tensors = [
        TensorPlan(TensorInfo(str(number), "F16", (1,)), "copy@1", {}, ()) for number in range(12)
    ]
    names = [shard.name for shard in lay_out(tensors, 2)]
    assert names[0] == "model-00001-of-00012.safetensors"
    assert names[-1] == "model-00012-of-00012.safetensors"


@settings(max_examples=examples(40))
@given(many_tensor_plans(min_size=1), st.integers(1, 20_000))
def test_places_in_a_file_fill_it_without_a_hole(tensors: list[TensorPlan], limit: int) -> None:
    for shard in lay_out(tensors, limit):
        end = len(shard.header)
        for place in shard.places.values():
            assert place.offset == end
            end += place.info.nbytes
        assert end == shard.nbytes
        assert shard.places.keys() == {tensor.output.name for tensor in shard.tensors}
