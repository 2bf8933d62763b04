"""The memory of the very programs that are shipped, over many small invocations: scripts/soak."""
import shutil

import layers
from harness import Skip, expect, run
from shipped import MACHINE, QEMU
from tools import LAYERS, TARGETS

# Of each FLUSH mode, all of them at once: half a minute where two processors are free.
INVOCATIONS = 100_000
# An emulator costs tenfold, and never gives back the 300 KiB that it keeps for each thread that there ever was.
UNDER_QEMU = 3_000
# So only the program's own memory is looked at: where qemu is told to put it.
BASE, SIZE = 0x1000_0000_0000, 0x4000_0000


def this_machines_layer_keeps_its_memory():
    layers.built()
    return soak(MACHINE, "--invocations", str(INVOCATIONS))


def the_other_layer_keeps_its_memory_under_qemu():
    (other,) = set(TARGETS) - {MACHINE}
    emulator = QEMU[other]
    if not shutil.which(emulator):
        raise Skip(f"no {emulator} (apt-get install qemu-user-static): the layer for {other} was not soaked")
    layers.built()
    runner = f"{emulator} -B {BASE:#x} -R {SIZE:#x}"
    return soak(other, "--invocations", str(UNDER_QEMU), "--runner", runner, "--within", f"{BASE:x}-{BASE + SIZE:x}")


def soak(arch, *options):
    """Runs it, and gives each mode's peak."""
    said = run("scripts/soak", "--together", *options, f"{arch}={LAYERS / arch / layers.INSIDE}")
    lines = [[cell.strip() for cell in line.split("|")] for line in said.splitlines() if line.startswith(f"| {arch} |")]
    expect(len(lines) == 3, said)
    return f"{arch}, " + ", ".join(f"{line[2]} {line[7]} MiB" for line in lines)


CHECKS = [this_machines_layer_keeps_its_memory, the_other_layer_keeps_its_memory_under_qemu]
