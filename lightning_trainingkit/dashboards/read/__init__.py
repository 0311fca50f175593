"""Read runs from W&B's files, CSV files, TensorBoard's event files and W&B's server."""
