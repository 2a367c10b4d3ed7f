"""What a pod is told, and what it may write: an order in the region's store with URLs signed for
one object each.

Called by `launcher.py` before it creates a pod and when one has ended; `mailbox.py` asks for the
next page. The pod's end of it is `whimbrel.runtime_order` and `whimbrel.runtime_pod`. No key of the
store ever leaves the agent: a stolen order opens the attempt's own objects, until it expires.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from whimbrel.runtime_frames import Message
from whimbrel.runtime_order import EXCLUSIVE_VERSION, VERSION
from whimbrel.runtime_store import StoreFull, UnreadableInput, address
from whimbrel.spec import ARTIFACT_KEY, Artifact, canonical, sha256

from data_plane_agent.attempt_answers import parts_of, prefix_of
from data_plane_agent.blobs import Blobs
from data_plane_agent.launcher import Attempt, AttemptKey
from data_plane_agent.pods.answers import complete, parsed

ARTIFACTS_A_PAGE, CHECKPOINTS_A_PAGE = 16, 4
"""Slots signed at once. Fewer make a task with many outputs wait for pages, more cost signatures
(10 us each) for every pod."""
RENEWALS_A_PAGE = 4
"""Used in turn: a question must not lie where an older one is just being taken away."""
MOST_PAGES = 4096
"""Of one attempt: a pod that asks for more is told no more."""
ANSWER_LIMIT = 8 << 20
"""Bytes of an answer in the store: it holds a document of at most 64 KiB and artifacts' names."""

BUNDLE_SECONDS = 3600.0
"""Between two looks whether a bundle is still in the store, whose rules may delete it: less
asks in vain, more lets every pod of it break until then."""

FetchArchive = Callable[[str], Awaitable[Path]]


@dataclass(frozen=True, slots=True)
class Order:
    """What the pod's manifest carries. `digest` is what was asked for: equal for every order of the
    same attempt, unlike `sha256`, which is of the document at `url`. `folder` is the key below
    which the attempt writes; keep it with the pod, the other methods want it."""

    url: str
    sha256: str
    digest: str
    folder: str


@dataclass(frozen=True, slots=True)
class Sender:
    """A pod that is trusted to speak for one attempt, and for nothing outside its folder."""

    key: AttemptKey
    folder: str


