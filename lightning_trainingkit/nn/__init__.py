"""What wraps, replaces or reads a layer or a model. Needs torch alone, no Lightning."""
