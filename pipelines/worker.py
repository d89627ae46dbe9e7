"""One worker of several, as a process of its own: `python -m pipelines.worker SETTING`, a Setting as JSON."""

from __future__ import annotations

import sys

import msgspec

from exchange.errors import PerpriskError
from pipelines.answering import Setting, answer


def main() -> int:
    """Answer until asked to end."""
    try:
        return answer(msgspec.json.decode(sys.argv[1], type=Setting))
    except PerpriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
