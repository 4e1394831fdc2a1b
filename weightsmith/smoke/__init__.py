"""The only importers of transformers: in this process for generation, in a child for tokenizers."""
