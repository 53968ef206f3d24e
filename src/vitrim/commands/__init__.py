"""The commands as plain functions: one file per verb. The command line and `import vitrim` offer the same functions."""
