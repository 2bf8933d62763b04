/**
 * Looks at a layer's folder before it is shipped. A layer whose file is not executable, lies elsewhere or is of another
 * architecture deploys without complaint, and then fails the init of every function that has it.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';

/** The extension's file. Lambda starts what lies in `extensions/` and takes its file name for the extension's. */
export const EXTENSION = 'extensions/kinesis-telemetry-extension';

/** `e_machine` in the ELF header, as the names of architectures that Lambda uses. */
const MACHINES: Readonly<Record<number, string>> = { 0x3e: 'x86_64', 0xb7: 'arm64' };

/**
 * The folder of `architecture` under `layers`, when it is fit to be shipped. Throws an error that says what to mend.
 *
 * CDK's hash of a folder leaves file modes out, so a layer once uploaded with a wrong one would stay wrong after a
 * `chmod`: hence the look at the mode.
 */
export function checkedLayer(layers: string, architecture: string): string {
  const folder = path.join(layers, architecture);
  const wrong = problem(folder, architecture);
  if (wrong) throw new Error(`layer for ${architecture}: ${wrong}; scripts/build-layer ${architecture} makes it anew`);
  return folder;
}

function problem(folder: string, architecture: string): string | undefined {
  const file = path.join(folder, EXTENSION);
  const found = fs.existsSync(folder) ? files(folder) : [];
  if (!found.includes(EXTENSION)) return `${file} is missing`;
  if (found.length > 1) return `${folder} holds more than ${EXTENSION}: ${found.filter((name) => name !== EXTENSION).join(', ')}`;
  const mode = fs.statSync(file).mode & 0o777;
  if (mode !== 0o755) return `${file} has mode 0${mode.toString(8)}, not 0755`;
  const header = fs.readFileSync(file).subarray(0, 20);
  if (header.length < 20 || header.readUInt32BE(0) !== 0x7f454c46) return `${file} is no ELF program`;
  const machine = MACHINES[header.readUInt16LE(18)] ?? 'something else';
  return machine === architecture ? undefined : `${file} is a program for ${machine}`;
}

/** Every file below `folder`, as paths from there. */
function files(folder: string): string[] {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
}
