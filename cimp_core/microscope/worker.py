"""Read files in a process that can be killed.

A damaged file can make a vendor reader hang, take all memory or crash the interpreter. Here that costs one
worker process and one `UnreadableFileError`; the caller and its other files go on.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CimpError, UnreadableFileError
from .micrograph import Micrograph

__all__ = ["KillableReader"]

_STARTUP = 120.0  # [s]; importing HyperSpy takes 2 s, more on a busy or cold machine


class KillableReader:
    """Reads files as `cimp_core.read` does, in one process that is replaced when it hangs or dies.

    Use it as a context manager, from one thread; the process starts with the first file.

    Parameters
    ----------
    timeout : float
        Longest time for one file [s].
    memory : int or None
        Largest address space of the process [bytes]; needs an operating system with ``RLIMIT_AS``.

    Attributes
    ----------
    restarts : int
        How often a file cost the process.
    """

    _module = __name__

    def __init__(self, timeout: float = 10.0, memory: int | None = 4 * 2**30) -> None:
        self.timeout, self.memory, self.restarts = timeout, memory, 0
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> KillableReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(
        self,
        path: str | os.PathLike,
        override: Mapping[str, float | None] | None = None,
        detector: str | None = None,
        then: Callable[[list[Micrograph]], Any] | None = None,
    ) -> Any:
        """As `cimp_core.read`; a hang, a crash or a lack of memory raises `UnreadableFileError` too.

        With `then`, an importable function or a `partial` of one, what that makes of the micrographs comes back in
        their place: it runs in the process, which saves sending and rebuilding them.
        """
        self.start()
        request = (os.path.abspath(path), dict(override) if override else None, detector, then)
        try:
            _send(self._process.stdin, request)
            done, answer = self._receive(self.timeout)
        except queue.Empty:
            self._discard()
            raise UnreadableFileError(
                f"{path}: reading took longer than {self.timeout:g} s and was stopped; damaged, or very large"
            ) from None
        except (EOFError, OSError):
            code = self._discard()
            died = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise UnreadableFileError(f"{path}: the file crashed its reader ({died}); it is damaged") from None
        except BaseException:  # interrupted: the answer still to come must not be taken for the next file's
            self.close()
            raise
        if done:
            return answer
        if isinstance(answer, CimpError):
            raise answer
        raise RuntimeError(f"reading {path} failed in the worker process:\n{answer}")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(OSError):  # what was left to send to a process that is gone
                self._process.stdin.close()
            self._process = None
            self._scratch.cleanup()

    def start(self) -> None:
        """Start the process now; `read` does it where needed."""
        if self._process is not None:
            return
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # Of its own, for a process that is killed leaves behind what it unpacked.
        self._scratch = tempfile.TemporaryDirectory(prefix="cimp-", ignore_cleanup_errors=True)
        # More threads would only take address space here: each reserves its own stack and arena.
        env = os.environ | {
            "PYTHONPATH": paths,
            "TMPDIR": self._scratch.name,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        command = [sys.executable, "-m", self._module, str(self.memory or 0)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=env)
        self._answers: queue.Queue = queue.Queue()
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        try:
            self._receive(_STARTUP)
        except (EOFError, queue.Empty) as error:
            self.close()
            raise CimpError(
                f"the reader process did not start; try it by hand to see why: {' '.join(command)}"
            ) from error

    def _discard(self) -> int | None:
        self.restarts += 1
        try:
            code = self._process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        return code

    def _receive(self, timeout: float) -> Any:
        """Next message; queue.Empty if none comes within `timeout` [s], EOFError if none will ever come."""
        message = self._answers.get(timeout=timeout)
        if message is None:
            raise EOFError
        return message


def _listen(pipe: Any, answers: queue.Queue) -> None:
    # A thread, for not every system can wait for a pipe with a time limit.
    try:
        while header := pipe.read(8):
            answers.put(pickle.loads(pipe.read(struct.unpack("<Q", header)[0])))
    except (EOFError, OSError, ValueError, struct.error, pickle.UnpicklingError):
        pass  # cut off in the middle of a message: the process died, as the end mark tells
    answers.put(None)


def _send(pipe: Any, message: Any) -> None:
    data = pickle.dumps(message, protocol=5)
    pipe.write(struct.pack("<Q", len(data)))
    pipe.write(data)
    pipe.flush()


def _serve(memory: int) -> None:
    """The worker's loop: a request in, an answer out, until the caller is gone."""
    import traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; its caller decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing a library prints may get between the answers
    from . import read

    _warm_up()
    if memory:
        _limit(memory)
    _send(answers, "ready")
    source = sys.stdin.buffer
    while header := source.read(8):
        path, override, detector, then = pickle.loads(source.read(struct.unpack("<Q", header)[0]))
        try:
            shots = read(path, override=override, detector=detector)
            _send(answers, (True, then(shots) if then else shots))
        except CimpError as error:
            _send(answers, (False, error))
        except MemoryError:
            _send(answers, (False, UnreadableFileError(f"{path}: needs more memory than {memory / 2**30:.2g} GiB")))
        except Exception:  # an error of ours; the caller raises it with this traceback
            _send(answers, (False, traceback.format_exc()))


def _warm_up() -> None:
    """Load now what HyperSpy loads on first use, for loading must not count as reading."""
    import hyperspy.api as hs
    import mrcfile.mrcfile  # noqa: F401
    import rsciio.digitalmicrograph
    import rsciio.emd._emd_velox
    import rsciio.hspy
    import rsciio.tia
    import rsciio.tiff  # noqa: F401

    hs.signals.Signal2D([[0, 0], [0, 0]]).axes_manager[0].convert_to_units("nm")


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit; the time limit still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
