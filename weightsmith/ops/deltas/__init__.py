"""What only the commands for deltas use: how each kind of delta is made, applied and described."""
