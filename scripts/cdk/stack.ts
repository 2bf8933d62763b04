/** The stack that `scripts/deploy` deploys: the extension, how others find it, and functions to try it with. */
import {
  CfnDeletionPolicy, CfnOutput, CfnResource, Duration, RemovalPolicy, Stack, StackProps, aws_iam as iam, aws_kinesis as kinesis, aws_kms as kms, aws_lambda as lambda,
  aws_logs as logs, aws_sns as sns, aws_ssm as ssm,
} from 'aws-cdk-lib';
import { Construct } from 'constructs';
import * as path from 'node:path';

import { Archive } from './archive';
import { ARCHITECTURES, ExistingStream, KinesisTelemetryExtension, PARAMETERS, StreamOptions } from './extension';
import { Monitoring } from './monitoring';
import { ExtensionSettings } from './settings';

/** What the stack is made from. */
export interface TelemetryStackProps extends StackProps {
  /** The folder that `scripts/build-layer` writes. */
  readonly layers: string;
  /** Of the extension: part of a parameter's name. */
  readonly version: string;
  /** Whether stream and layers outlive the stack. Default: false, which suits a stack to try things with. */
  readonly retain?: boolean;
  /** ARN of a stream that is there already. Default: one is made, as the next three say. */
  readonly streamArn?: string;
  /** A provisioned stream of so many shards. Default: on demand. */
  readonly shards?: number;
  /** Default: 24. */
  readonly retentionHours?: number;
  /** `aws` (the account's key `alias/aws/kinesis`), `none`, or the ARN of a key of your own. Default: `aws`. */
  readonly encryption?: string;
  /** Of the demo functions' extensions. */
  readonly settings?: ExtensionSettings;
  /** Whether the demo functions are forbidden to write to CloudWatch Logs. */
  readonly denyCloudWatchLogs?: boolean;
  /** Whether Firehose archives the stream in a bucket. */
  readonly archive?: boolean;
  /** Whether somebody else reads the stream, so that an alarm watches the lag. */
  readonly consumed?: boolean;
  /** An alarm goes off when more is written, for 15 minutes. Default: 100. */
  readonly maxGigabytesPerDay?: number;
  /** ARN of an SNS topic that is told of alarms. */
  readonly alarmTopic?: string;
}

/** One stream, a layer and a demo function for each architecture, a policy, parameters, a dashboard and alarms. */
export class TelemetryStack extends Stack {
  constructor(scope: Construct, id: string, props: TelemetryStackProps) {
    super(scope, id, { description: 'Telemetry of Lambda functions on a Kinesis data stream', ...props });
    const removalPolicy = props.retain ? RemovalPolicy.RETAIN : RemovalPolicy.DESTROY;
    const telemetry = new KinesisTelemetryExtension(this, 'Telemetry', { layers: props.layers, stream: this.stream(props), removalPolicy });
    this.output('StreamName', telemetry.stream.streamName);
    this.publish('StreamArn', 'stream/arn', telemetry.stream.streamArn, 'The stream to write to');
    this.publish('PolicyArn', 'runtime/policy/arn', telemetry.policy.managedPolicyArn, 'Managed policy for the roles of functions with the extension');

    Object.entries(telemetry.layers).forEach(([name, layer]) => {
      // Other stacks may be pinned to a version: a new one does not take the old one away, nor its parameter.
      keepReplaced(layer);
      keepReplaced(this.parameter(`Version-${name}`, `extension/${name}/${props.version}`, layer.layerVersionArn, `Layer version for ${name}`));
      this.parameter(`Latest-${name}`, `extension/${name}/latest`, layer.layerVersionArn, `Newest layer version for ${name}`);
      this.publish(`LayerArn-${name}`, `extension/${name}/arn`, layer.layerVersionArn, `Layer version for ${name}`);
      // The architecture that a function has when it names none has the short name.
      if (name === 'x86_64') this.publish('LayerArn', 'extension/arn', layer.layerVersionArn, `Layer version for ${name}`);
    });
    const functions = ARCHITECTURES.map((architecture) => this.demo(architecture));
    functions.forEach((fn) => telemetry.attachTo(fn, { settings: props.settings ?? {}, denyCloudWatchLogs: props.denyCloudWatchLogs ?? false }));

    if (props.archive) {
      const archive = new Archive(this, 'Archive', { stream: telemetry.stream });
      this.output('ArchiveBucket', archive.bucket.bucketName);
    }
    const monitoring = new Monitoring(this, 'Monitoring', {
      stream: telemetry.stream,
      functions,
      consumed: Boolean(props.archive || props.consumed),
      embeddedMetrics: props.settings?.metrics === 'emf',
      ...(props.maxGigabytesPerDay && { maxGigabytesPerDay: props.maxGigabytesPerDay }),
      ...(props.alarmTopic && { topic: sns.Topic.fromTopicArn(this, 'AlarmTopic', props.alarmTopic) }),
    });
    this.output('Dashboard', monitoring.dashboard.dashboardName);
    monitoring.alarms.forEach((alarm) => this.output(`${alarm.node.id}Alarm`, alarm.alarmName));
  }

