"""Hypothesis strategies for tensors and plans, with names and shapes that nobody would choose."""

from hypothesis import strategies as st

from weightsmith.formats.tensors import DTYPE_BITS, TensorInfo
from weightsmith.plan.model import (
    InputFile,
    InputPlan,
    InputTensor,
    Plan,
    SidecarPlan,
    TensorPlan,
)
from weightsmith.plan.shards import lay_out

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
DIGESTS = st.text("0123456789abcdef", min_size=8, max_size=8)
WHOLE_BYTES = sorted(dtype for dtype, bits in DTYPE_BITS.items() if bits % 8 == 0)
SHAPES = st.lists(st.integers(0, 40), max_size=3).map(tuple)


@st.composite
def infos(draw: st.DrawFn, name: str | None = None) -> TensorInfo:
    """A tensor of any dtype that fills whole bytes."""
    return TensorInfo(
        draw(NAMES) if name is None else name, draw(st.sampled_from(WHOLE_BYTES)), draw(SHAPES)
    )


@st.composite
def tensor_plans(draw: st.DrawFn, name: str | None = None) -> TensorPlan:
    """A rule with one to three inputs."""
    return TensorPlan(
        output=draw(infos(name)),
        codec=draw(NAMES),
        params=draw(st.dictionaries(NAMES, NAMES, max_size=3)),
        inputs=tuple(
            draw(st.lists(st.builds(InputTensor, NAMES, infos()), min_size=1, max_size=3))
        ),
    )


@st.composite
def many_tensor_plans(draw: st.DrawFn, min_size: int = 0) -> list[TensorPlan]:
    """Rules for tensors whose names differ."""
    names = draw(st.lists(NAMES, unique=True, min_size=min_size, max_size=6))
    return [draw(tensor_plans(name)) for name in names]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan that never was, with every field in use."""
    texts = st.lists(NAMES, max_size=3).map(tuple)
    files = st.lists(st.builds(InputFile, NAMES, st.integers(0, 2**63), DIGESTS), max_size=3)
    return Plan(
        verb=draw(NAMES),
        inputs=tuple(
            draw(st.lists(st.builds(InputPlan, NAMES, files.map(tuple), DIGESTS), max_size=2))
        ),
        shards=lay_out(draw(many_tensor_plans()), draw(st.integers(1, 5000))),
        sidecars=tuple(
            draw(
                st.lists(
                    st.builds(SidecarPlan, NAMES, NAMES, st.integers(0), DIGESTS, texts), max_size=2
                )
            )
        ),
        dropped=draw(texts),
        notes=draw(texts),
        repairs=draw(texts),
        release=draw(NAMES),
    )
