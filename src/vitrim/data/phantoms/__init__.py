"""Phantoms: seeded artificial cases (brain, heart, abdomen, long-range control), and writers for the data layouts."""
