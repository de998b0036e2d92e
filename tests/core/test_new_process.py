"""Functions in a new process: results, errors, output, and what cannot be sent."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from cellvae.core.platform.new_process import call_in_new_process, can_pickle, write_call
from cellvae.errors import InvalidOptionError, TrainingError


def test_a_result_comes_back_from_another_process_and_its_output_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call_in_new_process(os.getppid) == os.getpid()
    call_in_new_process(print, "said by the process")
    assert capsys.readouterr().out == "said by the process\n"


def test_a_process_that_ends_without_a_result_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TrainingError, match="exit code 7"):
        call_in_new_process(os._exit, 7)
    with pytest.raises(TrainingError, match="exit code 1"):
        call_in_new_process(int, "seven")
    assert "invalid literal" in capsys.readouterr().out


def test_ctrl_c_is_passed_on() -> None:
    # A signal for this process while it waits: the other one ends by it.
    timer = threading.Timer(2.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(TrainingError, match="exit code"):
        call_in_new_process(time.sleep, 60)
    timer.join()


def test_what_other_processes_cannot_import_is_refused(tmp_path: Any) -> None:
    def local() -> None: ...

    with pytest.raises(InvalidOptionError, match=r"Expected model, cells and options .* a script"):
        write_call(tmp_path / "call", print, (local,))
    local.__module__ = "__main__"
    with pytest.raises(InvalidOptionError, match="got .*local, which is defined here"):
        write_call(tmp_path / "call", print, (local,))
    assert can_pickle([1]) and not can_pickle(local)
