"""What a training step costs: the parts of `python -m benchmarks.training_speed`."""
