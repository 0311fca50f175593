"""Noise on the data of the training: what the batch holds is changed before ``training_step`` sees it."""
