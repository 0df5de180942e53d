"""A real upstream that isn't one: OpenAI's and Anthropic's wire formats over a socket, with a ledger of its own.

Whatever the gateway's books say can be held against `FakeUpstream.ledger`, which is written on the other side of
the wire. The behaviours it can be asked for are the knobs of `Script`.
"""

from tests.fakes.ledger import Counts, Entry, Ledger, Totals
from tests.fakes.recordings import Recording
from tests.fakes.scripts import PRESETS, Script
from tests.fakes.upstream import FakeUpstream
from tests.fakes.wire import count_tokens

__all__ = ["PRESETS", "Counts", "Entry", "FakeUpstream", "Ledger", "Recording", "Script", "Totals", "count_tokens"]
