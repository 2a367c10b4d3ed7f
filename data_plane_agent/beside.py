"""Ends of attempts and of runs for which the region's store is asked first, beside the engine's
loops.

Started by the engine; a value too large to travel is read from there, and of a run whose values
stay in the region every value and error text is written there. The end is then heard as any other.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from whimbrel.runtime_store import StoreFull, plain
from whimbrel.spec import ARTIFACT_KEY, Failure, Outputs, Owner, canonical

from data_plane_agent import dag
from data_plane_agent.attempt_answers import bad_answer, prefix_of
from data_plane_agent.documents import Documents, artifact_in, outputs_of
from data_plane_agent.launcher import AttemptKey, Broke, Finished
from data_plane_agent.pause import Pause
from data_plane_agent.run import Run
from data_plane_agent.work import Work


class Hear(Protocol):
    def __call__(
        self, event: Finished | Broke, work: Work, *, document: dag.Outputs | None, waits: bool
    ) -> None: ...


class Beside:
    """`hear` takes an end up, `do` does what that leads to."""

    def __init__(
        self, documents: Documents, *, hear: Hear, do: Callable[[Work], Awaitable[None]]
    ) -> None:
        self._documents = documents
        self._hear = hear
        self._do = do

    async def end(self, event: Finished | Broke) -> None:
        work, document = Work(), None
        if isinstance(event, Broke):
            event = await self._kept_error(event)
        elif event.outputs.offloaded is not None:
            document = await self._documents.read(event.outputs.offloaded)
            if document is None:
                message = f"the outputs it wrote to {event.outputs.offloaded.uri} can't be read"
                event = broke(event, "store_unreadable", message)
        elif (document := outputs_of(event.outputs.value)) is None:
            event = bad_answer(event.key, "its outputs are no JSON document")
        else:
            event = await self._kept_value(event)
        self._hear(event, work, document=document, waits=False)
        await self._do(work)

    async def result(self, run: Run, outputs: dag.Outputs) -> None:
        """What the run's result says by value goes to the store; that it can't is no failure."""
        pause = Pause()
        while not run.ended:
            try:
                kept = {name: await self._kept(run, name, outputs[name]) for name in outputs}
            except StoreFull:
                await pause.wait()
                continue
            if run.ended:  # it was let go of while the store took its time
                return
            work = Work()
            run.succeed(kept, work)
            await self._do(work)

    async def _kept(self, run: Run, name: str, value: Any) -> Any:
        if artifact_in(value) is not None:
            return value
        folder = f"{run.execution}/outputs/{run.epoch}/{secrets.token_hex(8)}"
        artifact = await self._documents.write(f"{folder}/{name}.json", canonical(value))
        return {ARTIFACT_KEY: plain(run.residency.artifact(artifact))}

    async def _kept_value(self, event: Finished) -> Finished | Broke:
        made = event.outputs
        try:
            artifact = await self._documents.write(key_of(event.key, "outputs.json"), made.value)
        except StoreFull as error:
            return broke(event, "store_full", str(error))
        return replace(event, outputs=Outputs("", made.digest, made.artifacts, artifact))

    async def _kept_error(self, event: Broke) -> Broke:
        failure = event.failure
        text = f"{failure.message}\n{failure.traceback}"
        try:
            artifact = await self._documents.write(key_of(event.key, "error.txt"), text)
            said = f"kept in region {artifact.region}: sha256 {artifact.sha256}, {artifact.uri}"
        except StoreFull:
            said = "what it said may not leave its region, whose store takes nothing"
        return replace(event, failure=replace(failure, message=said, traceback=""))


def key_of(key: AttemptKey, name: str) -> str:
    return f"{prefix_of(key)}/{secrets.token_hex(8)}/{name}"


def broke(event: Finished, kind: str, message: str) -> Broke:
    failure = Failure(Owner.SYSTEM, kind, message, event.key.node)
    return Broke(event.key, failure, event.started_ns, event.ended_ns, event.logs)
