"""What one check is."""
import collections

# `name`: to ask for it alone. `peers`: the programs and their versions. `proves`: in a few words.
# `run`: takes the setup (made in `run`), raises `process.Failure`, and returns what went in and came out.
# `needs`: commands that the machine must have beside what every check needs. `arm64`: for that binary, under an emulator.
Check = collections.namedtuple("Check", "name peers proves run needs arm64", defaults=[(), False])
