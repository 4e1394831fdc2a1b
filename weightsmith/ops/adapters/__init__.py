"""What merging adapters takes beside the verb itself."""
