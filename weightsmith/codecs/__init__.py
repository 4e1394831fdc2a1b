"""Rules of arithmetic: how the bytes of an output tensor follow from those of input tensors."""
