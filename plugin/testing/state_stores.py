"""The suite that a backend for the learner's state inherits."""

from __future__ import annotations

from explorank.testing.state_entries import StateEntryTests
from explorank.testing.state_leading import StateLeadingTests
from explorank.testing.state_transactions import StateTransactionTests


class StateStoreTests(StateEntryTests, StateTransactionTests, StateLeadingTests):
    """Holds a backend to what `explorank.hooks.feedback.state_store` promises.

        class TestRedisStates(StateStoreTests):
            @pytest.fixture(autouse=True)
            def _server(self, redis_url):
                self.url = redis_url

            def make_backend(self):
                return RedisStateBackend(self.url)

    Only `make_backend` is needed. Some tests fork a process, which calls it anew: open nothing in fixtures that a
    forked process could not do without. Each test's docstring says what it demands and why.
    """
