"""See any checkpoint as tensors by name, each a range of bytes in a file."""
