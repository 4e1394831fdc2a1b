"""Make the frozen delta, once for each version of the form: `python -m tests.ops.deltas.freeze`.

What lies in `frozen/` is never made again; a later version adds a folder of its own.
"""

from pathlib import Path

import torch

from tests.support.delta_models import trained, weights
from tests.support.folders import write_model
from weightsmith.ops.make_delta import make_delta

FROZEN = Path(__file__).parent / "frozen" / "exact-delta-1"


def main() -> None:
    base = {
        "model.embed_tokens.weight": weights(40, 16),
        "model.layers.0.up.weight": weights(48, 16, seed=1, dtype=torch.float16),
        "model.layers.0.norm.weight": torch.ones(16),
        "model.layers.0.gone": weights(4, seed=2),
        "model.layers.1.ids": torch.arange(40),
    }
    target = {name: trained(each) for name, each in base.items() if each.ndim == 2}
    target["model.layers.0.norm.weight"] = base["model.layers.0.norm.weight"]
    target["model.layers.0.new"] = weights(30, seed=3)
    target["model.layers.1.ids"] = torch.arange(40).roll(1)
    write_model(FROZEN / "base", base)
    folder = write_model(FROZEN / "target", target, shards=2)
    (folder / "generation_config.json").write_text('{"eos_token_id":  2}')
    make_delta(FROZEN / "base", folder, FROZEN / "delta", base_id="org/base@0123456789abcdef")


if __name__ == "__main__":
    main()
