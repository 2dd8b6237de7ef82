"""Engines that the streams of this process share: each is loaded once, and goes with its last stream."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from weakref import WeakValueDictionary

from engine.frame import Engine
from engine.share import SharedEngine

OnProgress = Callable[[str], None]


class SharedEngines:
    """`get` is for any thread. Streams hold the engines; here they are known only while somebody does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: WeakValueDictionary[Hashable, Engine] = WeakValueDictionary()
        self._shared: WeakValueDictionary[Hashable, SharedEngine] = WeakValueDictionary()
        self._loading: dict[Hashable, _Loading] = {}

    def get(
        self,
        key: Hashable,
        load: Callable[[OnProgress], Engine],
        on_progress: OnProgress,
        *,
        wait_s: float = 0.0,
    ) -> Engine:
        """The engine of that key for one more stream, as by `ahead`. `wait_s`: how long a frame of the stream
        may wait for those of others."""
        return self.ahead(key, load, on_progress).join(wait_s)

    def ahead(
        self, key: Hashable, load: Callable[[OnProgress], Engine], on_progress: OnProgress
    ) -> SharedEngine:
        """The engine of that key, by `load` where nobody has it, for streams that have yet to join. Who asks
        while it is being loaded waits for that, hears how far it is, and gets what it raises."""
        with self._lock:
            shared = self._known(key)
            loading = self._loading.get(key)
            if shared is None and loading is None:
                self._loading[key] = begun = _Loading(on_progress)
            elif loading is not None:
                loading.tell(on_progress)
        if shared is None:
            shared = loading.done.result() if loading is not None else self._load(key, begun, load)
        return shared

    def _known(self, key: Hashable) -> SharedEngine | None:
        shared, engine = self._shared.get(key), self._engines.get(key)
        if shared is None and engine is not None:
            self._shared[key] = shared = SharedEngine(engine)
        return shared

    def _load(self, key: Hashable, loading: "_Loading", load: Callable[[OnProgress], Engine]) -> SharedEngine:
        try:
            engine = load(loading.say)
            shared = SharedEngine(engine)
        except BaseException as exc:
            with self._lock:
                del self._loading[key]
            loading.done.set_exception(exc)
            raise
        with self._lock:
            self._engines[key], self._shared[key] = engine, shared
            del self._loading[key]
        loading.done.set_result(shared)
        return shared


class _Loading:
    """An engine on its way, and who hears how far it is."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.done: Future[SharedEngine] = Future()
        self._listeners = [on_progress]
        self._said = ""

    def tell(self, listener: OnProgress) -> None:
        self._listeners.append(listener)
        listener(self._said)

    def say(self, progress: str) -> None:
        self._said = progress
        for listener in tuple(self._listeners):
            listener(progress)
