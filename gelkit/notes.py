"""Notes: facts that cost time to find out, kept for this user from one run to the next.

They lie in the user's cache folder (``~/.cache/gelkit`` on Linux), or in the one that the variable
GELKIT_NOTES names, one small file each, so that processes which write at once lose nothing. They
are shortcuts: any of them may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from gelkit.files import make_folder, write_atomically

logger = logging.getLogger(__name__)


def notes_folder(kind: str) -> Path:
    """Return where notes of a kind are kept; the folder need not exist."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("GELKIT_NOTES")
    return (Path(chosen) if chosen else user_cache_path("gelkit")) / kind


def read_notes(kind: str) -> dict[str, Any]:
    """Return the notes of a kind by their keys; one that is damaged counts as missing."""
    try:
        files = sorted(notes_folder(kind).glob("*.json"))
    except OSError:  # a home folder that this process may not enter
        return {}
    notes = (_read(file) for file in files)
    return {note["key"]: note["value"] for note in notes if note is not None}


def add_note(kind: str, key: str, value: Any) -> None:
    """Keep a value, which JSON can hold, under a key; it replaces the one that was there.

    Where it cannot be written, the log says so, and the fact is found out again next time.
    """
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    file = notes_folder(kind) / name
    try:
        make_folder(file.parent)
        write_atomically(file, json.dumps({"key": key, "value": value}).encode())
    except OSError as error:
        logger.warning("cannot keep notes in %s (%s): gelkit goes on without", file.parent, error)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    is_note = isinstance(note, dict) and isinstance(note.get("key"), str) and "value" in note
    return note if is_note else None
