/** Holds the type of the settings, its comments and its checks to what the binary itself says with `--help`. */
import { Token } from 'aws-cdk-lib';
import * as assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';

import { EMF } from './monitoring';
import { ExtensionSettings, PATTERNS, PREFIX, RULES, environment, variable } from './settings';

interface Row {
  readonly name: string;
  readonly field: string;
  readonly meaning: string;
  readonly default: string;
  readonly allowed: string;
}

/** A variable of this process that `tests/deploy/run` sets. */
function given(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is set`);
  return value;
}

/** The table that the binary prints, three lines a setting, without the stream. */
function table(): Row[] {
  const help = execFileSync(given('KTE_BINARY'), ['--help'], { encoding: 'utf8', timeout: 10_000 });
  const rows = [...help.matchAll(/^ {2}KINESIS_TELEMETRY_(\w+)\n {6}(.+)\n {6}default: (.+?); allowed: (.+)$/gm)].map((match) => {
    const [, name = '', meaning = '', standard = '', allowed = ''] = match;
    return { name, field: name.toLowerCase().replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()), meaning, default: standard, allowed };
  });
  assert.equal(rows.length, help.split(PREFIX).length - 1, 'every setting of --help was read');
  return rows.filter((row) => row.field !== 'stream');
}

/** The type of a field and the rule that checks it, from the words in which `--help` says what is allowed. */
function kind(allowed: string): { type: string; rule: string } {
  const quoted = (words: string) => words.split(', ').map((word) => `'${word}'`);
  const digits = (number: string) => (number.length > 4 ? Number(number).toLocaleString('en').replaceAll(',', '_') : number);
  const [, min, max, except] = /^(\d+) to (\d+)(?:, not (\d+))?$/.exec(allowed) ?? [];
  if (min && max) return { type: 'number', rule: `number(${[min, max, ...(except ? [except] : [])].map(digits).join(', ')})` };
  const [, some] = /^any of (.+)$/.exec(allowed) ?? [];
  if (some) return { type: `(${quoted(some).join(' | ')})[]`, rule: `someOf(${quoted(some).join(', ')})` };
  if (/^\w+(, \w+)+$/.test(allowed)) return { type: quoted(allowed).join(' | '), rule: `oneOf(${quoted(allowed).join(', ')})` };
  if (allowed === 'key=value,key=value') return { type: 'Readonly<Record<string, string>>', rule: 'pairs' };
  return { type: 'string', rule: `text('${allowed.replaceAll("'", "\\'")}')` };
}

const rows = table();

test('fields, comments and rules are the binary\'s own table', () => {
  const file = given('SETTINGS_FILE');
  const comment = (row: Row) => `${row.meaning}; default: ${row.default}; allowed: ${row.allowed}`.replaceAll('*/', '*\\/');
  const fields = rows.map((row) => `  /** ${comment(row)} */\n  readonly ${row.field}?: ${kind(row.allowed).type};\n`);
  const rules = rows.map((row) => `  ${row.field}: ${kind(row.allowed).rule},\n`);
  const between = (source: string, mark: string, lines: string[]) =>
    source.replace(new RegExp(`(// <${mark}>\n)[^]*?( *// </${mark}>)`), (_, open: string, close: string) => open + lines.join('') + close);
  const source = fs.readFileSync(file, 'utf8');
  const right = between(between(source, 'fields', fields), 'rules', rules);
  if (process.env.UPDATE_SETTINGS) fs.writeFileSync(file, right);
  else assert.equal(source, right, 'UPDATE_SETTINGS=1 tests/deploy/run settings writes it anew');
});

test('scripts/attach checks by the same table', () => {
  const file = path.join(path.dirname(given('SETTINGS_FILE')), '../aws/settings.json');
  const written = rows.map(({ name, allowed }) => JSON.stringify({ name, allowed, ...(PATTERNS[allowed] && { pattern: PATTERNS[allowed].source }) }));
  const right = `[\n  ${written.join(',\n  ')}\n]\n`;
  if (process.env.UPDATE_SETTINGS) fs.writeFileSync(file, right);
  else assert.equal(fs.readFileSync(file, 'utf8'), right, 'UPDATE_SETTINGS=1 tests/deploy/run settings writes it anew');
});

test('each field has the name of its variable, and allows what the binary allows', { skip: Boolean(process.env.UPDATE_SETTINGS) }, () => {
  assert.ok(rows.length > 10, `--help shows ${rows.length} settings`);
  assert.deepEqual(Object.entries(RULES).map(([field, rule]) => [field, rule.allowed]), rows.map((row) => [row.field, row.allowed]));
  assert.equal(variable('bufferMaxItems'), 'KINESIS_TELEMETRY_BUFFER_MAX_ITEMS');
});

