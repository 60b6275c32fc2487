"""The parts of benchmarks/annotation_throughput.py."""
