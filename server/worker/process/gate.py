"""Which pictures go to the engine: all of them while somebody watches, else only as many as prepare it."""

from collections.abc import Callable

from server.worker.process.picture import Picture, PictureFormat


class Gate:
    """While nobody watches, a picture passes when the source, its format or the engine is another than
    before: by it the engine is loaded, and the gateway hears what there is to watch."""

    def __init__(
        self, put: Callable[[Picture], None], *, watched: Callable[[], bool], loaded: Callable[[], bool]
    ) -> None:
        """`loaded`: the engine for the last picture that has passed is there, or has failed."""
        self._put = put
        self._watched = watched
        self._loaded = loaded
        self._prepared: tuple[int, PictureFormat, bool] | None = None
        self._held: Picture | None = None  # the last, if it was let go

    def put(self, picture: Picture) -> None:
        """Passes the picture on, or lets it go."""
        prepared = (picture.opening, picture.format, self._loaded())
        if self._watched() or prepared != self._prepared:
            self._prepared, self._held = prepared, None
            self._put(picture)
        else:
            self._held = picture

    def last(self) -> None:
        """No picture follows for now: the last one passes, to be there for who comes later."""
        held, self._held = self._held, None
        if held is not None:
            self._put(held)
