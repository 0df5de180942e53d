"""Other people's clients in front of the gateway: each in an environment of its own, against a fake upstream.

`python -m tests.clients` (or `make clients`) installs and runs them; docs/clients.md has the results.
"""
