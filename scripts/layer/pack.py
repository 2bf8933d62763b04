"""Compresses, and makes the layer's zip: the same bytes whenever, wherever, and with whichever zlib Python was built."""
import struct
import subprocess
import zlib

from tools import venv

# 1980-01-01, the first day that a zip can name.
DAY = 0b0000000_0001_00001
UNIX, VERSION, DEFLATE = 3, 20, 8

# In as many blocks as pay: the 15 that are the default cost 6 KB. More iterations would save 100 bytes.
COMPRESS = "import sys, zopfli.zlib as z; sys.stdout.buffer.write(z.compress(sys.stdin.buffer.read(), numiterations=15, blocksplittingmax=0))"


def compressed(data):
    """`data` in zlib's form, by a pinned compressor that also finds shorter ones than zlib does."""
    return subprocess.run([venv("build") / "python", "-c", COMPRESS], input=data, stdout=subprocess.PIPE, check=True).stdout


def zipped(name, data):
    """A zip with one file in it, mode 0755."""
    # In a zip it stands without zlib's two bytes before and four behind.
    body, name = compressed(data)[2:-4], name.encode()
    common = struct.pack("<5H3L2H", VERSION, 0, DEFLATE, 0, DAY, zlib.crc32(data), len(body), len(data), len(name), 0)
    local = b"PK\x03\x04" + common + name + body
    mode = 0o100755 << 16
    central = b"PK\x01\x02" + struct.pack("<H", UNIX << 8 | VERSION) + common + struct.pack("<3H2L", 0, 0, 0, mode, 0) + name
    return local + central + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central), len(local), 0)
