"""What training leaves, read as checkpoints: ranks of FSDP, DCP, ZeRO, and single files."""
