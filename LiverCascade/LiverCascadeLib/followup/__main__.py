"""The process that compares; :mod:`.remote` says how it is spoken to. It ends when its parent is gone."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from contextlib import suppress
from typing import Any

from .. import __version__
from ..errors import LiverCascadeError, WorkerCrashed
from ..jobs import NORMAL_PRIORITY, LineDecoder
from ..progress import Progress
from ..worker import Channel, kind_of
from .comparison import compare
from .remote import side_from_dict, step_as_dict


def _listen(channel: Channel, waiting: queue.Queue[dict[str, Any]]) -> None:
    decoder = LineDecoder()
    while data := channel.read():
        for message in decoder.feed(data):
            if message.get("command") == "quit":
                os._exit(0)
            waiting.put(message)
    os._exit(0)


def _answer(channel: Channel, message: dict[str, Any]) -> None:
    job_id = str(message.get("id", ""))

    def told(stage: str, fraction: float) -> None:
        channel.tell("progress", id=job_id, stage="register", fraction=fraction)

    try:
        sides = side_from_dict(message["before"]), side_from_dict(message["after"])
        channel.tell("done", id=job_id, step=step_as_dict(compare(*sides, Progress(told))))
    except LiverCascadeError as error:
        channel.tell("error", id=job_id, kind=kind_of(error), message=str(error), exit_code=error.exit_code)
    except Exception as error:  # whatever it is, somebody waits for an answer
        traceback.print_exc()
        crash = WorkerCrashed(f"The comparison failed: {type(error).__name__}: {error}.")
        channel.tell("error", id=job_id, kind=kind_of(crash), message=str(crash), exit_code=crash.exit_code)


def _set_priority() -> None:
    """Takes back the low priority that Slicer gives to what it starts; where that is refused, it takes longer."""
    if os.environ.get(NORMAL_PRIORITY) and hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)


def main() -> None:
    """Serves comparisons until the parent is gone."""
    channel = Channel()
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(channel, waiting), daemon=True).start()
    channel.tell("ready", version=__version__, pid=os.getpid())
    _set_priority()
    while True:
        _answer(channel, waiting.get())


if __name__ == "__main__":
    main()
