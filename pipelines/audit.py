"""`perprisk audit`: is the log what was written, what was answered, and is it what is computed again?"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from exchange.errors import InputError
from features import catalog
from models.bundle import Bundle
from models.signature import read_public_key
from pipelines.output import atomic_file
from pipelines.times import format_time
from serving import chain
from serving.audit import Audit
from serving.chain import Finding, Verifier, files_of
from serving.codec import JSON, MSGPACK
from serving.evidence import BATCH, answers_in, differences, recomputed
from serving.records import Answered, Read, Record
from serving.scorer import Scorer
from serving.signing import HEADS, newest_heads, read_heads
from serving.wire import Answer, BatchRequest, Figure, ScoreRequest
from serving.wire import to_us as us_of

FOLDER = "PERPRISK_AUDIT"
"""Environment variable that names the folder of the audit log; without it, DEFAULT_FOLDER."""

DEFAULT_FOLDER = "perprisk-audit"
MODES = ("strict", "group", "off")


def open_audit(mode: str, worker: str = "0") -> Audit | None:
    """The audit log that a worker of the service writes; None where it is `off`.

    To be called in the worker's own process. Raises InputError for another mode or a folder that cannot be
    written.
    """
    if mode == "off":
        return None
    match mode:
        case "strict" | "group":
            return Audit.open(Path(os.environ.get(FOLDER) or DEFAULT_FOLDER), worker, mode)
    raise InputError(f"--audit: {mode!r} is none of {', '.join(MODES)}")


def verify(
    folder: Path, head: Path | None, public_key: Path | None, archived: bool, json_output: bool
) -> int:
    """Walk along every chain and print what it came to; 1 where something is wrong."""
    kept, others = ([], 0) if head is None else read_heads(head)
    if head is not None and (others or not kept):
        raise InputError(f"{head}: does not hold signed heads, one a line, and nothing else")
    beside = list(newest_heads(read_heads(folder / HEADS)[0]).values()) if (folder / HEADS).exists() else []
    key = None if public_key is None else read_public_key(public_key)
    findings = chain.verify(folder, kept, beside, key, archived)
    if not findings:
        raise InputError(f"{folder}: holds no audit log")
    if json_output:
        print(json.dumps([chain.as_json(finding) for finding in findings], indent=1))
    else:
        _print_findings(findings, head is not None, public_key is not None)
    return 0 if all(finding.sound for finding in findings) else 1


def _print_findings(findings: Sequence[Finding], with_head: bool, with_key: bool) -> None:
    rows = [["worker", "files", "records", "answers", "vouched for up to", "last record", ""]]
    for finding in findings:
        rows.append([
            finding.worker, f"{finding.files:,}", f"{finding.records:,}", f"{finding.answers:,}",
            f"{finding.covered:,}" if finding.covered else "-",
            format_time(finding.last_us)[:19] + "Z" if finding.last_us else "-",
            "sound" if finding.sound else "NOT SOUND",
        ])  # fmt: skip
    _print_table(rows)
    for finding in findings:
        for problem in finding.problems:
            print(f"worker {finding.worker}: wrong: {problem}")
        for notice in finding.notices:
            print(f"worker {finding.worker}: note: {notice}")
    if not with_head:
        print("Without --head: whether records were cut off at the end, or all written anew, cannot be told.")
    else:
        for finding in findings:
            if finding.sound and finding.covered < finding.records:
                print(
                    f"worker {finding.worker}: records after {finding.covered:,} are newer than the head:"
                    " whether more of them were cut off cannot be told."
                )
    if not with_key:
        print("The public key was the log's own; --public-key takes one that is known from elsewhere.")


class Shown(NamedTuple):
    """An answer about the account that is asked for."""

    worker: str
    record: Record
    answer: Answer
    again: str | None
    """What came of computing it again; None where that was not asked for."""


def show(
    account: str, folder: Path, from_us: int | None, to_us: int | None, model: Path | None, json_output: bool
) -> int:
    """Print the answers about an account; 1 where one differs when computed again or the log is broken."""
    scorer = None if model is None else Scorer(Bundle.open(model, catalog.fingerprint()))
    shown: list[Shown] = []
    broken = []
    for worker, files in files_of(folder).items():
        verifier = Verifier(worker, None, archived=True)
        shown += _answers(verifier, files, account, from_us, to_us, scorer)
        broken += [f"worker {worker}: {problem}" for problem in verifier.problems]
    shown.sort(key=lambda entry: (entry.answer.time, entry.record.content.time_us))
    if json_output:
        print(json.dumps([_plain(entry) for entry in shown], indent=1))
    elif not shown:
        print(f"no answer about {json.dumps(account)} in {folder}")
    else:
        _print_answers(shown)
    for problem in broken:
        print(f"warning: {problem}; what follows it is not shown", file=sys.stderr)
    return 1 if broken or any(entry.again == DIFFERS for entry in shown) else 0


SAME, DIFFERS, OTHER = "same", "DIFFERS", "other model"


def _answers(
    verifier: Verifier,
    files: list[tuple[int, Path]],
    account: str,
    from_us: int | None,
    to_us: int | None,
    scorer: Scorer | None,
) -> Iterator[Shown]:
    read: Read | None = None
    for record in verifier.walk(files):
        content = record.content
        if isinstance(content, Read):
            read = content
        if not isinstance(content, Answered):
            continue
        for answer in answers_in(content):
            time_us = us_of(answer.time)
            if answer.account_id != account or (from_us is not None and time_us < from_us):
                continue
            if to_us is None or time_us <= to_us:
                yield Shown(verifier.worker, record, answer, _again(record, read, scorer, account))


def _again(record: Record, read: Read | None, scorer: Scorer | None, account: str) -> str | None:
    """Whether the answer is the same to the byte when it is computed again."""
    if scorer is None:
        return None
    content = record.content
    assert isinstance(content, Answered)
    assert read is not None, "every file says what its answers are computed with"
    if content.model_version != scorer.model_version:
        return OTHER
    again = recomputed(record, read, scorer)
    if again == content.answer:
        return SAME
    for name, field, before, after in differences(content, again):
        if name == account:
            print(f"record {content.number}: {field} was {before}, now {after}", file=sys.stderr)
    return DIFFERS


def _print_answers(shown: Sequence[Shown]) -> None:
    head = ["time", "asked", "1h", "8h", "24h", "negative", "static", "initial", "maint.", "status", "model"]
    rows = [[*head, *([] if shown[0].again is None else ["again"])]]
    for entry in shown:
        answer = entry.answer
        rows.append([
            format_time(us_of(answer.time))[:19] + "Z",
            _asked(entry.record),
            _percent(answer.pd_liquidation_1h), _percent(answer.pd_liquidation_8h),
            _percent(answer.pd_liquidation_24h), _percent(answer.pd_negative_equity_24h),
            _percent(answer.static_initial_margin_rate), _percent(answer.initial_margin_rate),
            _percent(answer.maintenance_margin_rate),
            answer.status if answer.fallback_reason is None else answer.fallback_reason,
            answer.model_version,
            *([] if entry.again is None else [entry.again]),
        ])  # fmt: skip
    _print_table(rows)


def _asked(record: Record) -> str:
    """What was asked, in a few words."""
    content = record.content
    assert isinstance(content, Answered)
    codec = JSON if content.codec == JSON.name else MSGPACK
    if content.route == BATCH:
        return f"batch of {len(codec.read(BatchRequest, record.request).account_ids)}"
    request = codec.read(ScoreRequest, record.request)
    stands = "as it stands" if request.account is None else "state sent"
    orders = len(request.orders)
    return f"{stands}, {orders} order{'s' * (orders > 1)}" if orders else stands


def _plain(entry: Shown) -> dict[str, Any]:
    content = entry.record.content
    assert isinstance(content, Answered)
    codec = JSON if content.codec == JSON.name else MSGPACK
    plain = {
        "worker": entry.worker,
        "record": content.number,
        "recorded": format_time(content.time_us),
        "route": content.route,
        "request": codec.read(Any, entry.record.request),
        "answer": msgspec.json.decode(msgspec.json.encode(entry.answer)),
        "policy_version": content.policy_version,
        "input_digest": content.input_digest.hex(),
        "digest": entry.record.digest.hex(),
    }
    return plain if entry.again is None else plain | {"again": entry.again}


def head(folder: Path, out: Path | None) -> int:
    """Print the newest signed head of every worker, or write them to a file."""
    heads = newest_heads(read_heads(folder / HEADS)[0])
    content = b"".join(msgspec.json.encode(heads[worker]) + b"\n" for worker in sorted(heads))
    if not content:
        raise InputError(f"{folder / HEADS}: holds no signed head")
    if out is None:
        print(content.decode(), end="")
    else:
        with atomic_file(out) as path:
            path.write_bytes(content)
    return 0


def _percent(share: Figure) -> str:
    return "-" if share is None or math.isnan(share) else f"{100.0 * share:.2f}%"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be; figures end in line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if cell[-1:] in "%0123456789" and number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
