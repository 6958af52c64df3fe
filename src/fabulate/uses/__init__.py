"""What samples and scores are good for: each use with a number that proves or refutes it."""
