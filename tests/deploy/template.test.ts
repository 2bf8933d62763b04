/** What the template says, above all where an emulator would not notice: architectures, log groups, tags, deletion, permissions. */
import { App, Duration, RemovalPolicy, Stack, Validations, aws_ecr as ecr, aws_iam as iam, aws_kinesis as kinesis, aws_lambda as lambda } from 'aws-cdk-lib';
import { Annotations, Match, Template } from 'aws-cdk-lib/assertions';
import { AwsSolutionsChecks } from 'cdk-nag';
import * as assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { after, test } from 'node:test';

import { REQUIRED_TAGS, fill } from './app';
import { KinesisTelemetryExtension, KinesisTelemetryExtensionProps, TelemetryExtension } from './extension';
import { EXTENSION } from './layer';

type Json = Record<string, any>;

/** A variable of this process that `tests/deploy/run` sets. */
function given(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is set`);
  return value;
}

/** Of the package; `tests/deploy/run` compares it with the program's. */
const VERSION = JSON.parse(fs.readFileSync(path.join(__dirname, '../package.json'), 'utf8')).version as string;

/** CDK's feature flags, which its CLI reads from there. */
const FLAGS = JSON.parse(fs.readFileSync(path.join(__dirname, '../cdk.json'), 'utf8')).context as Json;

const MACHINES: Record<string, number> = { x86_64: 0x3e, arm64: 0xb7 };
const TAGS = { CostCenter: '4711', Environment: 'test', Application: 'telemetry', Owner: 'somebody' };
const KEY = 'arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000';
const STREAM = 'arn:aws:kinesis:eu-central-1:210987654321:stream/theirs';
/** What CloudFormation can't tag. */
const UNTAGGABLE = ['AWS::IAM::ManagedPolicy', 'AWS::IAM::Policy', 'AWS::Lambda::LayerVersion', 'AWS::Logs::LogStream', 'AWS::S3::BucketPolicy'];

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'layers-'));
after(() => fs.rmSync(scratch, { recursive: true }));

/** Layers with as much of a program in them as is looked at. */
function layers(name: string, change?: (folder: string) => void): string {
  const folder = path.join(scratch, name);
  for (const [architecture, machine] of Object.entries(MACHINES)) {
    const file = path.join(folder, architecture, EXTENSION);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const header = Buffer.alloc(64);
    header.write('\x7fELF', 'latin1');
    header.writeUInt16LE(machine, 18);
    fs.writeFileSync(file, header);
    fs.chmodSync(file, 0o755);
  }
  change?.(folder);
  return folder;
}

const GOOD = layers('good');

/** What `scripts/deploy` would deploy. */
function application(name: string, context: Json): App {
  return fill(new App({ outdir: path.join(scratch, 'out', name), context: { ...FLAGS, ...TAGS, layers: GOOD, ...context } }));
}

/** Its template, kept for cfn-lint where there is a place for it. */
function template(name: string, context: Json = {}): Template {
  const app = application(name, context);
  const stack = Template.fromStack(app.node.children[0] as Stack);
  if (process.env.TEMPLATES) fs.writeFileSync(path.join(process.env.TEMPLATES, `${name}.template.json`), JSON.stringify(stack.toJSON()));
  return stack;
}

/** A stack of somebody else's with the construct in it. */
function construct(props: Partial<KinesisTelemetryExtensionProps>, use?: (extension: KinesisTelemetryExtension, stack: Stack) => void): Template {
  const stack = new Stack(new App({ outdir: fs.mkdtempSync(path.join(scratch, 'out-')) }), 'Theirs');
  use?.(new KinesisTelemetryExtension(stack, 'Telemetry', { layers: GOOD, ...props }), stack);
  if (!use) new KinesisTelemetryExtension(stack, 'Telemetry', { layers: GOOD, ...props });
  return Template.fromStack(stack);
}

function fn(stack: Stack, props: Partial<lambda.FunctionProps> = {}): lambda.Function {
  const code = lambda.Code.fromInline('exports.handler = async () => {}');
  return new lambda.Function(stack, 'Fn', { runtime: lambda.Runtime.NODEJS_24_X, handler: 'index.handler', code, ...props });
}

const resources = (from: Template, type: string): [string, Json][] => Object.entries(from.findResources(type));
const only = (from: Template, type: string): [string, Json] => {
  const found = resources(from, type);
  assert.equal(found.length, 1, `${type}: ${found.length}`);
  return found[0] as [string, Json];
};
const statements = (from: Template, type: string): Json[] => resources(from, type).flatMap(([, it]) => it.Properties.PolicyDocument.Statement);
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : [value]);

const contexts = {
  default: {},
  archive: { archive: 'true', consumed: 'true', settings: '{"metrics":"emf"}' },
  provisioned: { shards: '3', retentionHours: '48', encryption: KEY, denyLogs: 'true', archive: 'true' },
  existing: { streamArn: STREAM, encryption: 'none', maxGigabytesPerDay: '7', settings: '{"flush":"end","tags":{"team":"a"}}', alarmTopic: 'arn:aws:sns:eu-west-1:123456789012:alarms' },
};
const variants = {
  default: template('default', contexts.default),
  archive: template('archive', contexts.archive),
  provisioned: template('provisioned', contexts.provisioned),
  existing: template('existing', contexts.existing),
};
const stack = variants.default;

test('the stream is on demand, encrypted with the account\'s key, kept for a day, and deleted with the stack', () => {
  const [, stream] = only(stack, 'AWS::Kinesis::Stream');
  const { Tags, ...properties } = stream.Properties;
  assert.deepEqual(properties, {
    RetentionPeriodHours: 24,
    StreamEncryption: { EncryptionType: 'KMS', KeyId: 'alias/aws/kinesis' },
    StreamModeDetails: { StreamMode: 'ON_DEMAND' },
  });
  assert.equal(stream.DeletionPolicy, 'Delete');
});

test('the policy allows PutRecords on the stream, and nothing else', () => {
  const [stream] = only(stack, 'AWS::Kinesis::Stream');
  assert.deepEqual(statements(stack, 'AWS::IAM::ManagedPolicy'), [
    { Effect: 'Allow', Action: 'kinesis:PutRecords', Resource: { 'Fn::GetAtt': [stream, 'Arn'] } },
  ]);
});

test('with a customer\'s key the policy also allows GenerateDataKey on that key', () => {
  const [id, stream] = only(variants.provisioned, 'AWS::Kinesis::Stream');
  assert.deepEqual(stream.Properties.StreamEncryption, { EncryptionType: 'KMS', KeyId: KEY });
  assert.deepEqual([stream.Properties.ShardCount, stream.Properties.RetentionPeriodHours], [3, 48]);
  assert.deepEqual(stream.Properties.StreamModeDetails, { StreamMode: 'PROVISIONED' });
  assert.deepEqual(statements(variants.provisioned, 'AWS::IAM::ManagedPolicy'), [
    { Effect: 'Allow', Action: 'kinesis:PutRecords', Resource: { 'Fn::GetAtt': [id, 'Arn'] } },
    { Effect: 'Allow', Action: 'kms:GenerateDataKey', Resource: KEY },
  ]);
});

test('an existing stream is written to by its ARN, and none is made', () => {
  variants.existing.resourceCountIs('AWS::Kinesis::Stream', 0);
  assert.deepEqual(statements(variants.existing, 'AWS::IAM::ManagedPolicy'), [{ Effect: 'Allow', Action: 'kinesis:PutRecords', Resource: STREAM }]);
  for (const [, it] of resources(variants.existing, 'AWS::Lambda::Function')) {
    assert.deepEqual(it.Properties.Environment.Variables, {
      KINESIS_TELEMETRY_STREAM: STREAM,
      KINESIS_TELEMETRY_FLUSH: 'end',
      KINESIS_TELEMETRY_TAGS: 'team=a',
    });
  }
});

test('nothing is allowed by wildcard, but for X-Ray, whose actions know no resources', () => {
  for (const [name, variant] of Object.entries(variants)) {
    const allowed = ['AWS::IAM::ManagedPolicy', 'AWS::IAM::Policy'].flatMap((type) => statements(variant, type)).filter((it) => it.Effect === 'Allow');
    assert.ok(allowed.length > 0);
    for (const statement of allowed) {
      const actions = list(statement.Action) as string[];
      assert.ok(actions.every((action) => !action.includes('*')), `${name}: ${actions}`);
      if (actions.every((action) => action.startsWith('xray:'))) continue;
      for (const resource of list(statement.Resource)) {
        const text = JSON.stringify(resource);
        const objects = actions.every((action) => ['s3:AbortMultipartUpload', 's3:GetObject', 's3:PutObject'].includes(action));
        assert.ok(!text.includes('*') || (objects && text.endsWith('"/*"]]}')), `${name}: ${actions} on ${text}`);
      }
    }
  }
});

test('a layer for each architecture, deleted with the stack', () => {
  const found = resources(stack, 'AWS::Lambda::LayerVersion').map(([, layer]) => {
    assert.equal(layer.DeletionPolicy, 'Delete');
    return [layer.Properties.CompatibleArchitectures, layer.Properties.LayerName, layer.Properties.CompatibleRuntimes];
  });
  assert.deepEqual(found, [
    [['x86_64'], 'kinesis-telemetry-extension-x86_64', undefined],
    [['arm64'], 'kinesis-telemetry-extension-arm64', undefined],
  ]);
});

test('each demo function has the layer of its architecture, the settings, and a log group that forgets after a day', () => {
  const [stream] = only(stack, 'AWS::Kinesis::Stream');
  const [policy] = only(stack, 'AWS::IAM::ManagedPolicy');
  for (const [layer, { Properties }] of resources(stack, 'AWS::Lambda::LayerVersion')) {
    const functions = stack.findResources('AWS::Lambda::Function', { Properties: { Architectures: Properties.CompatibleArchitectures } });
    assert.equal(Object.keys(functions).length, 1);
    const it = Object.values(functions)[0] as Json;
    assert.deepEqual(it.Properties.Layers, [{ Ref: layer }]);
    assert.deepEqual(it.Properties.Environment.Variables, { KINESIS_TELEMETRY_STREAM: { 'Fn::GetAtt': [stream, 'Arn'] } });
    assert.deepEqual([it.Properties.MemorySize, it.Properties.Timeout, it.Properties.TracingConfig], [256, 10, { Mode: 'Active' }]);
    assert.equal(it.Properties.LoggingConfig.LogFormat, 'JSON');
    const logs = stack.findResources('AWS::Logs::LogGroup')[it.Properties.LoggingConfig.LogGroup.Ref] as Json;
    assert.deepEqual([logs.Properties.RetentionInDays, logs.DeletionPolicy], [1, 'Delete']);
    const role = stack.findResources('AWS::IAM::Role')[it.Properties.Role['Fn::GetAtt'][0]] as Json;
    assert.deepEqual(role.Properties.ManagedPolicyArns, [{ Ref: policy }]);
  }
  stack.resourceCountIs('AWS::Lambda::Function', 2);
});

test('what others need to attach the extension is in parameters and outputs', () => {
  const parameters = Object.fromEntries(resources(stack, 'AWS::SSM::Parameter').map(([, it]) => [it.Properties.Name, it.Properties.Value]));
  const outputs = Object.fromEntries(Object.entries(stack.findOutputs('*')).map(([id, output]) => [id, output.Value]));
  const [x86] = resources(stack, 'AWS::Lambda::LayerVersion')[0]!;
  const [arm] = resources(stack, 'AWS::Lambda::LayerVersion')[1]!;
  const [stream] = only(stack, 'AWS::Kinesis::Stream');
  const [policy] = only(stack, 'AWS::IAM::ManagedPolicy');
  assert.deepEqual(parameters, {
    '/telemetry/kinesis/extension/arn': { Ref: x86 },
    '/telemetry/kinesis/extension/x86_64/arn': { Ref: x86 },
    '/telemetry/kinesis/extension/arm64/arn': { Ref: arm },
    [`/telemetry/kinesis/extension/x86_64/${VERSION}`]: { Ref: x86 },
    [`/telemetry/kinesis/extension/arm64/${VERSION}`]: { Ref: arm },
    '/telemetry/kinesis/extension/x86_64/latest': { Ref: x86 },
    '/telemetry/kinesis/extension/arm64/latest': { Ref: arm },
    '/telemetry/kinesis/runtime/policy/arn': { Ref: policy },
    '/telemetry/kinesis/stream/arn': { 'Fn::GetAtt': [stream, 'Arn'] },
  });
  assert.deepEqual([outputs.LayerArn, outputs.LayerArnx8664, outputs.LayerArnarm64], [{ Ref: x86 }, { Ref: x86 }, { Ref: arm }]);
  assert.deepEqual([outputs.PolicyArn, outputs.StreamArn, outputs.StreamName], [{ Ref: policy }, { 'Fn::GetAtt': [stream, 'Arn'] }, { Ref: stream }]);
  for (const id of ['DemoFunctionx8664', 'DemoFunctionarm64', 'DemoLogGroupx8664', 'DemoLogGrouparm64', 'Dashboard', 'WriteThrottlesAlarm']) {
    assert.ok(outputs[id], id);
  }
});

test('everything that can be tagged carries the required tags, and it is known what cannot', () => {
  for (const [name, variant] of Object.entries(variants)) {
    for (const [id, it] of Object.entries(variant.toJSON().Resources as Record<string, Json>)) {
      const tags = it.Properties?.Tags;
      if (UNTAGGABLE.includes(it.Type)) {
        assert.equal(tags, undefined, `${name}: ${id}`);
        continue;
      }
      // Parameters have a map, all others a list.
      const found = Array.isArray(tags) ? Object.fromEntries(tags.map((tag) => [tag.Key, tag.Value])) : tags;
      assert.deepEqual({ ...found }, TAGS, `${name}: ${id} (${it.Type})`);
    }
  }
});

test('a missing tag is an error that names it', () => {
  for (const tag of REQUIRED_TAGS) {
    const context = { ...TAGS, layers: GOOD, [tag]: '' };
    assert.throws(() => fill(new App({ context })), (error: Error) => error.message.endsWith(`: -c ${tag}=...`));
  }
});

test('only the archive outlives the stack', () => {
  for (const variant of Object.values(variants)) {
    const kept = Object.values(variant.toJSON().Resources as Record<string, Json>).filter((it) => it.DeletionPolicy === 'Retain');
    assert.deepEqual(kept, resources(variant, 'AWS::S3::Bucket').map(([, it]) => it));
  }
});

test('the archive is a private, encrypted bucket with an end to its objects, filled by Firehose from the stream', () => {
  const [stream] = only(variants.archive, 'AWS::Kinesis::Stream');
  const [bucket, it] = only(variants.archive, 'AWS::S3::Bucket');
  const all = { BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true };
  assert.deepEqual(it.Properties.PublicAccessBlockConfiguration, all);
  assert.equal(it.Properties.BucketEncryption.ServerSideEncryptionConfiguration[0].ServerSideEncryptionByDefault.SSEAlgorithm, 'AES256');
  assert.equal(it.Properties.LifecycleConfiguration.Rules[0].ExpirationInDays, 90);
  const [, firehose] = only(variants.archive, 'AWS::KinesisFirehose::DeliveryStream');
  assert.deepEqual(firehose.Properties.KinesisStreamSourceConfiguration.KinesisStreamARN, { 'Fn::GetAtt': [stream, 'Arn'] });
  assert.deepEqual(firehose.Properties.ExtendedS3DestinationConfiguration.BucketARN, { 'Fn::GetAtt': [bucket, 'Arn'] });
  const [policy] = resources(variants.archive, 'AWS::IAM::Policy').find(([id]) => id.startsWith('Archive'))!;
  assert.ok(firehose.DependsOn.includes(policy), 'Firehose is made after its permissions');
  stack.resourceCountIs('AWS::KinesisFirehose::DeliveryStream', 0);
});

test('Firehose may take its role for this account alone', () => {
  const roles = Object.values(variants.archive.findResources('AWS::IAM::Role')).map((it) => it.Properties.AssumeRolePolicyDocument.Statement);
  const [trust] = roles.filter((statements) => JSON.stringify(statements).includes('firehose'));
  const account = { Ref: 'AWS::AccountId' };
  assert.deepEqual(trust, [{
    Action: 'sts:AssumeRole',
    Condition: { StringEquals: { 'aws:SourceAccount': account, 'sts:ExternalId': account } },
    Effect: 'Allow',
    Principal: { Service: 'firehose.amazonaws.com' },
  }]);
});

test('Firehose may decrypt what a customer\'s key encrypted', () => {
  assert.ok(statements(variants.provisioned, 'AWS::IAM::Policy').some((it) => it.Action === 'kms:Decrypt' && it.Resource === KEY));
});

test('the dashboard shows writes, throttles, errors and what the extension costs', () => {
  const body = JSON.stringify(only(stack, 'AWS::CloudWatch::Dashboard')[1].Properties.DashboardBody);
  const metrics = ['IncomingBytes', 'IncomingRecords', 'WriteProvisionedThroughputExceeded', 'PutRecords.ThrottledRecords', 'PostRuntimeExtensionsDuration', 'Errors'];
  metrics.forEach((metric) => assert.ok(body.includes(metric), metric));
  resources(stack, 'AWS::Lambda::Function').forEach(([id]) => assert.ok(body.includes(id), id));
  assert.ok(!body.includes('IteratorAge'), 'nobody reads, so there is no lag');
  assert.ok(JSON.stringify(only(variants.archive, 'AWS::CloudWatch::Dashboard')[1]).includes('GetRecords.IteratorAgeMilliseconds'));
});

test('the extension\'s own metrics are on the dashboard when they are on', () => {
  const body = (from: Template) => JSON.stringify(only(from, 'AWS::CloudWatch::Dashboard')[1].Properties.DashboardBody);
  assert.ok(!body(stack).includes('KinesisTelemetryExtension'));
  for (const metric of ['Received', 'Dropped', 'PlatformDropped', 'HoldMs']) {
    assert.ok(body(variants.archive).includes(`\\"KinesisTelemetryExtension\\",\\"${metric}\\",\\"FunctionName\\"`), metric);
  }
});

test('alarms: throttled writes and volume always, the lag where somebody reads, told to the topic if there is one', () => {
  const names = (from: Template) => resources(from, 'AWS::CloudWatch::Alarm').map(([, it]) => it.Properties.MetricName);
  assert.deepEqual(names(stack), ['WriteProvisionedThroughputExceeded', 'IncomingBytes']);
  const formula = undefined;
  assert.deepEqual(names(variants.archive), ['WriteProvisionedThroughputExceeded', 'IncomingBytes', 'GetRecords.IteratorAgeMilliseconds', formula]);
  for (const [, alarm] of resources(variants.existing, 'AWS::CloudWatch::Alarm')) {
    assert.deepEqual(alarm.Properties.AlarmActions, ['arn:aws:sns:eu-west-1:123456789012:alarms']);
  }
});

test('with metrics of its own, an alarm goes off when any function drops events', () => {
  const alarm = resources(variants.archive, 'AWS::CloudWatch::Alarm').find(([id]) => id.includes('Dropped'))![1];
  const [sum, ...parts] = alarm.Properties.Metrics as Json[];
  assert.equal(sum!.Expression, 'SUM([m0, m1])');
  const functions = resources(variants.archive, 'AWS::Lambda::Function').map(([id]) => ({ Ref: id }));
  assert.deepEqual(parts.map((part) => part.MetricStat.Metric.Dimensions[0].Value), functions);
  assert.deepEqual(new Set(parts.map((part) => part.MetricStat.Metric.MetricName)), new Set(['Dropped']));
  assert.deepEqual([alarm.Properties.Threshold, alarm.Properties.ComparisonOperator], [1, 'GreaterThanOrEqualToThreshold']);
});

test('an update keeps the old layer versions and their parameters, whatever else is kept', () => {
  const kept = Object.values(stack.toJSON().Resources as Record<string, Json>).filter((it) => it.UpdateReplacePolicy === 'Retain' && it.DeletionPolicy !== 'Retain');
  const names = kept.map((it) => it.Properties.LayerName ?? it.Properties.Name).sort();
  assert.deepEqual(names, [
    `/telemetry/kinesis/extension/arm64/${VERSION}`,
    `/telemetry/kinesis/extension/x86_64/${VERSION}`,
    'kinesis-telemetry-extension-arm64',
    'kinesis-telemetry-extension-x86_64',
  ]);
});

test('on demand, stream and layers outlive the stack', () => {
  const kept = template('retained', { retain: 'true' });
  for (const type of ['AWS::Kinesis::Stream', 'AWS::Lambda::LayerVersion']) {
    resources(kept, type).forEach(([id, it]) => assert.equal(it.DeletionPolicy, 'Retain', id));
  }
});

test('a permissions boundary is put on every role, and a qualifier is part of what CDK needs of the account', () => {
  const bounded = template('bounded', { permissionsBoundary: 'limits', qualifier: 'ours', archive: 'true' });
  for (const [id, it] of resources(bounded, 'AWS::IAM::Role')) {
    assert.ok(JSON.stringify(it.Properties.PermissionsBoundary).includes('policy/limits'), id);
  }
  assert.equal(bounded.toJSON().Parameters.BootstrapVersion.Default, '/cdk-bootstrap/ours/version');
});

test('the alarm on the volume goes off at so many gigabytes a day', () => {
  const threshold = (from: Template) => Object.values(from.findResources('AWS::CloudWatch::Alarm', { Properties: { MetricName: 'IncomingBytes', Period: 300 } }))[0]!.Properties.Threshold;
  assert.equal(threshold(stack), Math.round(100e9 / 288));
  assert.equal(threshold(variants.existing), Math.round(7e9 / 288));
});

test('writing to CloudWatch Logs is denied on demand, everywhere, and only then', () => {
  const denials = (from: Template) => statements(from, 'AWS::IAM::Policy').filter((it) => it.Effect === 'Deny');
  const denial = { Effect: 'Deny', Action: ['logs:CreateLogGroup', 'logs:CreateLogStream', 'logs:PutLogEvents'], Resource: '*' };
  assert.deepEqual(denials(variants.provisioned), [denial, denial]);
  assert.deepEqual(denials(stack), []);
});

test('the construct, taken elsewhere, retains stream and layers unless told otherwise', () => {
  for (const [props, policy] of [[{}, 'Retain'], [{ removalPolicy: RemovalPolicy.DESTROY }, 'Delete']] as const) {
    const theirs = construct(props);
    for (const type of ['AWS::Kinesis::Stream', 'AWS::Lambda::LayerVersion']) {
      resources(theirs, type).forEach(([id, it]) => assert.equal(it.DeletionPolicy, policy, id));
    }
  }
});

test('the construct takes names, tags, mode, retention, encryption and one architecture', () => {
  const theirs = construct({
    architectures: [lambda.Architecture.ARM_64],
    stream: { name: 'telemetry', mode: kinesis.StreamMode.PROVISIONED, shards: 2, retention: Duration.days(7), encryption: kinesis.StreamEncryption.UNENCRYPTED },
    layerName: 'tele',
    policyName: 'write-telemetry',
    tags: { team: 'platform' },
  });
  theirs.hasResourceProperties('AWS::Kinesis::Stream', { Name: 'telemetry', ShardCount: 2, RetentionPeriodHours: 168, StreamEncryption: Match.absent(), Tags: [{ Key: 'team', Value: 'platform' }] });
  assert.equal(only(theirs, 'AWS::Lambda::LayerVersion')[1].Properties.LayerName, 'tele-arm64');
  assert.equal(only(theirs, 'AWS::IAM::ManagedPolicy')[1].Properties.ManagedPolicyName, 'write-telemetry');
});

test('a key that CDK makes for the stream is in the policy too', () => {
  const theirs = construct({ stream: { encryption: kinesis.StreamEncryption.KMS } });
  const [key] = only(theirs, 'AWS::KMS::Key');
  assert.deepEqual(statements(theirs, 'AWS::IAM::ManagedPolicy')[1], { Effect: 'Allow', Action: 'kms:GenerateDataKey', Resource: { 'Fn::GetAtt': [key, 'Arn'] } });
});

test('attachTo keeps what the function has', () => {
  const theirs = construct({}, (extension, its) => {
    const mine = fn(its, { environment: { MINE: '1' } });
    extension.attachTo(mine, { settings: { types: ['platform', 'extension'], maxAgeMs: 500 } });
  });
  const [, it] = only(theirs, 'AWS::Lambda::Function');
  const { KINESIS_TELEMETRY_STREAM, ...variables } = it.Properties.Environment.Variables;
  assert.deepEqual(variables, { MINE: '1', KINESIS_TELEMETRY_TYPES: 'platform,extension', KINESIS_TELEMETRY_MAX_AGE_MS: '500' });
  assert.equal(only(theirs, 'AWS::IAM::Role')[1].Properties.ManagedPolicyArns.length, 2);
});

test('attachTo refuses a function that it has no layer for', () => {
  const attach = () => construct({ architectures: [lambda.Architecture.X86_64] }, (extension, its) => extension.attachTo(fn(its, { architecture: lambda.Architecture.ARM_64 })));
  assert.throws(attach, /Fn is for arm64; there are layers for x86_64 only/);
});

test('attachTo a second time changes the settings and adds nothing', () => {
  const once = construct({}, (extension, its) => extension.attachTo(fn(its), { settings: { flush: 'end' }, denyCloudWatchLogs: true }));
  const twice = construct({}, (extension, its) => {
    const mine = fn(its);
    extension.attachTo(mine, { settings: { flush: 'next' }, denyCloudWatchLogs: true });
    extension.attachTo(mine, { settings: { flush: 'end' }, denyCloudWatchLogs: true });
  });
  assert.deepEqual(twice.toJSON(), once.toJSON());
});

test('a function has one extension only', () => {
  const attach = () => construct({}, (extension, its) => {
    const mine = fn(its);
    extension.attachTo(mine);
    KinesisTelemetryExtension.fromSsm(its, 'Other').attachTo(mine);
  });
  assert.throws(attach, /Theirs\/Fn has the extension of Theirs\/Telemetry already/);
});

test('a container image is refused at synth, with what to put into its Dockerfile', () => {
  const repository = (its: Stack) => ecr.Repository.fromRepositoryName(its, 'Repository', 'theirs');
  const image = (its: Stack) => new lambda.DockerImageFunction(its, 'Image', { code: lambda.DockerImageCode.fromEcr(repository(its)) });
  const attach = () => construct({}, (extension, its) => extension.attachTo(image(its)));
  assert.throws(attach, /Theirs\/Image is a container image, which takes no layers.*COPY --from=/);
});

test('attachToAll attaches to what the filter lets through, and warns of what cannot have it', () => {
  const its = new Stack(new App({ outdir: fs.mkdtempSync(path.join(scratch, 'out-')) }), 'Theirs');
  const extension = new KinesisTelemetryExtension(its, 'Telemetry', { layers: GOOD, architectures: [lambda.Architecture.X86_64] });
  const code = lambda.Code.fromInline('exports.handler = async () => {}');
  const make = (id: string, architecture: lambda.Architecture) => new lambda.Function(its, id, { runtime: lambda.Runtime.NODEJS_24_X, handler: 'index.handler', code, architecture });
  extension.attachToAll(its, { settings: { flush: 'end' }, filter: { matches: (each) => each.node.id !== 'Noisy' } });
  ['Late', 'Noisy'].forEach((id) => make(id, lambda.Architecture.X86_64));
  make('Arm', lambda.Architecture.ARM_64);
  const theirs = Template.fromStack(its);
  const flush = resources(theirs, 'AWS::Lambda::Function').map(([, it]) => it.Properties.Environment?.Variables?.KINESIS_TELEMETRY_FLUSH);
  assert.deepEqual(flush, ['end', undefined, undefined]);
  assert.equal(Annotations.fromStack(its).findWarning('/Theirs/Arm', Match.stringLikeRegexp('Theirs/Arm is for arm64; there are layers for x86_64 only')).length, 1);
});

test('somebody else may be let write, and decrypt what for', () => {
  const theirs = construct({ stream: { encryption: kinesis.StreamEncryption.KMS } }, (extension, its) => {
    extension.grantWrite(new iam.Role(its, 'Writer', { assumedBy: new iam.AccountRootPrincipal() }));
  });
  const [stream] = only(theirs, 'AWS::Kinesis::Stream');
  const [key] = only(theirs, 'AWS::KMS::Key');
  assert.deepEqual(statements(theirs, 'AWS::IAM::Policy'), [
    { Effect: 'Allow', Action: 'kinesis:PutRecords', Resource: { 'Fn::GetAtt': [stream, 'Arn'] } },
    { Effect: 'Allow', Action: 'kms:GenerateDataKey', Resource: { 'Fn::GetAtt': [key, 'Arn'] } },
  ]);
});

/** A stack that takes the extension from elsewhere. */
function importing(make: (its: Stack) => TelemetryExtension, role?: string): Template {
  const its = new Stack(new App({ outdir: fs.mkdtempSync(path.join(scratch, 'out-')) }), 'Theirs');
  make(its).attachTo(fn(its, role ? { role: iam.Role.fromRoleArn(its, 'Role', role) } : {}));
  return Template.fromStack(its);
}

test('another stack takes the newest layer by a parameter, not by an import that would hold the old one fast', () => {
  const theirs = importing((its) => KinesisTelemetryExtension.fromSsm(its, 'Telemetry'));
  assert.ok(!JSON.stringify(theirs.toJSON()).includes('Fn::ImportValue'));
  const parameters = Object.fromEntries(Object.entries(theirs.toJSON().Parameters as Record<string, Json>).map(([id, it]) => [it.Default, id]));
  const [, it] = only(theirs, 'AWS::Lambda::Function');
  assert.deepEqual(it.Properties.Layers, [{ Ref: parameters['/telemetry/kinesis/extension/x86_64/latest'] }]);
  assert.deepEqual(it.Properties.Environment.Variables, { KINESIS_TELEMETRY_STREAM: { Ref: parameters['/telemetry/kinesis/stream/arn'] } });
  const policies = only(theirs, 'AWS::IAM::Role')[1].Properties.ManagedPolicyArns;
  assert.deepEqual(policies[1], { Ref: parameters['/telemetry/kinesis/runtime/policy/arn'] });
  const pinned = importing((its) => KinesisTelemetryExtension.fromSsm(its, 'Telemetry', { prefix: '/ours', version: '1.2.3' }));
  const names = Object.values(pinned.toJSON().Parameters as Record<string, Json>).map((each) => each.Default);
  assert.ok(names.includes('/ours/extension/x86_64/1.2.3'), `${names}`);
});

test('an extension by its ARNs is attached to functions, also to those with a role of another stack', () => {
  const layerArns = { x86_64: 'arn:aws:lambda:eu-west-1:210987654321:layer:kinesis-telemetry-extension-x86_64:3' };
  for (const policyArn of [undefined, 'arn:aws:iam::123456789012:policy/write']) {
    const make = (its: Stack) => KinesisTelemetryExtension.fromAttributes(its, 'Telemetry', { layerArns, streamArn: STREAM, ...(policyArn && { policyArn }) });
    const theirs = importing(make, 'arn:aws:iam::123456789012:role/theirs');
    assert.deepEqual(only(theirs, 'AWS::Lambda::Function')[1].Properties.Layers, [layerArns.x86_64]);
    const [, policy] = only(theirs, 'AWS::IAM::Policy');
    assert.deepEqual(policy.Properties.Roles, ['theirs']);
    assert.deepEqual(policy.Properties.PolicyDocument.Statement, [{ Effect: 'Allow', Action: 'kinesis:PutRecords', Resource: STREAM }]);
  }
});

test('a role that others look after gets the policy as well', () => {
  const theirs = construct({}, (extension, its) => {
    const role = new iam.Role(its, 'Role', { assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com') });
    extension.attachTo(fn(its, { role }));
  });
  const [policy] = only(theirs, 'AWS::IAM::ManagedPolicy');
  assert.deepEqual(only(theirs, 'AWS::IAM::Role')[1].Properties.ManagedPolicyArns, [{ Ref: policy }]);
});

test('a role of another stack, which CDK would leave alone, gets the policy all the same', () => {
  const theirs = construct({}, (extension, its) => {
    const role = iam.Role.fromRoleArn(its, 'Role', 'arn:aws:iam::123456789012:role/theirs');
    extension.attachTo(fn(its, { role }), { denyCloudWatchLogs: true });
  });
  const [policy, it] = only(theirs, 'AWS::IAM::ManagedPolicy');
  assert.deepEqual(it.Properties.Roles, ['theirs']);
  assert.ok(only(theirs, 'AWS::Lambda::Function')[1].DependsOn.includes(policy));
  assert.deepEqual(only(theirs, 'AWS::IAM::Policy')[1].Properties.Roles, ['theirs']);
});

test('with a role to assume, the function may do that instead of writing itself', () => {
  const roleArn = 'arn:aws:iam::210987654321:role/writer';
  const theirs = construct({}, (extension, its) => extension.attachTo(fn(its), { settings: { roleArn } }));
  assert.deepEqual(statements(theirs, 'AWS::IAM::Policy'), [{ Effect: 'Allow', Action: 'sts:AssumeRole', Resource: roleArn }]);
  assert.equal(only(theirs, 'AWS::IAM::Role')[1].Properties.ManagedPolicyArns.length, 1);
});

test('what goes by way of CloudWatch Logs is not asked for where writing there is denied', () => {
  for (const settings of [{ metrics: 'emf' }, { fallback: 'log' }] as const) {
    const attach = () => construct({}, (extension, its) => extension.attachTo(fn(its), { settings, denyCloudWatchLogs: true }));
    assert.throws(attach, /write to CloudWatch Logs, which denyCloudWatchLogs forbids/);
  }
});

test('a layer that would break every function is no template', () => {
  const bad: [string, (folder: string) => void, RegExp][] = [
    ['missing', (folder) => fs.rmSync(path.join(folder, 'arm64', EXTENSION)), /layer for arm64: .* is missing; scripts\/build-layer arm64/],
    ['mode', (folder) => fs.chmodSync(path.join(folder, 'arm64', EXTENSION), 0o644), /has mode 0644, not 0755/],
    ['elsewhere', (folder) => fs.renameSync(path.join(folder, 'arm64/extensions'), path.join(folder, 'arm64/extension')), /is missing/],
    ['more', (folder) => fs.writeFileSync(path.join(folder, 'arm64/extensions/other'), ''), /holds more than .*: extensions\/other/],
    ['script', (folder) => fs.writeFileSync(path.join(folder, 'arm64', EXTENSION), '#!/bin/sh\nexec something else\n'), /is no ELF program/],
    ['swapped', (folder) => fs.copyFileSync(path.join(folder, 'x86_64', EXTENSION), path.join(folder, 'arm64', EXTENSION)), /is a program for x86_64/],
  ];
  for (const [name, change, message] of bad) {
    assert.throws(() => construct({ layers: layers(name, change) }), message, name);
  }
});

test('the zips of a release are layers as they are; broken ones are no template', () => {
  const release = given('RELEASE');
  assert.equal(Object.keys(construct({ layers: release }).findResources('AWS::Lambda::LayerVersion')).length, 2);
  const broken: [string, (zip: Buffer) => Buffer, RegExp][] = [
    ['cut', (zip) => zip.subarray(0, zip.length - 30), /can't be read: it is no zip/],
    ['empty', () => Buffer.alloc(0), /can't be read: it is no zip/],
    ['short', (zip) => zip.subarray(zip.length - 60), /can't be read/],
    ['swapped', () => fs.readFileSync(path.join(release, 'kinesis-telemetry-extension-x86_64.zip')), /is a program for x86_64/],
    ['mode', (zip) => {
      const copy = Buffer.from(zip);
      const entry = copy.lastIndexOf(Buffer.from('PK\x01\x02', 'latin1'));
      copy.writeUInt32LE((0o100644 << 16) >>> 0, entry + 38);
      return copy;
    }, /has mode 0644, not 0755/],
    ['name', (zip) => Buffer.from(zip.toString('latin1').replaceAll('extensions/kinesis', 'extension5/kinesis'), 'latin1'), /is missing/],
  ];
  for (const [name, change, message] of broken) {
    const folder = path.join(scratch, `zips-${name}`);
    fs.cpSync(release, folder, { recursive: true });
    const zip = path.join(folder, 'kinesis-telemetry-extension-arm64.zip');
    fs.writeFileSync(zip, change(fs.readFileSync(zip)));
    assert.throws(() => construct({ layers: folder }), message, name);
  }
});

test('with an account, CDK acts on no other; without one, on whichever is there', () => {
  const app = (context: Json) => fill(new App({ outdir: fs.mkdtempSync(path.join(scratch, 'out-')), context: { ...FLAGS, ...TAGS, layers: GOOD, ...context } }));
  for (const context of [{}, { destroy: 'true' }]) {
    assert.equal(app({ ...context, account: '123456789012' }).synth().stacks[0]!.environment.account, '123456789012');
    assert.equal(app(context).synth().stacks[0]!.environment.account, 'unknown-account');
  }
});

test('the stack itself is tagged too', () => {
  assert.deepEqual(application('tagged', {}).synth().stacks[0]!.tags, TAGS);
});

test('every feature flag of CDK is settled, as CDK recommends', () => {
  const recommended = path.join(path.dirname(require.resolve('aws-cdk-lib/package.json')), 'recommended-feature-flags.json');
  assert.deepEqual(FLAGS, JSON.parse(fs.readFileSync(recommended, 'utf8')));
});

/** What cdk-nag's rules find in a stack, without logical ids. */
function found(name: string, context: Json): Set<string> {
  const app = application(`nag-${name}`, context);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  // It throws when there is anything, after it has written the report.
  try {
    app.synth();
  } catch (error) {
    assert.match(String(error), /Validation failed/);
  }
  const report: Json = JSON.parse(fs.readFileSync(path.join(app.outdir, 'validation-report.json'), 'utf8'));
  const nag = (report.pluginReports as Json[]).find((each) => each.pluginName === 'AwsSolutions');
  assert.ok(nag, 'cdk-nag has looked at it');
  return new Set((nag.violations as Json[]).map((violation) => String(violation.ruleName).replace(/<\w+\./, '<')));
}

test('cdk-nag finds what is accepted with a reason, and nothing else', () => {
  const accepted = JSON.parse(fs.readFileSync(given('ACCEPTED'), 'utf8')) as Record<string, string>;
  Object.entries(accepted).forEach(([rule, reason]) => assert.ok(reason.length > 40, `${rule} has a reason`));
  const all = Object.entries(contexts).map(([name, context]) => found(name, context));
  assert.deepEqual(new Set(all.flatMap((rules) => [...rules])), new Set(Object.keys(accepted)));
  assert.ok(found('planted', { encryption: 'none' }).has('AwsSolutions-KDS1'), 'it sees that a stream is not encrypted');
});

test('a wrong value in the context is an error that names it', () => {
  assert.throws(() => template('bad', { shards: '0' }), /shards=0/);
  assert.throws(() => template('bad', { account: 'mine' }), /account=mine: allowed are 12 digits/);
  assert.throws(() => template('bad', { maxGigabytesPerDay: 'many' }), /maxGigabytesPerDay=many: allowed is a whole number from 1/);
  for (const key of ['denyLogs', 'archive', 'consumed', 'retain', 'destroy']) {
    assert.throws(() => template('bad', { [key]: 'yes' }), new RegExp(`${key}=yes: allowed is true or false`));
  }
  assert.throws(() => template('bad', { encryption: 'yes' }), /encryption=yes: allowed is aws, none or the ARN/);
  assert.throws(() => template('bad', { streamArn: STREAM, shards: '2' }), /shards and retentionHours are for a stream that is made/);
  assert.throws(() => template('bad', { settings: 'flush' }), /settings=flush: allowed is JSON/);
  assert.throws(() => template('bad', { settings: '{"flush":"sometimes"}' }), /flush="sometimes": allowed is adaptive, end, next/);
});
