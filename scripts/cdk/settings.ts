/**
 * The extension's settings as a type, and their way into a function's environment.
 *
 * Each field is a row of the binary's own table (`kinesis-telemetry-extension --help`): `maxAgeMs` is
 * `KINESIS_TELEMETRY_MAX_AGE_MS`. What stands between the marks is that table; a test compares, and
 * `UPDATE_SETTINGS=1 tests/deploy/run settings` writes it anew. `STREAM` is missing here: the construct sets it. Values
 * are checked at synth, so that a bad one is no surprise in production.
 */

import { Token } from 'aws-cdk-lib';

/** What every variable's name begins with. */
export const PREFIX = 'KINESIS_TELEMETRY_';

/** Every setting but the stream. What is left out has its default. */
export interface ExtensionSettings {
  // <fields>
  /** types of telemetry to send; default: platform,function; allowed: any of platform, function, extension */
  readonly types?: ('platform' | 'function' | 'extension')[];
  /** when to send: at an invocation's end, during the next one, or adaptive: end while invocations are rare; default: adaptive; allowed: adaptive, end, next */
  readonly flush?: 'adaptive' | 'end' | 'next';
  /** how old an event may get before it is sent, while invocations keep coming (Managed Instances: 1000); default: 10000; allowed: 100 to 900000 */
  readonly maxAgeMs?: number;
  /** longest time that a flush may hold an invocation; default: 3000; allowed: 50 to 60000 */
  readonly flushTimeoutMs?: number;
  /** memory for events that wait to be sent; default: 8388608; allowed: 1048576 to 1073741824 */
  readonly queueBytes?: number;
  /** how events are packed into Kinesis records; default: lines; allowed: lines, event, kpl */
  readonly record?: 'lines' | 'event' | 'kpl';
  /** largest Kinesis record, data and key; not above the stream's own limit; default: 1048576; allowed: 1024 to 10485760 */
  readonly recordBytes?: number;
  /** how records are spread over shards; default: sandbox; allowed: sandbox, random, function, request */
  readonly partitionKey?: 'sandbox' | 'random' | 'function' | 'request';
  /** how each Kinesis record's data is compressed; with kpl, each event in it; default: none; allowed: none, gzip */
  readonly compression?: 'none' | 'gzip';
  /** form of requests to Kinesis; cbor: a quarter fewer bytes to hash and send, and JSON where the endpoint refuses it; default: json; allowed: json, cbor */
  readonly wire?: 'json' | 'cbor';
  /** keys that each event gets beside Lambda's three; slim: only ids; default: full; allowed: full, slim */
  readonly envelope?: 'full' | 'slim';
  /** keys and values to copy into every event (slim: into the sandbox event); default: none; allowed: key=value,key=value */
  readonly tags?: Readonly<Record<string, string>>;
  /** role to assume through STS before writing; default: none; allowed: the ARN of an IAM role */
  readonly roleArn?: string;
  /** sent to STS with ROLE_ARN, if that role's trust policy asks for it; default: none; allowed: 2 to 1224 letters, digits and _+=,.@:/- */
  readonly externalId?: string;
  /** event types not to send, such as platform.start,platform.init*; default: none; allowed: event types, comma-separated, `*` at the end of one */
  readonly exclude?: string;
  /** lowest level of JSON log lines to send; lines without a level are always sent; default: none; allowed: TRACE, DEBUG, INFO, WARN, ERROR, FATAL */
  readonly minLevel?: 'TRACE' | 'DEBUG' | 'INFO' | 'WARN' | 'ERROR' | 'FATAL';
  /** port of the telemetry listener; fixed, so that Lambda finds it again after a reset; default: 4243; allowed: 1 to 65535, not 9001 */
  readonly port?: number;
  /** how long the Telemetry API may hold a batch back; default: 25; allowed: 25 to 30000 */
  readonly bufferTimeoutMs?: number;
  /** how many bytes the Telemetry API may put into a batch; default: 1048576; allowed: 262144 to 1048576 */
  readonly bufferMaxBytes?: number;
  /** how many events the Telemetry API may put into a batch; default: 10000; allowed: 1000 to 10000 */
  readonly bufferMaxItems?: number;
  /** space under /tmp for events that memory cannot hold, or that a reset would lose; 0: none; default: 67108864; allowed: 0 to 10737418240 */
  readonly spoolBytes?: number;
  /** log prints events that are lost for good to stdout, one JSON line each; default: none; allowed: none, log */
  readonly fallback?: 'none' | 'log';
  /** after a bad setting or a failed start: run without telemetry, or fail the function's init; default: continue; allowed: continue, fail */
  readonly onError?: 'continue' | 'fail';
  /** emf prints one CloudWatch embedded-metric line at shutdown and every 5 minutes; default: none; allowed: none, emf */
  readonly metrics?: 'none' | 'emf';
  /** share of ordinary invocations to send; the others are thinned out; default: 100%; allowed: 0% to 100% */
  readonly keep?: string;
  /** an invocation that ran longer is always sent; default: none; allowed: 1 to 900000 */
  readonly keepSlowMs?: number;
  /** an invocation with a log line from this level up is always sent; default: ERROR; allowed: WARN, ERROR, FATAL, none */
  readonly keepLevel?: 'WARN' | 'ERROR' | 'FATAL' | 'none';
  /** sends one summary event for each invocation, thinned out or not; default: none; allowed: none, invocation */
  readonly summary?: 'none' | 'invocation';
  /** lowest level of the extension's own lines on stderr; info adds its start and its end, debug each request; default: warn; allowed: error, warn, info, debug */
  readonly logLevel?: 'error' | 'warn' | 'info' | 'debug';
  // </fields>
}

