"""Load a model in FP8 as bfloat16 and save it, as transformers' documentation says.

python fp8_dequantize.py SOURCE OUT
"""

import sys

import torch
from transformers import AutoModelForCausalLM, FineGrainedFP8Config

if __name__ == "__main__":
    source, out = sys.argv[1:]
    config = FineGrainedFP8Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, quantization_config=config
    )
    model.save_pretrained(out)
