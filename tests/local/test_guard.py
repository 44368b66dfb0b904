"""The guard, with real processes that behave as badly as they can."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from support.processes import Marked, marked, wait_until

# Three generations that ignore SIGTERM; the youngest two in sessions of their own, and one orphaned on purpose.
BAD_FAMILY = textwrap.dedent("""
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for generation in range(3):
        if os.fork() == 0:
            os.setsid()
            if generation == 1 and os.fork():
                os._exit(0)  # its child is an orphan now
            continue
        break
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(600)  # outlives the test, unless the guard ends it
""")


@pytest.fixture
def mark():
    with marked() as mark:
        yield mark


def start(mark: Marked, *command: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "tempo_operator.local.guard", "--", *command]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, env=mark.env)


def start_family(mark: Marked, folder: Path) -> subprocess.Popen:
    """A guard over `BAD_FAMILY`, once all of the family have come up."""
    guard = start(mark, sys.executable, "-c", BAD_FAMILY, str(folder))
    wait_until(lambda: len(list(folder.iterdir())) == 4 and len(mark.alive()) == 5)
    return guard


def close(guard: subprocess.Popen) -> int:
    guard.stdin.close()
    return guard.wait(timeout=20)


@pytest.mark.parametrize(("code", "status"), [("exit(0)", 0), ("exit(7)", 7)])
def test_a_guard_ends_with_the_exit_code_of_its_part(mark, code, status):
    guard = start(mark, sys.executable, "-c", code)
    assert guard.wait(timeout=20) == status
    guard.stdin.close()


def test_a_part_killed_by_a_signal_shows_in_the_status(mark):
    guard = start(mark, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert guard.wait(timeout=20) == 128 + signal.SIGKILL
    guard.stdin.close()


def test_a_command_that_is_not_there_is_status_127(mark, capfd):
    guard = start(mark, "/no/such/command")
    assert guard.wait(timeout=20) == 127
    assert "/no/such/command: No such file or directory" in capfd.readouterr().err
    guard.stdin.close()


def test_sigterm_reaches_the_part_which_may_take_its_time(mark, tmp_path):
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); open(sys.argv[1], 'w'); signal.pause()"
    guard = start(mark, sys.executable, "-c", code, str(tmp_path / "up"))
    wait_until((tmp_path / "up").exists)
    guard.send_signal(signal.SIGTERM)
    assert guard.wait(timeout=20) == 5
    guard.stdin.close()


def test_the_end_of_standard_input_ends_three_generations_that_ignore_sigterm(mark, tmp_path):
    guard = start_family(mark, tmp_path)
    guard.send_signal(signal.SIGTERM)
    assert close(guard) == 128 + signal.SIGKILL
    assert not mark.alive()


def test_what_a_killed_part_leaves_behind_is_ended(mark, tmp_path):
    guard = start_family(mark, tmp_path)
    psutil.Process(guard.pid).children()[0].kill()
    guard.wait(timeout=20)
    guard.stdin.close()
    assert not mark.alive()


def test_a_killed_supervisor_leaves_nothing(mark, tmp_path):
    code = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-m', 'tempo_operator.local.guard', '--', sys.executable, '-c',"
        " sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE).wait()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code, BAD_FAMILY, str(tmp_path)], env=mark.env)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 4 and len(mark.alive()) == 6)
    supervisor.kill()
    supervisor.wait(timeout=20)
    wait_until(lambda: not mark.alive())


def test_a_killed_guard_takes_its_part_along_and_the_rest_falls_to_the_supervisor(mark, tmp_path):
    code = textwrap.dedent("""
        import subprocess, sys
        from tempo_operator.local.guard import adopt_orphans, end_descendants
        adopt_orphans()
        argv = [sys.executable, "-m", "tempo_operator.local.guard", "--", sys.executable, "-c", *sys.argv[1:]]
        guard = subprocess.Popen(argv, stdin=subprocess.PIPE)
        print(guard.pid, flush=True)
        guard.wait()
        end_descendants()
        print("done", flush=True)
        sys.stdin.read()
    """)
    argv = [sys.executable, "-c", code, BAD_FAMILY, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mark.env) as supervisor:
        guard_pid = int(supervisor.stdout.readline())
        wait_until(lambda: len(list(tmp_path.iterdir())) == 4 and len(mark.alive()) == 6)
        psutil.Process(guard_pid).kill()
        assert supervisor.stdout.readline() == "done\n"
        assert [process.pid for process in mark.alive()] == [supervisor.pid]
