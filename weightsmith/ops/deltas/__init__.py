"""What only the commands of deltas share: making, restoring and describing them."""
