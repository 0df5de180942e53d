"""What the database said about credentials sent to pages, as far as this process has seen.

It grants nothing: the gate in front of pages uses it, which decides before the database is asked again.
"""

from __future__ import annotations

import hashlib
import threading

MAX_PROOFS = 10_000

_proofs: dict[bytes, bool] = {}
_lock = threading.Lock()


def note_proof(credential: str, *, is_in_force: bool) -> None:
    """For credentials that anyone can make up only with `is_in_force=True`, or made-up ones would evict known ones."""
    digest = _digest(credential)
    with _lock:
        # Most recently noted ones stay longest.
        _proofs.pop(digest, None)
        _proofs[digest] = is_in_force
        if len(_proofs) > MAX_PROOFS:
            del _proofs[next(iter(_proofs))]


def forget_proof(credential: str) -> None:
    with _lock:
        _proofs.pop(_digest(credential), None)


def proof_of(credential: str) -> bool | None:
    """Whether it was in force when last seen; None: never seen."""
    return _proofs.get(_digest(credential))


def forget_proofs() -> None:
    with _lock:
        _proofs.clear()


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
