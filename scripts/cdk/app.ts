/** Reads the context (`-c key=value`, see `scripts/deploy --help`) and makes the stack. */
import { App, CfnWaitConditionHandle, DefaultStackSynthesizer, PermissionsBoundary, Stack, Tags } from 'aws-cdk-lib';
import * as fs from 'node:fs';
import * as path from 'node:path';

import { TelemetryStack } from './stack';

/** Everything that can be tagged is, with these. Who pays and who answers for it is to be said, not guessed: no defaults. */
export const REQUIRED_TAGS = ['CostCenter', 'Environment', 'Application', 'Owner'];

/** Adds to `app` what its context asks for. */
export function fill(app: App): App {
  const context = (key: string): string | undefined => {
    const value: unknown = app.node.tryGetContext(key);
    return value === undefined || value === '' ? undefined : String(value);
  };
  const yes = (key: string): boolean => boolean(key, context(key) ?? 'false');
  const name = context('stackName') ?? 'kinesis-telemetry';
  const qualifier = context('qualifier');
  const account = context('account');
  if (account && !/^[0-9]{12}$/.test(account)) throw new Error(`account=${account}: allowed are 12 digits`);
  // With an account, CDK acts on no other.
  const common = (): object => ({
    ...(qualifier && { synthesizer: new DefaultStackSynthesizer({ qualifier }) }),
    ...(account && { env: { account } }),
  });
  if (yes('destroy')) {
    // To delete a stack its name is enough: no layers, no tags. A template may not be empty, so there is this.
    new CfnWaitConditionHandle(new Stack(app, name, common()), 'Nothing');
    return app;
  }
  const missing = REQUIRED_TAGS.filter((tag) => !context(tag));
  if (missing.length > 0) throw new Error(`these tags are required: ${missing.map((tag) => `-c ${tag}=...`).join(' ')}`);
  const [streamArn, encryption, alarmTopic, boundary] = ['streamArn', 'encryption', 'alarmTopic', 'permissionsBoundary'].map(context);
  const [shards, retentionHours, maxGigabytesPerDay] = ['shards', 'retentionHours', 'maxGigabytesPerDay'].map((key) => number(key, context(key)));
  const tags = Object.fromEntries(REQUIRED_TAGS.map((tag) => [tag, context(tag) ?? '']));
  const stack = new TelemetryStack(app, name, {
    tags,
    // Seen from dist/, both here and in the copy under target/cdk.
    layers: context('layers') ?? path.join(__dirname, '../../../target/layer'),
    ...(streamArn && { streamArn }),
    ...(shards && { shards }),
    ...(retentionHours && { retentionHours }),
    ...(encryption && { encryption }),
    ...(maxGigabytesPerDay && { maxGigabytesPerDay }),
    ...(alarmTopic && { alarmTopic }),
    settings: json('settings', context('settings') ?? '{}'),
    version: JSON.parse(fs.readFileSync(path.join(__dirname, '../package.json'), 'utf8')).version,
    retain: yes('retain'),
    ...common(),
    ...(boundary && { permissionsBoundary: PermissionsBoundary.fromName(boundary) }),
    denyCloudWatchLogs: yes('denyLogs'),
    archive: yes('archive'),
    consumed: yes('consumed'),
  });
  // The stack's own tags, above, are not in the template. Nor would they reach all of its resources in every tool.
  Object.entries(tags).forEach(([tag, value]) => Tags.of(stack).add(tag, value));
  return app;
}

function json(key: string, value: string): object {
  try {
    return Object(JSON.parse(value));
  } catch {
    throw new Error(`${key}=${value}: allowed is JSON, such as {"flush":"end"}`);
  }
}

function boolean(key: string, value: string): boolean {
  if (value !== 'true' && value !== 'false') throw new Error(`${key}=${value}: allowed is true or false`);
  return value === 'true';
}

function number(key: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (!/^[1-9][0-9]*$/.test(value)) throw new Error(`${key}=${value}: allowed is a whole number from 1`);
  return Number(value);
}

if (require.main === module) {
  try {
    fill(new App()).synth();
  } catch (error) {
    // What is thrown here says what to mend; where in the code it was noticed helps nobody.
    console.error(`error: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
