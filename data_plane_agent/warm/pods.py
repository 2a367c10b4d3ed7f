"""Warm pods in a Kubernetes cluster: made, deleted and watched by their label.

Implements `Pods` of `sight.py` for `pools.py`, over `pods/api.py` and a reflector of its own;
`pods/launcher.py` passes over them, as they name no attempt.
"""

import logging
from fnmatch import fnmatchcase

from whimbrel.spec import Failure, Owner

from data_plane_agent.launcher import Attempt
from data_plane_agent.pods.api import ApiDown, ApiError, Denied, Invalid, PodApi
from data_plane_agent.pods.codec import image_of
from data_plane_agent.pods.reflector import Change, Gone, Listed, Reflector, Seen
from data_plane_agent.pods.settings import PodSettings
from data_plane_agent.warm.codec import gone, sighted, warm_manifest, warm_selector
from data_plane_agent.warm.pool import PoolKey
from data_plane_agent.warm.sight import NoPod, Watcher

log = logging.getLogger(__name__)


class ClusterPods:
    """`address` is the host that pods dial."""

    def __init__(
        self, api: PodApi, settings: PodSettings, *, address: str, orphan_seconds: float
    ) -> None:
        self._api = api
        self._settings = settings
        self._address = f"[{address}]" if ":" in address else address
        self._orphan_seconds = orphan_seconds
        self._port = 0
        self._watcher: Watcher | None = None

    def may_run(self, attempt: Attempt) -> bool:
        settings, image = self._settings, image_of(attempt, self._settings)
        allowed = image == settings.image or not settings.images
        return (allowed or any(fnmatchcase(image, glob) for glob in settings.images)) and all(
            secret in settings.secrets for secret in attempt.task.secrets
        )

    async def run(self, watcher: Watcher, *, port: int) -> None:
        self._port, self._watcher = port, watcher
        selector = warm_selector(self._settings.cluster)
        await Reflector(self._api, "pods", on_change=self._changed, selector=selector).run()

    async def create(self, pool: PoolKey, *, name: str, token: str) -> str:
        made = warm_manifest(
            pool,
            name=name,
            token=token,
            door=f"{self._address}:{self._port}",
            orphan_seconds=self._orphan_seconds,
            settings=self._settings,
        )
        try:
            return str((await self._api.create(made))["metadata"]["uid"])
        except ApiError as error:
            lasting = isinstance(error, Denied | Invalid)
            kind = "pod_config" if isinstance(error, Invalid) else "admission"
            failure = Failure(Owner.CONFIG if lasting else Owner.SYSTEM, kind, error.message)
            raise NoPod(failure, passing=isinstance(error, ApiDown)) from error

    async def delete(self, name: str, uid: str) -> None:
        try:
            await self._api.delete(name, uid=uid)
        except ApiError as error:
            log.info("warm pod %s can't be deleted now: %s", name, error.message)

    def _changed(self, change: Change) -> None:
        watcher = self._watcher
        assert watcher is not None
        match change:
            case Listed():
                watcher.listed()
            case Seen(pod):
                if (one := sighted(pod)) is not None:
                    watcher.seen(one)
            case Gone(pod):
                watcher.gone(pod["metadata"]["name"], gone(pod))
