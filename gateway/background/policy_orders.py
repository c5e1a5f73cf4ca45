"""Takes over each policy in force in a process that the serving one keeps, as `process.own_process` writes it."""

import asyncio
import json
from pathlib import Path

from gateway.background.policy_reload import PolicyArchive
from gateway.policy import LoadedPolicy, PolicyInForce
from policies.load import parse_untested


class PolicyOrders:
    """A stream of orders, a line of JSON each; `adopted` counts them."""

    def __init__(self, journal_dir: Path, policies_dir: Path, policy: PolicyInForce) -> None:
        self._archive = PolicyArchive(journal_dir, policies_dir)
        self._policy = policy
        self.adopted = 0

    async def follow(self, orders: asyncio.StreamReader) -> bool:
        """Adopt the next policy; False at the end of orders."""
        line = await orders.readline()
        if not line:
            return False
        text = json.loads(line)["text"]
        # without a text, the one that another worker loaded before its file became faulty
        policy = parse_untested(text, str(self._policy.file)) if text else self._archive.last()
        if policy is not None:
            self._policy.adopt(LoadedPolicy(text, policy))
            self.adopted += 1
        return True

    async def follow_all(self, orders: asyncio.StreamReader) -> None:
        """Adopt each as it comes, to the end of orders."""
        while await self.follow(orders):
            """The next."""
