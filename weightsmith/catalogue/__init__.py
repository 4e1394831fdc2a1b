"""What is known of published bases, releases, prompts and faults: TOML, read and checked here."""
