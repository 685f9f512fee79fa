"""The error tree fixes the exit codes."""

from __future__ import annotations

import pytest

from synth import errors

EXIT_CODES = {
    "SynthError": 1,
    "UserError": 2,
    "InvalidConfig": 2,
    "InvalidSource": 2,
    "LedgerUnavailable": 2,
    "NotBuiltYet": 2,
    "PrivacyRefusal": 3,
    "BudgetExceeded": 3,
    "UnconfirmedDomain": 3,
    "NotApproved": 3,
    "VerificationFailed": 4,
}


def test_every_error_is_listed_with_its_exit_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SynthError)
    }
    assert found == EXIT_CODES


@pytest.mark.parametrize("name", EXIT_CODES)
def test_the_docstring_draws_the_tree(name: str) -> None:
    assert name in (errors.__doc__ or "")


def test_problems_of_a_file_are_reported_together() -> None:
    error = errors.InvalidConfig("run.yaml", ["privacy: is required", "schema: is required"])
    assert str(error) == "run.yaml: privacy: is required; schema: is required"
    assert error.problems == ("privacy: is required", "schema: is required")
