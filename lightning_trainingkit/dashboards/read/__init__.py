"""Reading runs from W&B's files, CSV files and W&B's server."""
