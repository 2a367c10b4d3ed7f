"""The end of an attempt, told whole: its answer, or whose fault it was; last checkpoint, log.

Used by `launcher.py` once a pod is over, gone or given up; reads the store through `orders.py` and
`mailbox.py`. Each step has a limit: an end that is not told holds up its run.
"""

import asyncio
import logging
from dataclasses import replace

from whimbrel.runtime_frames import Message
from whimbrel.runtime_store import UnreadableInput
from whimbrel.spec import Artifact, Failure

from data_plane_agent.attempt_answers import end_of
from data_plane_agent.launcher import Broke, Finished, Logs
from data_plane_agent.pods import failures
from data_plane_agent.pods.clock import REAL, Clock
from data_plane_agent.pods.held import Held
from data_plane_agent.pods.logs import PodLogs
from data_plane_agent.pods.mailbox import Mailbox
from data_plane_agent.pods.orders import Orders, Sender
from data_plane_agent.pods.sight import Sight

log = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
"""For an answer in a store that is away. Shorter computes again what was done, longer holds up a
retry."""
RESCUE_SECONDS = 10.0
"""For the last checkpoint, and for reading and storing the log, of a pod that did not answer."""
RESCUES_AT_ONCE = 2
"""Logs. More when a machine with many pods dies: more room on the disk and in memory; fewer: logs
are lost."""
RESCUES_SECONDS = 60.0
"""For a log's turn. Shorter loses more logs, longer holds up retries."""


class Ends:
    def __init__(
        self,
        orders: Orders,
        mailbox: Mailbox,
        logs: PodLogs,
        *,
        clock: Clock = REAL,
    ) -> None:
        self._orders = orders
        self._mailbox = mailbox
        self._logs = logs
        self._clock = clock
        self._gate = asyncio.Semaphore(RESCUES_AT_ONCE)

    async def of(self, held: Held, failure: Failure | None) -> Finished | Broke:
        """`failure` None: the pod ended by itself, or is gone."""
        seen, sender = held.sight, held.sender
        assert seen is not None
        answer = await self._answer(seen, sender) if failure is None and sender else None
        if answer is not None:
            self._mailbox.heard(held.name, answer)
            end = replace(end_of(answer), host=seen.host)
            if isinstance(end, Broke) and end.logs.stdout is None:
                return replace(end, logs=Logs(await self._rescued(held, sender)))
            return end
        if sender is not None:
            try:
                await asyncio.wait_for(self._mailbox.look(held.name), RESCUE_SECONDS)
            except Exception as error:  # a checkpoint less is no reason to tell no end
                log.warning("the last checkpoint of %s is not known: %r", held.name, error)
        failure = replace(failure or failures.ended(seen, asked=held.quiesced), node=held.key.node)
        logs = Logs(await self._rescued(held, sender) if seen.started_ns else None)
        now = self._clock.now_ns()
        stopped = seen.ended.ended_ns if seen.ended and seen.ended.ended_ns else now
        return Broke(held.key, failure, seen.started_ns or now, stopped, logs, host=seen.host)

    async def _answer(self, seen: Sight, sender: Sender) -> Message | None:
        text = seen.ended.message if seen.ended else ""
        deadline = self._clock.now() + ANSWER_SECONDS
        while text:
            try:
                return await self._orders.answer(text, sender)
            except UnreadableInput as error:
                if self._clock.now() > deadline:
                    log.warning("the answer of %s can't be read: %s", seen.name, error)
                    return None
                await self._clock.sleep(1.0)
        return None

    async def _rescued(self, held: Held, sender: Sender | None) -> Artifact | None:
        """Of a pod that did not store its log: what the API server, or who followed it, has."""
        if sender is None:
            return None
        try:
            async with asyncio.timeout(RESCUES_SECONDS):
                await self._gate.acquire()
        except TimeoutError:
            log.warning("the log of %s is not stored: too many pods ended at once", held.name)
            return None
        try:
            async with self._logs.whole(held.name, seconds=RESCUE_SECONDS) as path:
                if path is not None:
                    async with asyncio.timeout(RESCUE_SECONDS):
                        return await self._orders.save_log(sender, path)
        except (OSError, TimeoutError) as error:
            log.warning("the log of %s is not stored: %r", held.name, error)
        finally:
            self._gate.release()
        return None
