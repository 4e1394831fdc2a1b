"""Training outputs of the benchmark: what eight processes leave of its base model."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench import models
from tests.bench.models import Size

WORLD: Final = 8


def write_ranks(size: Size, folder: Path) -> None:
    """Files as verl writes them, of DTensors that FSDP2 cut along rows.

    Needs the memory of the model. A process group that only counts stands for the processes.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    whole = dict(_tensors(size))
    for rank in range(WORLD):
        dist.init_process_group("fake", rank=rank, world_size=WORLD, store=FakeStore())
        mesh = init_device_mesh("cpu", (WORLD,), mesh_dim_names=("fsdp",))
        state = {}
        for name, tensor in whole.items():
            chunks = tensor.chunk(WORLD)
            local = chunks[rank].clone() if rank < len(chunks) else tensor[:0]
            state[name] = DTensor.from_local(
                local, mesh, [Shard(0)], shape=tensor.shape, stride=tensor.stride()
            )
        torch.save(state, folder / f"model_world_size_{WORLD}_rank_{rank}.pt")
        dist.destroy_process_group()


def write_dcp(size: Size, folder: Path) -> None:
    """A distributed checkpoint, by torch's own writer. Needs the memory of the model."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        # A single process is what is meant here, and said by `no_dist`.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        save(dict(_tensors(size)), checkpoint_id=folder, no_dist=True)


def write_zero3(size: Size, folder: Path) -> None:
    """States of ZeRO-3, with float32 weights. Needs the memory of twice the model."""
    import torch

    shapes = models.tensor_shapes(size)
    flats: list[list[Any]] = [[] for _ in range(WORLD)]
    for _, tensor in _tensors(size):
        flat = tensor.float().reshape(-1)
        share = -(-len(flat) // WORLD)
        padded = torch.nn.functional.pad(flat, (0, share * WORLD - len(flat)))
        for rank in range(WORLD):
            flats[rank].append(padded[rank * share : (rank + 1) * share].clone())
    step = folder / "global_step1"
    step.mkdir()
    (folder / "latest").write_text("global_step1")
    about = {
        "module": {name: torch.zeros(0, dtype=torch.float16) for name in shapes},
        "buffer_names": [],
        "param_shapes": [{name: torch.Size(shape) for name, shape in shapes.items()}],
        "frozen_param_shapes": None,
        "frozen_param_fragments": None,
        "shared_params": {},
        "global_steps": 1,
        "dp_world_size": WORLD,
        "ds_version": "0.19.8",
        "ds_config": {"fp16": {"enabled": True}},
    }
    for rank in range(WORLD):
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save(about, step / f"{name}_model_states.pt")
        held = {
            "zero_stage": 3,
            "partition_count": WORLD,
            "fp32_flat_groups": [torch.cat(flats[rank])],
        }
        flats[rank] = []
        states = {"optimizer_state_dict": held, "ds_version": "0.19.8"}
        torch.save(states, step / f"{name}_optim_states.pt")


def _tensors(size: Size) -> Iterator[tuple[str, Any]]:
    for name, shape in models.tensor_shapes(size).items():
        yield name, models.tensor(name, shape, "base")
