"""Networks: three hybrid networks, checkpoints, and an adapter for models of other libraries."""
