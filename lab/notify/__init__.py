"""Telling somebody what a night found: by webhook, by GitHub issue, by mail."""
