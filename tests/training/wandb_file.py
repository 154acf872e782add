"""Reads back what Weights & Biases wrote offline.

The format is private (a LevelDB log of protobuf records), so this is for tests alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@dataclass
class OfflineRun:
    """What one offline run holds."""

    folder: Path
    run: Any
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)

    def of(self, key: str) -> list[Any]:
        """The values of one series."""
        return [row[key] for row in self.history if key in row]

    def media(self, pattern: str) -> list[Path]:
        """Files of media."""
        return sorted((self.folder / "files" / "media").glob(pattern))


def read(folder: Path) -> OfflineRun:
    """The one offline run below a run folder; its end may be written a moment after `finish`."""
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    until = time.monotonic() + 30
    while not any(record.HasField("exit") for record in records(path)):
        assert time.monotonic() < until, f"{path} has no end"
        time.sleep(0.05)
    found = OfflineRun(path.parent, None)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
