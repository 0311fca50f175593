"""What a model's forward does: its call order, activations, blocks and head."""
