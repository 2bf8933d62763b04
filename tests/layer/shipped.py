"""The integration tests under qemu, with the program for the other machine. scripts/test runs all of them with this machine's own."""
import os
import platform
import re
import shutil

import layers
from harness import Skip, expect, run
from tools import LAYERS, TARGETS

MACHINE = {"aarch64": "arm64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
QEMU = {"arm64": "qemu-aarch64-static", "x86_64": "qemu-x86_64-static"}
# What says nothing about a program under an emulator, and why.
NOT_UNDER_QEMU = {
    "architecture::": "looks at the sources",
    "scale::": "looks at the manual",
    "docs::": "looks at the README and the manual",
    "circumstances::": "times its faults to fractions of a second, and limits files by a shell, without the emulator",
    "lambda_variants::": "times its faults to fractions of a second",
    "wire::": "calls the library, on this machine",
    "panics::": "builds a program of its own, for this machine",
    "records::single_events_come_back": "long; lines_come_back sends the same 50,000 events",
    "records::aggregates_come_back": "long; lines_come_back sends the same 50,000 events",
    "hostile::": "would measure the emulator's memory",
    "listener::a_length_that_nobody_could_send": "would measure the emulator's memory",
    "limits::memory_is_bounded": "would measure the emulator's memory",
    "limits::small_posts_in_an_outage_share_files": "would measure the emulator's memory",
    "bodies::a_long_event_costs": "would measure the emulator's memory",
    "keep_faults::small_invocations_that_run": "would measure the emulator's memory",
    "connections::": "would measure the emulator's memory, and count its threads",
    "limits::running_out_of_file_descriptors": "starts the program through a shell, without the emulator",
    "limits::a_disk_that_is_full": "starts the program through a shell, without the emulator",
    "ready::no_handshake_is_left_for_the_flush": "waits for an idle machine, which it is not beside another test in the emulator",
    "freeze::next_sends_with_the_next_invocation": "counts single milliseconds",
    "freeze::adaptive_in_steady_traffic": "counts single milliseconds",
}


def the_other_layer_runs_under_qemu():
    (other,) = set(TARGETS) - {MACHINE}
    emulator = QEMU[other]
    if not shutil.which(emulator):
        raise Skip(f"no {emulator} (apt-get install qemu-user-static): the layer for {other} was not run")
    layers.built()
    program = LAYERS / other / layers.INSIDE
    said = run(emulator, str(program), "--version", timeout=60)
    expect(re.fullmatch(r"kinesis-telemetry-extension \S+\n", said), said)
    skips = [option for name in NOT_UNDER_QEMU for option in ("--skip", name)]
    return integration_tests(program, {"KTE_RUNNER": emulator}, skips)


def integration_tests(program, environment, filters):
    """Runs those that the filters leave; one that failed is in the message."""
    # `--workspace` as scripts/test has it, so that nothing is compiled anew.
    command = ["cargo", "test", "--workspace", "--locked", "--quiet", "--test", "it", "--", *filters]
    said = run(*command, env={**os.environ, **environment, "KTE_BINARY": str(program)})
    passed, left_out = re.search(r"(\d+) passed; 0 failed;.* (\d+) filtered out", said).groups()
    expect(int(passed) > 0, "the filters leave no test")
    return f"{program.relative_to(LAYERS).parts[0]}, {passed} tests, {left_out} left out"


CHECKS = [the_other_layer_runs_under_qemu]