/** What a setting's value may be; `allowed` says it in the words of `--help`. */
interface Rule {
  readonly allowed: string;
  fits(value: unknown): boolean;
}

export const number = (min: number, max: number, except?: number): Rule => ({
  allowed: `${min} to ${max}${except ? `, not ${except}` : ''}`,
  fits: (value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max && value !== except,
});
export const oneOf = (...words: string[]): Rule => ({
  allowed: words.join(', '),
  fits: (value) => words.includes(String(value)),
});
export const someOf = (...words: string[]): Rule => ({
  allowed: `any of ${words.join(', ')}`,
  fits: (value) => Array.isArray(value) && value.length > 0 && value.every((word) => words.includes(word)),
});
export const pairs: Rule = {
  allowed: 'key=value,key=value',
  fits: (value) => Object.entries(Object(value)).every(([key, tag]) => /^[^=,]+$/.test(key) && key.trim() !== '' && /^[^,]*$/.test(String(tag))),
};
/** What the binary checks in texts, by the words in which it says what is allowed. scripts/aws/settings.json has them for scripts/attach. */
export const PATTERNS: Readonly<Record<string, RegExp>> = {
  'the ARN of an IAM role': /^arn:[a-z-]+:iam::[0-9]{12}:role\/[\w+=,.@/-]+$/,
  '2 to 1224 letters, digits and _+=,.@:/-': /^[\w+=,.@:/-]{2,1224}$/,
  '0% to 100%': /^ *0*(100(\.0+)?|\d{1,2}(\.\d+)?) *% *$/,
  'event types, comma-separated, `*` at the end of one': /^ *([\w.-]*\*?)? *(, *([\w.-]*\*?)? *)*$/,
};
export const text = (allowed: string): Rule => {
  const pattern = PATTERNS[allowed];
  if (!pattern) throw new Error(`no pattern for ${allowed}`);
  // What is known only at deployment, such as the ARN of a role in the same stack, is checked by the binary alone.
  return { allowed, fits: (value) => typeof value === 'string' && (Token.isUnresolved(value) || pattern.test(value)) };
};

/** A rule for each field of the type: the compiler sees to it that none is missing. */
export const RULES: Readonly<Record<keyof ExtensionSettings, Rule>> = {
  // <rules>
  types: someOf('platform', 'function', 'extension'),
  flush: oneOf('adaptive', 'end', 'next'),
  maxAgeMs: number(100, 900_000),
  flushTimeoutMs: number(50, 60_000),
  queueBytes: number(1_048_576, 1_073_741_824),
  record: oneOf('lines', 'event', 'kpl'),
  recordBytes: number(1024, 10_485_760),
  partitionKey: oneOf('sandbox', 'random', 'function', 'request'),
  compression: oneOf('none', 'gzip'),
  wire: oneOf('json', 'cbor'),
  envelope: oneOf('full', 'slim'),
  tags: pairs,
  roleArn: text('the ARN of an IAM role'),
  externalId: text('2 to 1224 letters, digits and _+=,.@:/-'),
  exclude: text('event types, comma-separated, `*` at the end of one'),
  minLevel: oneOf('TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'),
  port: number(1, 65_535, 9001),
  bufferTimeoutMs: number(25, 30_000),
  bufferMaxBytes: number(262_144, 1_048_576),
  bufferMaxItems: number(1000, 10_000),
  spoolBytes: number(0, 10_737_418_240),
  fallback: oneOf('none', 'log'),
  onError: oneOf('continue', 'fail'),
  metrics: oneOf('none', 'emf'),
  keep: text('0% to 100%'),
  keepSlowMs: number(1, 900_000),
  keepLevel: oneOf('WARN', 'ERROR', 'FATAL', 'none'),
  summary: oneOf('none', 'invocation'),
  logLevel: oneOf('error', 'warn', 'info', 'debug'),
  // </rules>
};

/** The environment variable of a field: `maxAgeMs` is `KINESIS_TELEMETRY_MAX_AGE_MS`. */
export function variable(field: string): string {
  return PREFIX + field.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

/** The variables that say the same as `settings`. Throws one error that names every bad value. */
export function environment(settings: ExtensionSettings): Record<string, string> {
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  const problems = given.flatMap(([field, value]) => {
    const rule = RULES[field as keyof ExtensionSettings] as Rule | undefined;
    if (!rule) return [`${field}: no such setting`];
    return rule.fits(value) ? [] : [`${field}=${JSON.stringify(value)}: allowed is ${rule.allowed}`];
  });
  if (settings.externalId !== undefined && settings.roleArn === undefined) problems.push('externalId: allowed is with roleArn only');
  if (settings.fallback === 'log' && settings.types?.includes('extension')) problems.push('fallback="log": allowed is only without `extension` in types');
  if (problems.length > 0) throw new Error(`settings of the telemetry extension: ${problems.join('; ')}`);
  return Object.fromEntries(given.map(([field, value]) => [variable(field), written(value)]));
}

function written(value: unknown): string {
  if (Array.isArray(value)) return value.join(',');
  if (typeof value === 'object' && value) return Object.entries(value).map(([key, of]) => `${key}=${of}`).join(',');
  return String(value);
}
