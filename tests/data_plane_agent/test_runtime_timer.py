"""The kernel timer in a process of its own: it ends at its deadline, even one stopped by then."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from whimbrel.runtime_timer import KillTimer, boottime_ns

STAMPS = """
import sys, time
from whimbrel.runtime_timer import KillTimer, boottime_ns
timer = KillTimer()
{arm}
with open(sys.argv[1], "a", buffering=1) as file:
    print("until", timer.until_ns, file=file)
    while True:
        print(boottime_ns(), file=file)
        time.sleep(0.001)
"""


def run(arm: str, file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STAMPS.format(arm=arm), str(file)])


def begun(file: Path) -> int:
    """The deadline it said, once it runs."""
    while not file.exists() or file.read_text().count("\n") < 3:
        time.sleep(0.005)
    return int(file.read_text().split()[1])


def stamps(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()[1:] if line]


def test_it_ends_the_process_at_its_deadline(tmp_path: Path) -> None:
    process = run("timer.arm(boottime_ns() + 300_000_000)", tmp_path / "s")
    until = begun(tmp_path / "s")
    assert process.wait(30) == -signal.SIGKILL
    assert boottime_ns() >= until
    assert max(stamps(tmp_path / "s")) <= until


def test_nothing_runs_after_a_pause_beyond_the_deadline(tmp_path: Path) -> None:
    process = run("timer.arm(boottime_ns() + 400_000_000)", tmp_path / "s")
    until = begun(tmp_path / "s")
    os.kill(process.pid, signal.SIGSTOP)
    while boottime_ns() < until + 50_000_000:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == -signal.SIGKILL
    assert max(stamps(tmp_path / "s")) <= until


def test_a_push_goes_later_only(tmp_path: Path) -> None:
    arm = "at = boottime_ns() + 300_000_000; timer.arm(at); timer.push(at + 300_000_000)"
    process = run(f"{arm}; timer.push(at)", tmp_path / "s")
    until = begun(tmp_path / "s")
    assert process.wait(30) == -signal.SIGKILL
    assert boottime_ns() >= until
    assert max(stamps(tmp_path / "s")) > until - 200_000_000  # beyond the first deadline


def test_a_deadline_that_has_passed_ends_it_at_once(tmp_path: Path) -> None:
    process = run("timer.arm(1)", tmp_path / "s")
    assert process.wait(30) == -signal.SIGKILL
    assert not (tmp_path / "s").exists()


def test_a_push_to_an_earlier_time_is_ignored() -> None:
    timer = KillTimer()
    late = boottime_ns() + 60_000_000_000
    timer.arm(late)
    timer.push(late - 1)
    assert timer.until_ns == late
    timer.disarm()


def test_a_fork_has_no_timer(tmp_path: Path) -> None:
    code = """
import os, time
from whimbrel.runtime_timer import KillTimer, boottime_ns
timer = KillTimer()
timer.arm(boottime_ns() + 60_000_000_000)
if os.fork() == 0:
    try:
        timer.push(boottime_ns() + 61_000_000_000)
    except OSError:
        os._exit(7)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_disarmed_it_ends_nothing_and_zero_arms_nothing() -> None:
    timer = KillTimer()
    timer.arm(boottime_ns() + 60_000_000_000)
    timer.disarm()
    timer.push(boottime_ns() + 1)  # not armed: a push arms nothing
    assert timer.until_ns == 0
    with pytest.raises(ValueError, match="CLOCK_BOOTTIME"):
        timer.arm(0)


def test_an_earlier_push_is_ignored() -> None:
    timer = KillTimer()
    until = boottime_ns() + 60_000_000_000
    timer.arm(until)
    timer.push(until + 1)
    timer.push(until)
    assert timer.until_ns == until + 1
    timer.disarm()
