"""Engines that the streams of this process share: each is loaded once, and goes with its last stream."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from weakref import WeakValueDictionary

from engine.frame import Engine

OnProgress = Callable[[str], None]


class SharedEngines:
    """`get` is for any thread. Streams hold the engines; here they are known only while somebody does."""

    def __init__(self, share: Callable[[Engine], Engine] = lambda engine: engine) -> None:
        """`share` makes of an engine just loaded what the lanes of several streams may be taken from."""
        self._share = share
        self._lock = threading.Lock()
        self._engines: WeakValueDictionary[Hashable, Engine] = WeakValueDictionary()
        self._loading: dict[Hashable, _Loading] = {}

    def get(self, key: Hashable, load: Callable[[OnProgress], Engine], on_progress: OnProgress) -> Engine:
        """The engine of that key, by `load` where nobody has it. Who asks while it is being loaded waits for
        that, hears how far it is, and gets what it raises."""
        with self._lock:
            engine = self._engines.get(key)
            if engine is not None:
                return engine
            loading = self._loading.get(key)
            if loading is not None:
                loading.tell(on_progress)
            else:
                self._loading[key] = begun = _Loading(on_progress)
        return loading.done.result() if loading is not None else self._load(key, begun, load)

    def _load(self, key: Hashable, loading: "_Loading", load: Callable[[OnProgress], Engine]) -> Engine:
        try:
            engine = self._share(load(loading.say))
        except BaseException as exc:
            with self._lock:
                del self._loading[key]
            loading.done.set_exception(exc)
            raise
        with self._lock:
            self._engines[key] = engine
            del self._loading[key]
        loading.done.set_result(engine)
        return engine


class _Loading:
    """An engine on its way, and who hears how far it is."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.done: Future[Engine] = Future()
        self._listeners = [on_progress]
        self._said = ""

    def tell(self, listener: OnProgress) -> None:
        self._listeners.append(listener)
        listener(self._said)

    def say(self, progress: str) -> None:
        self._said = progress
        for listener in tuple(self._listeners):
            listener(progress)
