"""The rule *lora*: what adapters of peft do to a base's tensors."""
