"""What a ranker of one catalogue is worth as the beginning of another catalogue's: `python -m benchmarks.transfer`."""
