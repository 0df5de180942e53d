"""What faults can befall."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.fakes import FakeUpstream
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.cluster import Cluster
from tests.faults.postgres import Database
from tests.faults.sites import Site
from tests.faults.small_disk import SmallDisk


@dataclass
class Stage:
    """The gateways of a campaign and all that they need to work.

    database, proxy: None on SQLite. cluster: None where the database's server is not ours to stop. disks: those that
    spools lie on, where they are ours to fill. happened: what was done to them all, by name.
    """

    sites: Sequence[Site]
    upstream: FakeUpstream
    database: Database | None = None
    proxy: ChaosProxy | None = None
    cluster: Cluster | None = None
    disks: Sequence[SmallDisk] = ()
    happened: Counter[str] = field(default_factory=Counter)
    outage: threading.Lock = field(default_factory=threading.Lock)
    """Held by the outage under way: there is one at a time."""
    _noting: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str) -> None:
        """It has happened once more. From any thread."""
        with self._noting:
            self.happened[what] += 1
