/**
 * The construct for others to take, with `layer.ts` and `settings.ts`: a stream, the layers, a policy, and `attachTo` for
 * a function.
 *
 *     const telemetry = new KinesisTelemetryExtension(this, 'Telemetry', { layers: 'target/layer' });
 *     telemetry.attachTo(fn, { settings: { flush: 'end', tags: { team: 'payments' } } });
 */
import { Duration, RemovalPolicy, Tags, aws_iam as iam, aws_kinesis as kinesis, aws_kms as kms, aws_lambda as lambda } from 'aws-cdk-lib';
import { Construct } from 'constructs';

import { checkedLayer } from './layer';
import { ExtensionSettings, PREFIX, environment } from './settings';

/** Every architecture that Lambda has. */
export const ARCHITECTURES: readonly lambda.Architecture[] = [lambda.Architecture.X86_64, lambda.Architecture.ARM_64];

/** How a stream is made. */
export interface StreamOptions {
  /** Default: CloudFormation makes one up. A stream with a name of its own can't be replaced by an update. */
  readonly name?: string;
  /** Default: on demand, where nobody has to know the traffic before. */
  readonly mode?: kinesis.StreamMode;
  /** Number of shards, with `StreamMode.PROVISIONED` only: each takes 1 MB/s or 1000 records/s. Default: 1. */
  readonly shards?: number;
  /** How long a record can be read, from 24 hours to 365 days. Default: 24 hours, which is in the price. */
  readonly retention?: Duration;
  /**
   * Default: `MANAGED`, the account's key `alias/aws/kinesis`: nothing to look after, and a function needs no permission
   * for it, but no other account can write. `KMS` is a key of your own, which costs by the month and by the call, and
   * for which the policy grants `kms:GenerateDataKey`.
   */
  readonly encryption?: kinesis.StreamEncryption;
  /** Your own key, with `StreamEncryption.KMS`. Default: one is made. */
  readonly encryptionKey?: kms.IKey;
}

/** A stream that is there already. */
export interface ExistingStream {
  /** May be of another region or account; another account's stream needs a resource policy that lets this one in. */
  readonly arn: string;
  /** The key it is encrypted with, when that is a customer's. */
  readonly encryptionKey?: kms.IKey;
}

/** What the construct is made from. */
export interface KinesisTelemetryExtensionProps {
  /** The folder that `scripts/build-layer` writes: `<layers>/<architecture>/extensions/kinesis-telemetry-extension`. */
  readonly layers: string;
  /** Architectures to make a layer for. Default: x86_64 and arm64. */
  readonly architectures?: readonly lambda.Architecture[];
  /** The stream to make, or `{ arn }` of an existing one. Default: one is made, with the defaults of `StreamOptions`. */
  readonly stream?: StreamOptions | ExistingStream;
  /** Of the layers; `-x86_64` or `-arm64` is added. Default: `kinesis-telemetry-extension`. */
  readonly layerName?: string;
  /** Of the managed policy. Default: CloudFormation makes one up. */
  readonly policyName?: string;
  /** What becomes of stream and layers when they leave the stack. Default: they are retained. */
  readonly removalPolicy?: RemovalPolicy;
  /** Put on what the construct makes and can be tagged: not on layers and the managed policy, which CloudFormation can't tag. */
  readonly tags?: Readonly<Record<string, string>>;
}

/** How one function gets its telemetry shipped. */
export interface AttachOptions {
  /** Default: the extension's own defaults. */
  readonly settings?: ExtensionSettings;
  /**
   * Forbids the function to write to CloudWatch Logs, so that nothing is paid for there; the telemetry comes all the
   * same. The extension's own lines then go unseen too, unless `types` has `extension`. Default: false.
   */
  readonly denyCloudWatchLogs?: boolean;
}

/** The extension, ready to be attached to functions. */
export class KinesisTelemetryExtension extends Construct {
  /** The stream it writes to: made here, or the existing one. */
  readonly stream: kinesis.IStream;
  /** Lets its bearer write to the stream, and nothing else. */
  readonly policy: iam.ManagedPolicy;
  /** A layer for each architecture, by its name: `x86_64`, `arm64`. */
  readonly layers: ReadonlyMap<string, lambda.LayerVersion>;

  constructor(scope: Construct, id: string, props: KinesisTelemetryExtensionProps) {
    super(scope, id);
    const removalPolicy = props.removalPolicy ?? RemovalPolicy.RETAIN;
    this.stream = this.streamOf(props.stream ?? {}, removalPolicy);
    this.policy = this.policyFor(this.stream, props.policyName);
    this.layers = new Map((props.architectures ?? ARCHITECTURES).map((architecture) => [architecture.name, this.layerFor(architecture, props, removalPolicy)]));
    Object.entries(props.tags ?? {}).forEach(([key, value]) => Tags.of(this).add(key, value));
  }

