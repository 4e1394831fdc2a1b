"""Ways to spread the spans of a shard over workers."""
