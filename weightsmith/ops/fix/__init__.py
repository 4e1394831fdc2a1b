"""Put right bytes in the place of damaged files."""
