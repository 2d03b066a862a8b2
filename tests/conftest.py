"""For every tier."""

import os

import pytest
from hypothesis import HealthCheck, settings

from lab.core import redact
from tests.signing import signer, signing_keys

__all__ = ["signer", "signing_keys"]

# The machine may be busy with VMs: how long an example takes says nothing of the code.
settings.register_profile("lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")

# bin/invoke says where whoever started the tests stands: relative paths here are the tests' own.
os.environ.pop("LAB_CWD", None)


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command knows the secrets that it met; thousands of them would slow down every later test."""
    monkeypatch.setattr(redact, "_needles", redact._Needles())
