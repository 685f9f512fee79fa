"""The error tree. Every error a user can meet is one of these, and each fixes the exit code.

    SynthError                    1  a fault in the software or the machine
    ├── UserError                 2  a mistake the user can mend: what, where, what to do
    │   ├── InvalidConfig            run.yaml, schema.yaml or answers.yaml (all problems together)
    │   ├── InvalidSource            the source cannot be read or does not fit the schema
    │   ├── LedgerUnavailable        the ledger's database does not answer, is full or held by another
    │   └── NotBuiltYet              named by the contract, not offered by this version
    ├── PrivacyRefusal            3  the privacy rules say no; nothing was read
    │   ├── BudgetExceeded           the population's cap would be passed
    │   ├── UnconfirmedDomain        a domain drafted from private data, not yet confirmed
    │   └── NotApproved              a bundle that nobody approved, or that was rejected or revoked
    └── VerificationFailed        4  a bundle or ledger is not what it claims to be

Messages name a rule, a place and a remedy, and never a value taken from the source.
"""

from __future__ import annotations

from collections.abc import Sequence


class SynthError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(SynthError):
    """A mistake the user can mend."""

    exit_code = 2


class InvalidConfig(UserError):
    """One or more problems in a configuration file, all reported together.

    Args:
        file: the file as the user named it.
        problems: one phrase each, already free of secrets.
    """

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__(f"{file}: " + "; ".join(self.problems))


class InvalidSource(UserError):
    """The source cannot be read or does not fit the schema."""


class LedgerUnavailable(UserError):
    """The ledger's database does not answer, is full, or is held by another process; nothing is wrong with the run."""


class NotBuiltYet(UserError):
    """The contract names it, this version does not offer it, and nothing weaker is done instead."""


class PrivacyRefusal(SynthError):
    """The privacy rules refuse."""

    exit_code = 3


class BudgetExceeded(PrivacyRefusal):
    """The run would pass the cap of its population."""


class UnconfirmedDomain(PrivacyRefusal):
    """A column's domain was drafted from the data and has not been confirmed as public."""


class NotApproved(PrivacyRefusal):
    """The bundle is not approved for release, or no longer."""


class VerificationFailed(SynthError):
    """A bundle or a ledger is not what it claims to be."""

    exit_code = 4
