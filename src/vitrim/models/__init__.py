"""Networks: three hybrids of our own, checkpoints, and a contract for other people's models."""