test('values of every kind become what the binary reads', () => {
  const settings: ExtensionSettings = { types: ['platform', 'function'], flush: 'end', maxAgeMs: 100, tags: { team: 'a', q: 'a=b', none: '' } };
  assert.deepEqual(environment(settings), {
    KINESIS_TELEMETRY_TYPES: 'platform,function',
    KINESIS_TELEMETRY_FLUSH: 'end',
    KINESIS_TELEMETRY_MAX_AGE_MS: '100',
    KINESIS_TELEMETRY_TAGS: 'team=a,q=a=b,none=',
  });
  assert.deepEqual(environment({}), {});
});

test('bad values are named, all at once', () => {
  const bad = { types: [], flush: 'banana', maxAgeMs: 99, port: 9001, queueBytes: 1_500_000.5, tags: { 'a=b': 'c', d: 'e,f', ' ': 'g' }, prot: 1 };
  assert.throws(
    () => environment(bad as unknown as ExtensionSettings),
    (error: Error) => Object.keys(bad).every((field) => error.message.includes(`${field}=`) || error.message.includes(`${field}: no such`)),
  );
});

test('texts are allowed that the binary allows, and no others', () => {
  const roleArn = 'arn:aws:iam::123456789012:role/a/writer';
  const values: [keyof ExtensionSettings, string][] = [
    ...[roleArn, 'writer', 'arn:aws:iam::123:role/writer', 'arn:aws:iam::123456789012:role/', 'arn:aws:iam::123456789012:role/a b', 'arn:aws:iam::123456789012:user/x']
      .map((value): [keyof ExtensionSettings, string] => ['roleArn', value]),
    ...['5%', '0.5%', ' 5 % ', '100%', '100.0%', '0%', '100.5%', '101%', '5', '-1%', '.5%', '5.%', '1e1%'].map((value): [keyof ExtensionSettings, string] => ['keep', value]),
    ...['ab', 'a', 'x'.repeat(1224), 'x'.repeat(1225), 'a b', '_+=,.@:/-', 'a*'].map((value): [keyof ExtensionSettings, string] => ['externalId', value]),
    ...['platform.start', 'platform.init*, platform.extension ,', 'platform.*', 'a b', 'a*b', 'plattform/start'].map((value): [keyof ExtensionSettings, string] => ['exclude', value]),
  ];
  for (const [field, value] of values) {
    const variables = { ...(field === 'externalId' && { [variable('roleArn')]: roleArn }), [variable(field)]: value };
    const nobody = { AWS_REGION: 'eu-west-1', AWS_ENDPOINT_URL: 'http://127.0.0.1:9', AWS_ACCESS_KEY_ID: 'x', AWS_SECRET_ACCESS_KEY: 'x' };
    const done = spawnSync(given('KTE_BINARY'), ['--check'], { env: { ...nobody, KINESIS_TELEMETRY_STREAM: 's', ...variables }, encoding: 'utf8', timeout: 10_000 });
    const refused = done.stdout.includes(`settings: ${variable(field)}`);
    assert.match(done.stdout, /^FAIL/m, 'it was checked');
    const rule = RULES[field];
    assert.equal(rule.fits(value), !refused, `${field}=${value}:\n${done.stdout}`);
  }
  assert.throws(() => environment({ externalId: 'abc' }), /externalId: allowed is with roleArn only/);
  assert.throws(() => environment({ fallback: 'log', types: ['function', 'extension'] }), /fallback="log": allowed is only without `extension` in types/);
  assert.equal(RULES.roleArn.fits(Token.asString({ Ref: 'Role' })), true);
});

test('numbers take their bounds and nothing beyond', () => {
  for (const [field, rule] of Object.entries(RULES)) {
    const [, min, max] = /^(\d+) to (\d+)(?:, not \d+)?$/.exec(rule.allowed)?.map(Number) ?? [];
    if (min === undefined || max === undefined) continue;
    for (const [value, good] of [[min, true], [max, true], [min - 1, false], [max + 1, false]] as const) {
      assert.equal(rule.fits(value), good, `${field}=${value}`);
    }
  }
});

test('the metrics of the dashboard are those of the extension', () => {
  const source = fs.readFileSync(path.join(given('SETTINGS_FILE'), '../../../src/dispatch/metrics.rs'), 'utf8');
  assert.ok(source.includes(`"${EMF.namespace}"`), EMF.namespace);
  [EMF.received, ...EMF.lost, EMF.held].forEach((name) => assert.ok(source.includes(`("${name}", "`), name));
});
