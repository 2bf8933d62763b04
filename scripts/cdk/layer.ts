/**
 * Looks at a layer before it is shipped: a folder as `scripts/build-layer` writes it, or a release's zip. A layer whose file is not
 * executable, lies elsewhere or is of another architecture deploys without complaint, and then fails the init of every function that has it.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { inflateRawSync } from 'node:zlib';

/** The extension's file. Lambda starts what lies in `extensions/` and takes its file name for the extension's. */
export const EXTENSION = 'extensions/kinesis-telemetry-extension';

/** `e_machine` in the ELF header, as the names of architectures that Lambda uses. */
const MACHINES: Readonly<Record<number, string>> = { 0x3e: 'x86_64', 0xb7: 'arm64' };
/** The program has less than 2 MB; what unpacks to more than this is something else. */
const MOST_BYTES = 64 * 1024 * 1024;

/** A file of a layer. */
interface File {
  readonly name: string;
  readonly mode: number;
  read(): Buffer;
}

/**
 * The folder of `architecture` under `layers`, or its zip there, when it is fit to be shipped. Throws an error that says what to fix.
 *
 * CDK's hash of a folder leaves file modes out, so a layer once uploaded with a wrong one would stay wrong after a
 * `chmod`: hence the look at the mode.
 */
export function checkedLayer(layers: string, architecture: string): string {
  const folder = path.join(layers, architecture);
  const zip = path.join(layers, `kinesis-telemetry-extension-${architecture}.zip`);
  const place = !fs.existsSync(folder) && fs.existsSync(zip) ? zip : folder;
  const wrong = problem(place, architecture);
  if (wrong) throw new Error(`layer for ${architecture}: ${wrong}; scripts/build-layer ${architecture} makes it anew`);
  return place;
}

function problem(place: string, architecture: string): string | undefined {
  let found: File[];
  try {
    found = place.endsWith('.zip') ? zipped(fs.readFileSync(place)) : files(place);
  } catch (error) {
    return `${place} can't be read: ${error instanceof Error ? error.message : error}`;
  }
  const file = found.find(({ name }) => name === EXTENSION);
  const where = path.join(place, EXTENSION);
  if (!file) return `${where} is missing`;
  if (found.length > 1) return `${place} holds more than ${EXTENSION}: ${found.map(({ name }) => name).filter((name) => name !== EXTENSION).join(', ')}`;
  if (file.mode !== 0o755) return `${where} has mode 0${file.mode.toString(8)}, not 0755`;
  const header = file.read().subarray(0, 20);
  if (header.length < 20 || header.readUInt32BE(0) !== 0x7f454c46) return `${where} is no ELF program`;
  const machine = MACHINES[header.readUInt16LE(18)] ?? 'something else';
  return machine === architecture ? undefined : `${where} is a program for ${machine}`;
}

/** Every file below `folder`, with names from there. */
function files(folder: string): File[] {
  if (!fs.existsSync(folder)) return [];
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
  return entries.map((entry) => {
    const file = path.join(entry.parentPath, entry.name);
    return { name: path.relative(folder, file), mode: fs.statSync(file).mode & 0o777, read: () => fs.readFileSync(file) };
  });
}

/** Every file of a zip, from its central directory. Throws RangeError for what is none. */
function zipped(zip: Buffer): File[] {
  const end = zip.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
  if (end < 0) throw new RangeError('it is no zip');
  const found: File[] = [];
  let at = zip.readUInt32LE(end + 16);
  for (let left = zip.readUInt16LE(end + 10); left > 0; left -= 1) {
    const [method, size, start] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20), zip.readUInt32LE(at + 42)];
    const [nameLength, more] = [zip.readUInt16LE(at + 28), zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32)];
    const name = zip.toString('utf8', at + 46, at + 46 + nameLength);
    const mode = (zip.readUInt32LE(at + 38) >>> 16) & 0o777;
    const data = start + 30 + zip.readUInt16LE(start + 26) + zip.readUInt16LE(start + 28);
    const packed = zip.subarray(data, data + size);
    if (!name.endsWith('/')) found.push({ name, mode, read: () => (method === 8 ? inflateRawSync(packed, { maxOutputLength: MOST_BYTES }) : packed) });
    at += 46 + nameLength + more;
  }
  return found;
}
