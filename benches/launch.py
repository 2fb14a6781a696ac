"""Run a command and say what it took: `python benches/launch.py COMMAND...`, as a line of JSON.

Memory is the reason for a program of its own, which loads next to nothing: on Linux the peak of a process begins at the
memory of the one that started it.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    start = time.perf_counter()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        answered = time.perf_counter() - start
        output = first + process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    took = {
        "answered": answered,  # seconds until its first line was there
        "seconds": time.perf_counter() - start,
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "output": output,
    }
    print(json.dumps(took))
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