class Orders:
    """`url_seconds`: shorter than an attempt makes it ask again for URLs (it does so at 80 %),
    longer keeps a stolen one useful. S3 allows 7 days."""

    def __init__(
        self,
        blobs: Blobs,
        *,
        cluster: str,
        fetch_archive: FetchArchive,
        url_seconds: float = 24 * 3600.0,
        grace_seconds: float = 30.0,
        clock_ns: Callable[[], int] = time.time_ns,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._blobs = blobs
        self._cluster = cluster
        self._fetch_archive = fetch_archive
        self._seconds = url_seconds
        self._grace = grace_seconds
        self._clock_ns = clock_ns
        self._token = token
        self._bundles: dict[str, asyncio.Lock] = {}
        self._bundles_seen_ns: dict[str, int] = {}

    async def open(self) -> None:
        """Raises Refused, with what to do, when pods can't use the region's store; one that does
        not answer now is waited for."""
        await self._blobs.refuse_for_pods()

    async def write(self, attempt: Attempt, *, pod: str) -> Order:
        """StoreFull when the store does not take it (try again later), UnreadableInput when an
        input lies where this region has no keys or outside the run's project and domain,
        WhimbrelError when there is no such bundle."""
        digest = attempt.task.bundle
        await self._bring_bundle(digest)
        folder = f"{prefix_of(attempt.key)}/{self._token()}"
        bundle = address(self._blobs.root, f"bundles/{digest}")
        checkpoint = attempt.checkpoint
        asked: dict[str, Any] = {
            "v": EXCLUSIVE_VERSION if attempt.exclusive else VERSION,
            "k": parts_of(attempt.key),
            "d": attempt.input_digest,
            "entry": attempt.task.entry_point,
            "in": dict(attempt.inputs),
            "trace": attempt.traceparent,
            "timeout": attempt.timeout_seconds,
            "grace": self._grace,
            "region": self._blobs.region,
            "checkpoint": None if checkpoint is None else asdict(checkpoint),
        }
        reads = await self.reads(attempt)
        document = {
            **asked,
            "bundle": {"url": (await self._signed("GET", [bundle]))[bundle], "sha256": digest},
            "reads": reads,
            "page": await self._page(folder, pod, 1, exclusive=attempt.exclusive),
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        stored = await self._blobs.put(f"{folder}/order.json", data)
        same = sha256(canonical({**asked, "trace": "", "bundle": digest}))
        url = (await self._signed("GET", [stored.uri]))[stored.uri]
        return Order(url, stored.sha256, same, folder)

    async def next_page(self, sender: Sender, *, pod: str, number: int) -> None:
        """Writes page `number`, where the pod looks for it. Harmless when it is there already: the
        same slots with fresh URLs. StoreFull, UnreadableInput: try again."""
        if not 2 <= number <= MOST_PAGES:
            return
        data = await self._blobs.get(address(self._blobs.root, f"{sender.folder}/order.json"))
        order = json.loads(data)
        exclusive = order["v"] == EXCLUSIVE_VERSION
        page = await self._page(sender.folder, pod, number, exclusive=exclusive)
        page["reads"] = await self._signed("GET", order["reads"])
        await self._blobs.put(_page_key(sender.folder, number), json.dumps(page).encode())

    async def renew(self, sender: Sender, *, nonce: str, left_ns: int) -> None:
        """The answer to an exclusive attempt: it may run for this long from its question on.
        StoreFull: none, and it asks again."""
        answer = json.dumps({"nonce": nonce, "left_ns": left_ns}).encode()
        await self._blobs.put(_renewal_key(sender.folder), answer)

    async def answer(self, text: str, sender: Sender) -> Message | None:
        """What the pod said at its end, from its termination message; "k" is who it is, whatever it
        claims. None when it said nothing that can be understood, or what it stored is not there
        any more; UnreadableInput when the store does not answer now."""
        message = parsed(text)
        match message:
            case {"t": "stored", "sha256": str(digest)}:
                uri = address(self._blobs.root, f"{sender.folder}/result.json")
                try:
                    if await self._blobs.size(uri) > ANSWER_LIMIT:
                        return None
                    data = await self._blobs.get(uri)
                except UnreadableInput as error:
                    if isinstance(error.__cause__, FileNotFoundError):
                        return None
                    raise
                message = parsed(data.decode("utf-8", "replace"))
                if sha256(data) != digest:
                    return None
            case _:
                pass
        if not complete(message):
            return None
        return {**cast("Message", message), "k": parts_of(sender.key)}

    def owned(self, artifact: Artifact, sender: Sender) -> bool:
        """Whether the sender may say that it wrote this."""
        return artifact.uri.startswith(address(self._blobs.root, sender.folder) + "/")

    async def save_log(self, sender: Sender, data: bytes | Path) -> Artifact | None:
        """The log of a pod that did not store it itself. None when the store takes nothing."""
        if not data:
            return None
        try:
            return await self._blobs.put(f"{sender.folder}/rescued-{self._token()}.log", data)
        except StoreFull:
            return None

    async def code(self, digest: str) -> Message:
        """Where a warm pod fetches its code. Raises as `write`."""
        await self._bring_bundle(digest)
        bundle = address(self._blobs.root, f"bundles/{digest}")
        return {"url": (await self._signed("GET", [bundle]))[bundle], "sha256": digest}

    def sender(self, key: AttemptKey) -> Sender:
        """For an attempt in a warm pod: where it may write."""
        return Sender(key, f"{prefix_of(key)}/{self._token()}")

    async def reads(self, attempt: Attempt) -> dict[str, str]:
        """The URLs of what it reads. UnreadableInput as `write`."""
        uris = [artifact["uri"] for artifact in _artifacts(dict(attempt.inputs))]
        # Whoever launches a run, and every task, may name any address; the keys here open them all.
        folder = f"{attempt.project}/{attempt.domain}"
        for uri in uris:
            if not self._blobs.holds(uri, below=folder):
                raise UnreadableInput(
                    uri, f"it is not below {folder}/ of a store that this region has keys of"
                )
        found = await self._signed("GET", uris)
        if attempt.checkpoint is not None:
            with suppress(UnreadableInput):  # then the attempt begins anew, which it may
                found |= await self._signed("GET", [attempt.checkpoint.uri])
        return found

    async def page(self, sender: Sender, *, pod: str, number: int) -> Message | None:
        """Slots for a warm pod that asks for some; None when it has had too many."""
        return await self._page(sender.folder, pod, number) if 1 <= number <= MOST_PAGES else None

    @property
    def url_seconds(self) -> float:
        return self._seconds

    async def _bring_bundle(self, digest: str) -> None:
        """Into the region's store, once; attempts of one bundle wait for the same upload."""
        if self._has_bundle(digest):
            return
        async with self._bundles.setdefault(digest, asyncio.Lock()):
            if self._has_bundle(digest):
                return
            key = f"bundles/{digest}"
            archive = await self._fetch_archive(digest)
            size = (await asyncio.to_thread(archive.stat)).st_size
            try:
                there = await self._blobs.size(address(self._blobs.root, key)) == size
            except UnreadableInput:
                there = False
            if not there:
                await self._blobs.put(key, archive)
            self._bundles_seen_ns[digest] = self._clock_ns()

    def _has_bundle(self, digest: str) -> bool:
        seen_ns = self._bundles_seen_ns.get(digest)
        return seen_ns is not None and self._clock_ns() - seen_ns < BUNDLE_SECONDS * 1e9

    async def _page(
        self, folder: str, pod: str, number: int, *, exclusive: bool = False
    ) -> dict[str, Any]:
        root = self._blobs.root
        expires = self._clock_ns() + int(self._seconds * 1e9)

        def slots(name: str, count: int) -> list[str]:
            return [address(root, f"{folder}/{number}-{i}/{name}") for i in range(count)]

        artifacts = slots("object", ARTIFACTS_A_PAGE)
        checkpoints = slots("checkpoint", CHECKPOINTS_A_PAGE)
        box = f"mailbox/{self._cluster}/{pod}"
        notices = [address(root, f"{box}/{self._token()}") for _ in range(CHECKPOINTS_A_PAGE + 1)]
        result, log = address(root, f"{folder}/result.json"), address(root, f"{folder}/log")
        further = address(root, _page_key(folder, number + 1))
        put = await self._signed("PUT", [*artifacts, *checkpoints, *notices, result, log])
        get = await self._signed("GET", [*checkpoints, further])
        *saved, more = notices
        renewals = await self._renewals(folder, box) if exclusive else []
        return {
            "n": number,
            "artifacts": [{"uri": uri, "put": put[uri]} for uri in artifacts],
            "checkpoints": [
                {"uri": uri, "put": put[uri], "get": get[uri], "notice": put[notice]}
                for uri, notice in zip(checkpoints, saved, strict=True)
            ],
            "result": {"uri": result, "put": put[result]},
            "log": {"uri": log, "put": put[log]},
            "more": {"notice": put[more], "get": get[further]},
            "expires_ns": expires,
            "renewals": renewals,
        }

    async def _renewals(self, folder: str, box: str) -> list[dict[str, str]]:
        root = self._blobs.root
        asks = [address(root, f"{box}/{self._token()}") for _ in range(RENEWALS_A_PAGE)]
        answer = address(root, _renewal_key(folder))
        put, get = await self._signed("PUT", asks), await self._signed("GET", [answer])
        return [{"put": put[ask], "get": get[answer]} for ask in asks]

    async def _signed(self, method: Literal["GET", "PUT"], uris: Iterable[str]) -> dict[str, str]:
        return await self._blobs.sign(method, uris, seconds=self._seconds)


def _page_key(folder: str, number: int) -> str:
    return f"{folder}/page-{number}.json"


def _renewal_key(folder: str) -> str:
    return f"{folder}/renewal.json"


def _artifacts(value: Any) -> Iterator[dict[str, Any]]:
    match value:
        case {"$artifact": {"uri": str()}} if len(value) == 1:
            yield value[ARTIFACT_KEY]
        case dict():
            for item in cast("dict[str, Any]", value).values():
                yield from _artifacts(item)
        case list():
            for item in cast("list[Any]", value):
                yield from _artifacts(item)
        case _:
            return
