"""Engines that the streams of this process share: each is loaded once, and goes with its last stream."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Protocol
from weakref import WeakValueDictionary

from engine.frame import Engine

OnProgress = Callable[[str], None]


class Shared(Protocol):
    """An engine that several streams use."""

    def join(self) -> Engine:
        """The engine as one more stream uses it, until that has forgotten it and its lanes. If it is another
        object than the engine, it keeps this one, which the next stream joins. For any thread."""
        ...


Share = Callable[[Engine], Shared]


class AsItIs:
    """One whose own lanes are for any stream."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def join(self) -> Engine:
        return self._engine


class SharedEngines:
    """`get` is for any thread. Streams hold the engines; here they are known only while somebody does."""

    def __init__(self, share: Share = AsItIs) -> None:
        """`share` is called for an engine that no stream uses yet."""
        self._share = share
        self._lock = threading.Lock()
        self._engines: WeakValueDictionary[Hashable, Engine] = WeakValueDictionary()
        self._shared: WeakValueDictionary[Hashable, Shared] = WeakValueDictionary()
        self._loading: dict[Hashable, _Loading] = {}

    def get(self, key: Hashable, load: Callable[[OnProgress], Engine], on_progress: OnProgress) -> Engine:
        """The engine of that key, by `load` where nobody has it. Who asks while it is being loaded waits for
        that, hears how far it is, and gets what it raises."""
        with self._lock:
            shared = self._known(key)
            loading = self._loading.get(key)
            if shared is None and loading is None:
                self._loading[key] = begun = _Loading(on_progress)
            elif loading is not None:
                loading.tell(on_progress)
        if shared is None:
            shared = loading.done.result() if loading is not None else self._load(key, begun, load)
        return shared.join()

    def _known(self, key: Hashable) -> Shared | None:
        shared, engine = self._shared.get(key), self._engines.get(key)
        if shared is None and engine is not None:
            self._shared[key] = shared = self._share(engine)
        return shared

    def _load(self, key: Hashable, loading: "_Loading", load: Callable[[OnProgress], Engine]) -> Shared:
        try:
            engine = load(loading.say)
            shared = self._share(engine)
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
        self.done: Future[Shared] = Future()
        self._listeners = [on_progress]
        self._said = ""

    def tell(self, listener: OnProgress) -> None:
        self._listeners.append(listener)
        listener(self._said)

    def say(self, progress: str) -> None:
        self._said = progress
        for listener in tuple(self._listeners):
            listener(progress)
