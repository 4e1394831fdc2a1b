"""Merge an adapter the way peft's documentation says.

python peft_merge.py BASE ADAPTER OUT DTYPE
"""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

if __name__ == "__main__":
    base, adapter, out, dtype = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
