"""The machines of a cluster, and whether its API server answers.

Kept by `launcher.py`, which asks it before it believes that a node is lost and for the capacity
that the router places by.
"""

from collections.abc import Iterable
from contextlib import suppress

from whimbrel.spec import Resources

from data_plane_agent.launcher import Capacity, Offer
from data_plane_agent.pods import access, capacity
from data_plane_agent.pods.api import ApiError, PodApi
from data_plane_agent.pods.capacity import NodeSight
from data_plane_agent.pods.clock import REAL, Clock
from data_plane_agent.pods.held import Held, load
from data_plane_agent.pods.reflector import Change, Gone, Listed, Reflector, Seen
from data_plane_agent.pods.settings import PodSettings

PULSE_SECONDS = 1.0
"""Between two questions whether the API server is well: a frozen one breaks no watch for a long
time. Shorter asks for nothing, longer sends runs to a cluster that can't start them."""
ILL_SECONDS = 3.0
"""Without an answer of the API server. Shorter turns work away for a hiccup, longer sends it to a
cluster that can't start it."""
REFUSED_IMAGE_SECONDS = 600.0
"""An image that could not be had counts as not there. Shorter fails run after run, longer keeps
them away from a cluster that has it again."""
SETTLE_SECONDS = 2.0
"""From an API server's recovery until what is known of the cluster is believed. Shorter may judge
by what was true before, longer tells of a lost node later."""

RIGHTS_SECONDS = 5.0
"""Between two tries to ask an ill API server for the agent's rights. Shorter presses it, longer
tells later what is missing."""


class Cluster:
    def __init__(
        self,
        api: PodApi,
        *,
        gpu_resource: str,
        clock: Clock = REAL,
    ) -> None:
        self._api = api
        self._gpu_resource = gpu_resource
        self._clock = clock
        self._nodes: dict[str, NodeSight] = {}
        self.reflector = Reflector(
            api, "nodes", on_change=self._changed, clock=clock.now, sleep=clock.sleep
        )
        self._refused: dict[str, float] = {}
        self._no_pulse = ""
        self._why = ""
        self._ill_since: float | None = None
        self._ill_at = -SETTLE_SECONDS

    async def check_rights(self) -> None:
        """As soon as the API server answers. Raises Refused."""
        while True:
            with suppress(ApiError):
                await access.check(self._api)
                return
            await self._clock.sleep(RIGHTS_SECONDS)

    async def pulse_forever(self) -> None:
        while True:
            try:
                await self._api.healthy()
                self._no_pulse = ""
            except ApiError as error:
                self._no_pulse = error.message or type(error).__name__
            await self._clock.sleep(PULSE_SECONDS)

    def look(self, pods_ill: str) -> None:
        """To be called often: since when is something ill?"""
        self._why = self._no_pulse or pods_ill or self.reflector.ill
        now = self._clock.now()
        self._ill_since = None if not self._why else (self._ill_since or now)
        if self._why:
            self._ill_at = now

    @property
    def well(self) -> bool:
        """What is known of it is what is; an old picture proves nobody's death."""
        settled = self._clock.now() - self._ill_at >= SETTLE_SECONDS
        return settled and self._ill_since is None and self.reflector.synced.is_set()

    @property
    def ill(self) -> str:
        """Why it should get no work, "" = it may."""
        if not self.reflector.synced.is_set():
            return self._why or "the cluster is not known yet"
        if self._ill_since is not None and self._clock.now() - self._ill_since >= ILL_SECONDS:
            return self._why
        if not any(node.usable for node in self._nodes.values()):
            return "no node of it is ready"
        return ""

    def silent(self, host: str) -> bool:
        node = self._nodes.get(host)
        return bool(host) and (node is None or node.silent_since_ns != 0)

    def capacity(self, held: Iterable[Held], settings: PodSettings, *, known: bool) -> Capacity:
        """`allocatable` is what the largest node has, as a task must fit into one; `free` is of all
        nodes together. `known`: the pods of before are."""
        asked, running, queued = load(held)
        ill = self.ill or ("" if known else "its pods are not known")
        free, offer = self.free(asked), self.offer(settings)
        return Capacity(self.largest(), free, running, queued, ill, offer)

    def largest(self) -> Resources:
        return capacity.largest(self._nodes.values())

    def free(self, requested: Iterable[Resources]) -> Resources:
        return capacity.free(self._nodes.values(), requested)

    def refuse(self, image: str) -> None:
        """It could not be had here."""
        self._refused[image] = self._clock.now()

    def offer(self, settings: PodSettings) -> Offer:
        young = self._clock.now() - REFUSED_IMAGE_SECONDS
        self._refused = {image: at for image, at in self._refused.items() if at > young}
        images = settings.images and (*settings.images, settings.image)
        return Offer(images, tuple(self._refused), tuple(settings.secrets))

    def _changed(self, change: Change) -> None:
        match change:
            case Seen(node):
                seen = capacity.node_sight(node, gpu_resource=self._gpu_resource)
                self._nodes[seen.name] = seen
            case Gone(node):
                self._nodes.pop(node["metadata"]["name"], None)
            case Listed():
                pass
