"""Rules that make floats of what a quantiser packed, one for each way of packing."""
