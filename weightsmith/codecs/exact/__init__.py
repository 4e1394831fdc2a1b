"""The codec of exact deltas: spans of tensors, bit for bit."""