  /** Adds to `fn` the layer of its architecture, the settings, and the permission to write (or to assume `roleArn`). */
  attachTo(fn: lambda.Function, options: AttachOptions = {}): void {
    const layer = this.layers.get(fn.architecture.name);
    if (!layer) throw new Error(`${fn.node.path} is for ${fn.architecture.name}; there are layers for ${[...this.layers.keys()].join(', ')} only`);
    if (!fn.role) throw new Error(`${fn.node.path} has no role that the telemetry policy could be attached to`);
    const settings = options.settings ?? {};
    fn.addLayers(layer);
    // The ARN, not the name: it carries the region, and is right for a stream in another account too.
    const variables = { [`${PREFIX}STREAM`]: this.stream.streamArn, ...environment(settings) };
    Object.entries(variables).forEach(([name, value]) => fn.addEnvironment(name, value));
    if (settings.roleArn) {
      // That role writes, not the function's own; its trust policy has to let the function's role in.
      fn.addToRolePolicy(new iam.PolicyStatement({ actions: ['sts:AssumeRole'], resources: [settings.roleArn] }));
    } else {
      this.permit(fn, fn.role);
    }
    if (options.denyCloudWatchLogs) {
      if (settings.metrics === 'emf' || settings.fallback === 'log') {
        throw new Error(`${fn.node.path}: metrics=emf and fallback=log write to CloudWatch Logs, which denyCloudWatchLogs forbids`);
      }
      // Every log group: what this does not deny, another of the role's policies may allow.
      const actions = ['logs:CreateLogGroup', 'logs:CreateLogStream', 'logs:PutLogEvents'];
      fn.addToRolePolicy(new iam.PolicyStatement({ effect: iam.Effect.DENY, actions, resources: ['*'] }));
    }
  }

  private permit(fn: lambda.Function, role: iam.IRole): void {
    if (role instanceof iam.Role) {
      role.addManagedPolicy(this.policy);
    } else {
      // CDK adds nothing to a role of another stack, with a warning only. So the policy names the role.
      this.policy.attachToRole(role);
      fn.node.addDependency(this.policy);
    }
  }

  private streamOf(stream: StreamOptions | ExistingStream, removalPolicy: RemovalPolicy): kinesis.IStream {
    if ('arn' in stream) {
      const key = stream.encryptionKey;
      return kinesis.Stream.fromStreamAttributes(this, 'Stream', { streamArn: stream.arn, ...(key && { encryptionKey: key }) });
    }
    return new kinesis.Stream(this, 'Stream', {
      ...(stream.name && { streamName: stream.name }),
      streamMode: stream.mode ?? kinesis.StreamMode.ON_DEMAND,
      ...(stream.shards && { shardCount: stream.shards }),
      retentionPeriod: stream.retention ?? Duration.hours(24),
      encryption: stream.encryption ?? kinesis.StreamEncryption.MANAGED,
      ...(stream.encryptionKey && { encryptionKey: stream.encryptionKey }),
      removalPolicy,
    });
  }

  private policyFor(stream: kinesis.IStream, name: string | undefined): iam.ManagedPolicy {
    const policy = new iam.ManagedPolicy(this, 'Policy', {
      ...(name && { managedPolicyName: name }),
      description: 'Lets the Kinesis telemetry extension write to its stream',
      statements: [new iam.PolicyStatement({ actions: ['kinesis:PutRecords'], resources: [stream.streamArn] })],
    });
    if (stream.encryptionKey) {
      policy.addStatements(new iam.PolicyStatement({ actions: ['kms:GenerateDataKey'], resources: [stream.encryptionKey.keyArn] }));
    }
    return policy;
  }

  private layerFor(architecture: lambda.Architecture, props: KinesisTelemetryExtensionProps, removalPolicy: RemovalPolicy): lambda.LayerVersion {
    return new lambda.LayerVersion(this, `Layer-${architecture.name}`, {
      layerVersionName: `${props.layerName ?? 'kinesis-telemetry-extension'}-${architecture.name}`,
      description: 'Puts telemetry of Lambda functions on a Kinesis data stream',
      license: 'Apache-2.0',
      // A folder, not a zip: its hash does not depend on times, so a layer that did not change is not published anew.
      code: lambda.Code.fromAsset(checkedLayer(props.layers, architecture.name)),
      compatibleArchitectures: [architecture],
      removalPolicy,
    });
  }
}
