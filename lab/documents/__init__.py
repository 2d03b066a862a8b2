"""The documents that tasks print with `--json`, by subject (docs/design.md says where the others are)."""
