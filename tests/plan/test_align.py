"""Base and delta are paired by name and shape, and every reason why they do not fit is told."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.plan_strategies import NAMES, SHAPES, infos
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.align import Pair, Pairing, Policy, pair, sizes_apart

BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"
SIDES = st.lists(NAMES, unique=True, max_size=6).flatmap(
    lambda names: st.tuples(*(infos(name) for name in names))
)


def paired(
    base: list[TensorInfo],
    delta: list[TensorInfo],
    policy: Policy | None = None,
    *,
    vocab: tuple[int | None, int | None] = (None, None),
    sizes: str = "",
) -> Pairing:
    return pair(
        {info.name: info for info in base},
        {info.name: info for info in delta},
        policy or Policy(),
        base_vocab=vocab[0],
        delta_vocab=vocab[1],
        sizes=sizes,
    )


def f16(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, "F16", shape)


@given(SIDES)
def test_equal_names_and_shapes_fit_in_the_deltas_order(delta: tuple[TensorInfo, ...]) -> None:
    base = [TensorInfo(info.name, "F32", info.shape) for info in reversed(delta)]
    found = paired(base, list(delta))
    assert (found.problems, found.dropped, found.new_rows) == ((), (), ())
    assert [each.delta for each in found.pairs] == list(delta)
    assert all(each.base is not None and each.base.dtype == "F32" for each in found.pairs)
    assert not any(each.grows for each in found.pairs)


@given(SIDES, SIDES)
def test_every_difference_is_a_problem_and_nothing_else_is(
    base: tuple[TensorInfo, ...], delta: tuple[TensorInfo, ...]
) -> None:
    ours, theirs = ({info.name: info.shape for info in side} for side in (base, delta))
    found = paired(list(base), list(delta))
    differing = [name for name in theirs if name in ours and ours[name] != theirs[name]]
    assert len(found.problems) == len(ours.keys() ^ theirs.keys()) + len(differing)
    assert len(found.pairs) == len(ours.keys() & theirs.keys()) - len(differing)
    for name in (ours.keys() ^ theirs.keys()) | set(differing):
        assert any(name in problem for problem in found.problems)


def test_problems_are_all_told_at_once_and_say_which_side() -> None:
    found = paired(
        [f16("same", 2), f16("lacking", 3), f16("other", 4, 5), f16("flat", 20)],
        [f16("same", 2), f16("extra", 3), f16("other", 5, 4), f16("flat", 4, 5)],
    )
    assert found.problems == (
        "only the delta has extra, F16 [3]",
        "only the base has lacking, F16 [3]",
        "shapes differ in other: base [4, 5], delta [5, 4]",
        "shapes differ in flat: base [20], delta [4, 5]",
    )


def test_a_quarter_of_the_elements_is_one_of_four_fsdp_or_zero_shards() -> None:
    """As seen in reports: a 32001 x 8192 embedding, and what one of four ranks saved of it."""
    base, delta = f16("model.embed_tokens.weight", 32000, 8192), f16("model.embed_tokens.weight", 0)
    delta = f16(delta.name, 65_536_000)
    (problem,) = paired([base], [delta]).problems
    assert "the delta looks like one of 4 FSDP or ZeRO shards" in problem
    assert "65536000 against 262144000 elements" in problem
    (problem,) = paired([delta], [base]).problems
    assert "the base looks like one of 4 FSDP or ZeRO shards" in problem
    reported = paired([f16("w", 65_537_024)], [f16("w", 262_148_096)])
    assert "one of 4 FSDP or ZeRO shards: 65537024 against 262148096" in reported.problems[0]


def test_matrices_of_another_size_are_of_another_model_and_no_shards() -> None:
    """A 7B delta on a 65B base, whose matrices have a quarter and whose norms half of the other."""
    layer, norm = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
    found = paired(
        [f16(layer, 8192, 8192), f16(norm, 8192)], [f16(layer, 4096, 4096), f16(norm, 4096)]
    )
    assert found.cause.startswith("they seem to be of different model sizes")
    assert found.problems == (
        f"shapes differ in {layer}: base [8192, 8192], delta [4096, 4096]",
        f"shapes differ in {norm}: base [8192], delta [4096]",
    )
    assert paired([f16(norm, 8)], [f16(norm, 8)]).cause == ""
    turned = paired([f16(layer, 4, 8)], [f16(layer, 8, 4)])
    assert turned.cause == ""
    assert len(turned.problems) == 1


def test_shares_that_do_not_agree_are_no_shards() -> None:
    half = (f16("norm", 8192), f16("norm", 4096))
    quarter = (f16("w", 64, 32), f16("w", 16, 32))
    for both in (half, quarter):
        assert "FSDP or ZeRO" in paired([both[0]], [both[1]]).problems[0]
    found = paired([half[0], quarter[0]], [half[1], quarter[1]])
    assert "FSDP" not in "".join(found.problems)


def test_a_flat_tensor_is_a_shard_whatever_the_others_say() -> None:
    base = [f16("w", 64001, 4096), f16("norm", 4096)]
    found = paired(base, [f16("w", 65_537_024), f16("norm", 2048)])
    assert [("FSDP" in problem) for problem in found.problems] == [True, False]


def test_configs_that_name_other_sizes_speak_louder_than_shapes() -> None:
    base = {"hidden_size": 8192, "num_hidden_layers": 80, "vocab_size": 32000}
    delta = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32001}
    sizes = sizes_apart(base, delta)
    assert sizes == (
        "they are of different model sizes: the base has hidden_size 8192, num_hidden_layers 80,"
        " the delta hidden_size 4096, num_hidden_layers 32"
    )
    found = paired([f16("w", 32000, 8192)], [f16("w", 32000, 4096)], sizes=sizes)
    assert found.cause == sizes
    assert "FSDP" not in found.problems[0]
    assert paired([f16("w", 8)], [f16("w", 8)], sizes=sizes).cause == ""
    for silent in ({}, {"hidden_size": 8192}, {"hidden_size": "4096"}):
        assert sizes_apart(base, silent) == ""


@given(SHAPES, SHAPES)
def test_only_whole_fractions_are_called_shards(
    base: tuple[int, ...], delta: tuple[int, ...]
) -> None:
    assume(base != delta)
    found = paired([f16("w", *base)], [f16("w", *delta)])
    few, many = sorted([f16("w", *base).numel, f16("w", *delta).numel])
    share = Fraction(few, many) if many else Fraction(0)
    is_shard = share.numerator == 1 and share.denominator in {2, 4, 8, 16, 32, 64, 128, 256}
    small = base if f16("w", *base).numel == few else delta
    alike = len(base) == len(delta) and sum(a != b for a, b in zip(base, delta, strict=True)) == 1
    is_shard = is_shard and (len(small) == 1 or alike)
    assert ("looks like one of" in found.problems[0]) == is_shard


@pytest.mark.parametrize("suffix", ["inv_freq", "cos_cached", "sin_cached"])
def test_buffers_of_old_transformers_are_dropped_on_either_side(suffix: str) -> None:
    name = f"model.layers.7.self_attn.rotary_emb.{suffix}"
    weight = f16("w", 2)
    for base, delta in (
        ([weight, f16(name, 16)], [weight]),
        ([weight], [weight, f16(name, 16)]),
        ([weight, f16(name, 16)], [weight, f16(name, 64)]),
    ):
        found = paired(base, delta)
        assert found.problems == ()
        assert found.dropped == (name,)
        assert found.pairs == (Pair(weight, weight),)


@pytest.mark.parametrize("name", ["inv_freq", "model.rotary_emb.weight", "rotary_emb.inv_freq.x"])
def test_what_only_sounds_like_a_buffer_is_not_dropped(name: str) -> None:
    assert paired([], [f16(name, 2)]).problems == (f"only the delta has {name}, F16 [2]",)


EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def _grown(policy: Policy | None, vocab: tuple[int | None, int | None]) -> Pairing:
    return paired(
        [f16(name, 32000, 64) for name in EMBEDDINGS],
        [f16(name, 32001, 64) for name in EMBEDDINGS],
        policy,
        vocab=vocab,
    )


def test_a_vocabulary_may_grow_under_a_policy() -> None:
    for policy in (Policy(new_rows="zero"), Policy(new_rows="mean")):
        found = _grown(policy, (32000, 32001))
        assert (found.problems, found.new_rows) == ((), ())
        assert all(each.grows for each in found.pairs)
        assert len(found.pairs) == 2


def test_a_vocabulary_that_grew_without_a_policy_is_left_undecided() -> None:
    found = _grown(None, (32000, 32001))
    assert found.problems == ()
    assert [info.name for info in found.new_rows] == list(EMBEDDINGS)


@pytest.mark.parametrize(
    "vocab", [(None, None), (32000, None), (None, 32001), (32000, 32002), (31999, 32001)]
)
def test_rows_are_a_vocabulary_only_if_both_configs_say_so(
    vocab: tuple[int | None, int | None],
) -> None:
    found = _grown(Policy(new_rows="zero"), vocab)
    assert len(found.problems) == 2
    assert found.pairs == ()


@pytest.mark.parametrize(
    "base, delta",
    [
        ((32001, 64), (32000, 64)),  # the base has more rows: the delta's was made from another
        ((32000, 64), (32001, 65)),
        ((32000,), (32001, 1)),
        ((), (32001,)),
        ((64, 32000), (64, 32001)),
    ],
)
def test_nothing_but_more_rows_in_the_delta_is_a_grown_vocabulary(
    base: tuple[int, ...], delta: tuple[int, ...]
) -> None:
    vocab = (base[0] if base else 0, delta[0])
    found = paired([f16("w", *base)], [f16("w", *delta)], Policy(new_rows="zero"), vocab=vocab)
    assert len(found.problems) == 1
    assert (found.pairs, found.new_rows) == ((), ())


def test_tensors_stored_whole_need_no_base_and_take_none() -> None:
    policy = Policy(whole=("model.mm_projector.*", "lm_head.weight"))
    found = paired(
        [f16("lm_head.weight", 32000, 64), f16("w", 2)],
        [f16("model.mm_projector.weight", 64, 1024), f16("lm_head.weight", 32001, 64), f16("w", 2)],
        policy,
    )
    assert found.problems == ()
    assert [(each.delta.name, each.base is None) for each in found.pairs] == [
        ("model.mm_projector.weight", True),
        ("lm_head.weight", True),
        ("w", False),
    ]
