"""What recipes and benchmarks share."""