  private stream(props: TelemetryStackProps): StreamOptions | ExistingStream {
    const { streamArn: arn, shards, retentionHours, encryption = 'aws' } = props;
    const ready = { aws: kinesis.StreamEncryption.MANAGED, none: kinesis.StreamEncryption.UNENCRYPTED }[encryption];
    if (!ready && !encryption.startsWith('arn:')) throw new Error(`encryption=${encryption}: allowed is aws, none or the ARN of a KMS key`);
    const key = ready ? {} : { encryptionKey: kms.Key.fromKeyArn(this, 'Key', encryption) };
    if (arn) {
      if (shards || retentionHours) throw new Error('shards and retentionHours are for a stream that is made, not for streamArn');
      return { arn, ...key };
    }
    return {
      ...(shards && { mode: kinesis.StreamMode.PROVISIONED, shards }),
      retention: Duration.hours(retentionHours ?? 24),
      encryption: ready ?? kinesis.StreamEncryption.KMS,
      ...key,
    };
  }

  /** A function that says one line, with a log group that keeps it for a day. */
  private demo(architecture: lambda.Architecture): lambda.Function {
    const logGroup = new logs.LogGroup(this, `DemoLogs-${architecture.name}`, {
      retention: logs.RetentionDays.ONE_DAY,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // A role of its own, which may write to this log group: CDK's would bring AWS's policy for all of them.
    const role = new iam.Role(this, `DemoRole-${architecture.name}`, { assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com') });
    logGroup.grantWrite(role);
    const fn = new lambda.Function(this, `Demo-${architecture.name}`, {
      description: 'Says one line, with the Kinesis telemetry extension beside it',
      architecture,
      runtime: lambda.Runtime.NODEJS_24_X,
      handler: 'index.handler',
      code: lambda.Code.fromAsset(path.join(__dirname, '../demo')),
      memorySize: 256,
      timeout: Duration.seconds(10),
      tracing: lambda.Tracing.ACTIVE,
      loggingFormat: lambda.LoggingFormat.JSON,
      logGroup,
      role,
    });
    this.output(`DemoFunction-${architecture.name}`, fn.functionName);
    this.output(`DemoLogGroup-${architecture.name}`, logGroup.logGroupName);
    return fn;
  }

  /** A value as an SSM parameter and as an output. */
  private publish(id: string, name: string, stringValue: string, description: string): void {
    this.parameter(id, name, stringValue, description);
    this.output(id, stringValue, description);
  }

  private parameter(id: string, name: string, stringValue: string, description: string): ssm.StringParameter {
    return new ssm.StringParameter(this, `Parameter-${id}`, { parameterName: `${PARAMETERS}/${name}`, stringValue, description });
  }

  /** Outputs take letters and digits only. */
  private output(id: string, value: string, description?: string): void {
    new CfnOutput(this, `Output-${id}`, { value, ...(description && { description }) }).overrideLogicalId(id.replace(/[^A-Za-z0-9]/g, ''));
  }
}

/** What an update puts something else in place of stays. */
function keepReplaced(construct: Construct | lambda.ILayerVersion): void {
  const options = (construct.node.defaultChild as CfnResource).cfnOptions;
  options.updateReplacePolicy = CfnDeletionPolicy.RETAIN;
  options.deletionPolicy ??= CfnDeletionPolicy.DELETE;
}
