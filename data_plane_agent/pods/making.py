"""Makes the pod of an attempt: its order into the store, the pod into the cluster, once.

Used by `launcher.py`, one call an attempt; over `orders.py` and `api.py`. Whatever is ill is
waited for: an attempt is only given up when waiting can't help.
"""

import asyncio
import logging
import random
from collections.abc import Container
from fnmatch import fnmatchcase

from whimbrel.errors import Unreachable, WhimbrelError
from whimbrel.runtime_store import StoreFull, UnreadableInput
from whimbrel.service.crash import crash_point
from whimbrel.spec import Failure, Owner

from data_plane_agent.launcher import Attempt
from data_plane_agent.pods.api import ApiDown, ApiError, Denied, Invalid, PodApi, Taken
from data_plane_agent.pods.clock import REAL, Clock
from data_plane_agent.pods.codec import image_of, manifest
from data_plane_agent.pods.held import Held
from data_plane_agent.pods.orders import Order, Orders
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.pods.sight import Sight, sight

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before another try, doubled each time, with jitter. Shorter presses what is ill, longer
starts later than there is room."""


class NotMade(Exception):
    """No waiting helps. `unreadable` are the inputs that can't be had."""

    def __init__(self, failure: Failure, unreadable: tuple[str, ...] = ()) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.unreadable = unreadable


class Maker:
    def __init__(
        self,
        api: PodApi,
        orders: Orders,
        settings: PodSettings,
        *,
        doomed: Container[str],
        clock: Clock = REAL,
    ) -> None:
        """`doomed` are the uids of pods that are being deleted."""
        self._api = api
        self._orders = orders
        self._settings = settings
        self._doomed = doomed
        self._clock = clock
        self._gate = asyncio.Semaphore(settings.creates_at_once)

    async def make(self, held: Held) -> Sight | None:
        """The pod as it was made or found, also when it was cancelled meanwhile; None when it was
        and there is no pod. Raises NotMade."""
        attempt = held.attempt
        assert attempt is not None
        self._refuse(attempt)
        pause, order = FIRST_PAUSE, None
        while True:
            floor = 0.0
            try:
                async with self._gate:
                    if held.cancelled:
                        return await self._left(held) if held.unsure else None
                    order = order or await self._orders.write(attempt, pod=held.name)
                    held.folder = order.folder
                    if (made := await self._create(attempt, order, held)) is not None:
                        return made
            except StoreFull as error:
                held.obstacle = str(error)
            except UnreadableInput as error:
                failure = Failure(Owner.SYSTEM, "unreadable_input", str(error))
                raise NotMade(failure, (error.uri,)) from error
            except Unreachable as error:
                held.obstacle = error.message
            except WhimbrelError as error:
                raise NotMade(Failure(Owner.CONFIG, "bundle", error.message)) from error
            except Denied as error:
                if not error.passing:
                    raise NotMade(Failure(Owner.CONFIG, "admission", error.message)) from error
                held.obstacle = error.message
            except Invalid as error:
                raise NotMade(Failure(Owner.CONFIG, "pod_config", error.message)) from error
            except ApiDown as error:
                held.obstacle = f"the API server does not answer: {error.message}"
                floor = error.retry_after or 0.0
            except ApiError as error:
                log.warning("pod %s can't be made: %s", held.name, error.message)
                held.obstacle = error.message
            await self._clock.sleep(max(floor, pause * (0.5 + random.random() / 2)))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _create(self, attempt: Attempt, order: Order, held: Held) -> Sight | None:
        """None: another pod of this name is on its way out."""
        unsure, held.unsure = held.unsure, True
        try:
            made = await self._api.create(manifest(attempt, order, self._settings))
        except Taken:
            return await self._adopt(order, held)
        except ApiDown:
            raise
        except ApiError:
            held.unsure = unsure  # this one was refused, one before it may not have been
            raise
        crash_point("pods.after_create")
        return sight(made)

    async def _left(self, held: Held) -> Sight | None:
        """The pod of a cancelled attempt, if a create without an answer made it."""
        found = await self._api.get(held.name)
        there = None if found is None else sight(found)
        return there if there is not None and held.is_of(there) else None

    async def _adopt(self, order: Order, held: Held) -> Sight | None:
        """Ours, if it was made for the very same: an earlier try whose answer was lost."""
        found = await self._api.get(held.name)
        there = None if found is None else sight(found)
        if found is None:
            return None
        same = there is not None and there.order_digest == order.digest
        if there is not None and same and not there.deleting_ns and there.uid not in self._doomed:
            held.folder = there.folder
            return there
        held.obstacle = "a pod of this name from before is not gone yet"
        uid = str(found["metadata"]["uid"])
        await self._api.delete(held.name, uid=uid, grace_seconds=0 if there is None else None)
        return None

    def _refuse(self, attempt: Attempt) -> None:
        settings = self._settings
        image = image_of(attempt, settings)
        own = image == settings.image
        if settings.images and not own and not any(fnmatchcase(image, g) for g in settings.images):
            allowed = ", ".join(settings.images)
            raise NotMade(Failure(
                Owner.CONFIG, "image", f"image {image} is none of those of this cluster: {allowed}"
            ))  # fmt: skip
        if missing := [one for one in attempt.task.secrets if one not in settings.secrets]:
            raise NotMade(Failure(
                Owner.CONFIG, "pod_config", f"this cluster has no secret {', '.join(missing)}"
            ))  # fmt: skip
