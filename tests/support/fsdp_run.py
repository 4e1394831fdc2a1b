"""One process of a training run under FSDP2, and what verl's trainer and DCP leave of it.

python -m tests.support.fsdp_run RANK WORLD BASE OUT
"""

import os
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaForCausalLM

from tests.support.tiny import chat, text_tokens

STEPS = 30


def main(rank: int, world: int, base: Path, out: Path) -> None:
    """Go on training the model in `base`, in float32, and save it as it is sharded."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{out / 'store'}", rank=rank, world_size=world
    )
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    tokens = text_tokens(base / "tokenizer.model", [chat(random.Random(i)) for i in range(300)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    torch.manual_seed(rank)
    for _ in range(STEPS):
        starts = torch.randint(len(tokens) - 64, (4, 1))
        inputs = tokens[starts + torch.arange(64)]
        model(input_ids=inputs, labels=inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    state = model.state_dict()
    torch.save(state, out / f"model_world_size_{world}_rank_{rank}.pt")
    save({"model": state, "optimizer": optimizer.state_dict()}, checkpoint_id=out / "dcp")
    whole = {name: tensor.full_tensor() for name, tensor in state.items()}
    if rank == 0:
        torch.save(whole, out / "gathered.bin")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
