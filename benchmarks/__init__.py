"""What the gateway costs: `python -m benchmarks.gateway`. How to read the figures: docs/benchmarks.md."""
