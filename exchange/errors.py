"""The exceptions that perprisk raises on purpose.

    PerpriskError
    ├── InputError      what was asked, or the data it was asked of, is wrong: exit code 2, HTTP 4xx
    └── WorkError       the request was fine and the work failed: exit code 1

Each layer may add subclasses. The text of an error is one line that names the file, the column
and the value where they apply, because it is shown to people as it stands.
"""

from __future__ import annotations


class PerpriskError(Exception):
    """Base of every expected error."""


class InputError(PerpriskError):
    """The request or its input is wrong; doing the same again fails again."""


class WorkError(PerpriskError):
    """The request was right but the work could not be done."""
