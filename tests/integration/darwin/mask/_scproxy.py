"""Stands in for CPython's module of that name, which macOS's Python has: no proxy is set in its settings."""


def _get_proxy_settings() -> dict[str, object]:
    return {"exclude_simple": False}


def _get_proxies() -> dict[str, str]:
    return {}
