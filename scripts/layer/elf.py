"""Reads the parts of a 64-bit little-endian ELF file that say how it is linked, and adds a section to one."""
import struct

MACHINES = {"x86_64": 62, "arm64": 183}
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
INTERPRETER, DYNAMIC, STACK, RELRO = 3, 2, 0x6474E551, 0x6474E552
NEEDED = 1
EXECUTABLE = 1
PROGBITS, SYMBOLS = 1, 2


class Elf:
    def __init__(self, data):
        self.data = data
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("no 64-bit little-endian ELF file")
        (_, self.type, self.machine, _, _, segments, self.table, _, _, segment_size, segment_count,
         _, section_count, names) = HEADER.unpack_from(data)
        self.segments = [SEGMENT.unpack_from(data, segments + at * segment_size) for at in range(segment_count)]
        self.sections = [SECTION.unpack_from(data, self.table + at * SECTION.size) for at in range(section_count)]
        self.names = names

    def section_name(self, section):
        _, _, _, _, offset, size, *_ = self.sections[self.names]
        return self.data[offset:offset + size][section[0]:].split(b"\0", 1)[0].decode()

    def section(self, name):
        """The bytes of the section of that name, or None."""
        for section in self.sections:
            if self.section_name(section) == name:
                return self.data[section[4]:section[4] + section[5]]
        return None

    def segment(self, kind):
        return next((segment for segment in self.segments if segment[0] == kind), None)


def complaints(data, arch):
    """Why this file could not run anywhere by itself, or carries what it need not; empty when all is well."""
    try:
        elf = Elf(data)
    except (ValueError, struct.error) as error:
        return [str(error)]
    found = []
    if elf.machine != MACHINES[arch]:
        found.append(f"is for machine {elf.machine}, not for {arch}")
    if elf.segment(INTERPRETER):
        found.append("asks for an interpreter: it is not static")
    if dynamic := elf.segment(DYNAMIC):
        offset, size = dynamic[2], dynamic[5]
        tags = [struct.unpack_from("<q", data, at)[0] for at in range(offset, offset + size, 16)]
        if NEEDED in tags:
            found.append("needs shared libraries: it is not static")
    if any(section[1] == SYMBOLS for section in elf.sections):
        found.append("has a symbol table: it is not stripped")
    found += [f"has debug information in {name}" for name in map(elf.section_name, elf.sections) if "debug" in name]
    stack = elf.segment(STACK)
    if stack is None or stack[1] & EXECUTABLE:
        found.append("has an executable stack")
    if elf.segment(RELRO) is None:
        found.append("leaves its relocations writable (no RELRO)")
    return found


def with_section(data, name, content):
    """The file with one more section, which is not loaded when the program runs: at the end, before a new section table."""
    elf = Elf(data)
    strings = elf.section(elf.section_name(elf.sections[elf.names]))
    names = strings + name.encode() + b"\0"
    sections = list(elf.sections)
    # The old table of sections is last in the file; it and the old names give way.
    out = bytearray(data[:elf.table] if elf.table + len(sections) * SECTION.size == len(data) else data)
    sections.append((len(strings), PROGBITS, 0, 0, len(out), len(content), 0, 0, 1, 0))
    out += content
    old = sections[elf.names]
    sections[elf.names] = (*old[:4], len(out), len(names), *old[6:])
    out += names
    out += b"\0" * (-len(out) % 8)
    table = len(out)
    for section in sections:
        out += SECTION.pack(*section)
    header = list(HEADER.unpack_from(out))
    header[6], header[12] = table, len(sections)
    HEADER.pack_into(out, 0, *header)
    return bytes(out)
